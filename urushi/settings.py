"""Reading YAML settings into pydantic models, with errors a person can act on.

Recipes and benchmark descriptions are data from anywhere: they are validated as a whole before
anything is used, an unknown key is an error, and nothing in them is ever executed.
"""

import reprlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from urushi.errors import UrushiError, nearest

__all__ = [
    "Settings",
    "names_file",
    "parse_settings",
    "read_settings",
    "set_values",
    "shown",
]

_LONGEST_NAME = 1000
_MOST_PARENTS = 20
_BOUNDED = reprlib.Repr()
_BOUNDED.maxlevel, _BOUNDED.maxdict, _BOUNDED.maxlist, _BOUNDED.maxtuple = 3, 6, 8, 8
_BOUNDED.maxstring = _BOUNDED.maxlong = _BOUNDED.maxother = 100

Model = TypeVar("Model", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of keys, each with the present one, which the refusal of a former one names."""

    def values_of(self, model: "type[Settings]") -> dict[str, Any]:
        """The values of the fields of `model`, all of which these settings have, too."""
        return {name: getattr(self, name) for name in model.model_fields}


def names_file(path: Path) -> bool:
    """Whether a path is that of a file; a text that no file can be called is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shown(value: object) -> str:
    """A value as sentences name it: its `repr`, of bounded length and depth."""
    return _BOUNDED.repr(value)[:200]


def read_settings(
    path: Path | str,
    model: type[Model],
    error: type[UrushiError],
    overrides: Iterable[str] = (),
    find_parent: Callable[[str], Path] | None = None,
) -> Model:
    """Reads the YAML file `path` as `model`.

    Args:
        path: a YAML file of one mapping.
        model: what it describes.
        error: the exception to raise.
        overrides: `a.b=value` texts, applied before validation; values are YAML.
        find_parent: where the file lies that a key `extends` names. The file's own keys go over
            those of that file, mapping by mapping. None knows no such key.

    Raises:
        UrushiError: of the class `error`; the file cannot be read, or a key or value is wrong.
    """
    content = _read_mapping(path, error)
    seen = {Path(path).resolve()}
    while find_parent is not None and "extends" in content:
        named = content.pop("extends")
        if not isinstance(named, str) or len(named) > _LONGEST_NAME:
            raise error(f"{path}: extends is {shown(named)}, expected the name of another file")
        parent = find_parent(named)
        if parent.resolve() in seen:
            raise error(f"{path} extends itself, by way of {parent}")
        seen.add(parent.resolve())
        content = _merged(_read_mapping(parent, error), content)
    set_values(content, overrides, error)
    return parse_settings(content, model, error, str(path))


def _read_mapping(path: Path | str, error: type[UrushiError]) -> dict[str, Any]:
    from urushi.yaml_text import YAMLTextError, read_yaml  # most processes read no YAML

    try:
        content = read_yaml(Path(path))
    except OSError as reason:
        raise error(f"{path} cannot be read: {reason.strerror or reason}") from reason
    except YAMLTextError as reason:
        raise error(f"{path} is not valid YAML: {reason}") from reason
    if not isinstance(content, dict):
        raise error(f"{path} holds {type(content).__name__}: a mapping of keys was expected")
    return content


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Both mappings in one; where both have a key, the upper one's value counts."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = _merged(below[key], above[key])
    return merged


def parse_settings(
    content: dict[str, Any], model: type[Model], error: type[UrushiError], source: str
) -> Model:
    """Validates `content` as `model`; see `read_settings`."""
    try:
        return model.model_validate(content)
    except ValidationError as reason:
        raise error(f"{source}: {_explain(reason, model)}") from reason


def set_values(content: dict[str, Any], overrides: Iterable[str], error: type[UrushiError]) -> None:
    """Applies `a.b=value` texts to nested mappings in place; see `read_settings`.

    A number in place of a name counts the entries of a list, from 0.
    """
    from urushi.yaml_text import YAMLTextError, parse_yaml

    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise error(f"{text!r} sets nothing: expected KEY=VALUE, such as schedule.steps=1000")
        place: Any = content
        *parents, last = key.split(".")
        if len(parents) > _MOST_PARENTS:
            raise error(f"{shown(key)} names {len(parents)} groups within groups, which none has")
        for name in parents:
            if isinstance(place, list):
                place = place[_index(place, name, key, error)]
            else:
                place = place.setdefault(name, {})
            if not isinstance(place, dict | list):
                raise error(f"{key} cannot be set: {name} is a value, not a group of keys")
        where: Any = _index(place, last, key, error) if isinstance(place, list) else last
        try:
            place[where] = parse_yaml(value)
        except YAMLTextError as reason:
            raise error(f"{shown(text)}: {shown(value)} is not a YAML value ({reason})") from reason


def _index(entries: list[Any], name: str, key: str, error: type[UrushiError]) -> int:
    if not name.isascii() or not name.isdigit() or not int(name[:9]) < len(entries):
        last = len(entries) - 1
        raise error(f"{key} cannot be set: {name} is no entry of a list that ends at {last}")
    return int(name)


def _settings_in(annotation: Any) -> Any:
    """The settings that an annotation is made of: itself, or what it is a list or mapping of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_settings_in, get_args(annotation))), None)


def _explain(reason: ValidationError, model: type[BaseModel]) -> str:
    """One problem as one sentence: where, what, and the nearest known key."""
    found = reason.errors(include_url=False)
    # A key that is written wrongly is also one that is missing.
    first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    where = ".".join(str(part) for part in first["loc"])[:100]
    more = f" (and {reason.error_count() - 1} more)" if reason.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        group: Any = model
        for part in first["loc"][:-1]:
            # What is no field is a key of a mapping or a place in a list of such groups.
            if field := getattr(group, "model_fields", {}).get(str(part)):
                group = _settings_in(field.annotation)
        former = getattr(group, "renamed", {}).get(str(first["loc"][-1]))
        if former is not None:
            return f"{where} is called {former} now{more}"
        known = list(getattr(group, "model_fields", {}))
        hint = nearest(str(first["loc"][-1]), known)
        listed = f": known are {', '.join(known)}" if known and not hint else hint
        return f"{where} is not a known key{listed}{more}"
    if first["type"] == "missing":
        return f"{where} is missing{more}"
    said = first["msg"].removeprefix("Value error, ")[:300]
    said = f"{said[0].lower()}{said[1:]}{more}"
    return f"{where} is {shown(first['input'])}: {said}" if where else said
