"""Reading YAML settings into pydantic models, with errors a person can act on.

Recipes and benchmark descriptions are data from anywhere: they are validated as a whole before
anything is used, an unknown key is an error, and nothing in them is ever executed.

A file may be a table of many settings that differ in little. Its `rows` are axes, each a mapping of
names to what is stated there; a row has one name of each, as in `FILE.yaml:ipt.lora.x4`, and is the
file's other keys with those of its names over them, mapping by mapping. Under `except`, patterns of
rows name what is stated in these alone, or null where there is no such row.
"""

import contextlib
import copy
import reprlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from urushi.errors import UrushiError, nearest

__all__ = [
    "Settings",
    "SettingsFolder",
    "names_file",
    "parse_settings",
    "read_mapping",
    "read_settings",
    "rows_of",
    "set_values",
    "shown",
]

_LONGEST_NAME = 1000
_MOST_PARENTS = 20
_ROWS, _EXCEPT = "rows", "except"
_BOUNDED = reprlib.Repr()
_BOUNDED.maxlevel, _BOUNDED.maxdict, _BOUNDED.maxlist, _BOUNDED.maxtuple = 3, 6, 8, 8
_BOUNDED.maxstring = _BOUNDED.maxlong = _BOUNDED.maxother = 100

Model = TypeVar("Model", bound="Settings")


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Former names of keys, each with the present one, which the refusal of a former one names."""

    @model_validator(mode="before")
    @classmethod
    def _with_present_names(cls, content: Any, info: Any) -> Any:
        if not (info.context and info.context["former"] and isinstance(content, dict)):
            return content
        return {cls.renamed.get(key, key): value for key, value in content.items()}

    def values_of(self, model: "type[Settings]") -> dict[str, Any]:
        """The values of the fields of `model`, all of which these settings have, too."""
        return {name: getattr(self, name) for name in model.model_fields}


class SettingsFolder(Mapping[str, Model], Generic[Model]):
    """The YAML files of a folder by name, each read as settings when it is asked for.

    Args:
        folder: of YAML files, which are called as their key `name` says.
        model: what each describes.
        error: what is raised where one does not.
    """

    def __init__(self, folder: Path, model: type[Model], error: type[UrushiError]) -> None:
        self._folder, self._model, self._error = folder, model, error
        self._read: dict[str, Model] = {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {path.stem: path for path in sorted(self._folder.glob("*.yaml"))}

    def __getitem__(self, name: str) -> Model:
        path = self._files[name]
        if name not in self._read:
            found = read_settings(path, self._model, self._error)
            if (own := getattr(found, "name", name)) != name:
                raise self._error(f"{path} describes {own!r}: file and name must be equal")
            self._read[name] = found
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def names_file(path: Path) -> bool:
    """Whether a path is that of a file; a text that no file can be called is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def shown(value: object) -> str:
    """A value as sentences name it: its `repr`, of bounded length and depth."""
    return _BOUNDED.repr(value)[:200]


def find_settings(
    name: str, table: Mapping[str, Model], model: type[Model], error: type[UrushiError], what: str
) -> Model:
    """What is called that in a table, or what the YAML file of that path describes.

    Args:
        name: of either.
        table: what is known.
        model: what a file describes.
        error: the exception to raise.
        what: the entries of the table, in the singular, for messages.
    """
    if name in table:
        return table[name]
    if name.endswith((".yaml", ".yml")):
        return read_settings(name, model, error)
    hint = nearest(name, table)
    raise error(f"there is no {what} {name!r}{hint}: known are {', '.join(table)}", usage=True)


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
    content = read_mapping(path, error)
    seen = {Path(path).resolve()}
    while find_parent is not None and "extends" in content:
        named = content.pop("extends")
        if not isinstance(named, str) or len(named) > _LONGEST_NAME:
            raise error(f"{path}: extends is {shown(named)}, expected the name of another file")
        parent = find_parent(named)
        if parent.resolve() in seen:
            raise error(f"{path} extends itself, by way of {parent}")
        seen.add(parent.resolve())
        content = _merged(read_mapping(parent, error), content)
    changed = copy.deepcopy(content)
    set_values(changed, overrides, error)
    try:
        return parse_settings(changed, model, error, str(path))
    except error as wrong:
        # In a file that is sound by itself, what was set is wrong.
        with contextlib.suppress(error):
            parse_settings(content, model, error, str(path))
            wrong.usage = changed != content
        raise


def read_mapping(path: Path | str, error: type[UrushiError]) -> dict[str, Any]:
    """The mapping that a YAML file holds, or a row of one that is a table (`FILE:ROW`).

    Raises:
        UrushiError: of the class `error`; it cannot be read, or has no such row.
    """
    path = Path(path)
    file, _, row = ("", "", "") if names_file(path) else path.name.rpartition(":")
    content = _mapping_in(path.with_name(file) if file else path, error)
    if _ROWS not in content and not file:
        return content
    if _ROWS not in content:
        raise error(f"{path.with_name(file)} is no table: leave {':' + row!r} out")
    rows = _rows(content, f"{path}", error)
    if row not in rows:
        axes = "; ".join(f"{axis}: {', '.join(names)}" for axis, names in content[_ROWS].items())
        raise error(
            f"{path} names no row of a table{nearest(row, rows)}: a row is called as in "
            f"{path.stem if not file else Path(file).stem}:{next(iter(rows), 'NAME')}, of {axes}"
        )
    made = {key: value for key, value in content.items() if key not in (_ROWS, _EXCEPT)}
    for part in rows[row]:
        made = _merged(made, part)
    made.setdefault("name", f"{Path(file).stem}-{row}".replace(".", "-"))
    return made


def rows_of(path: Path, error: type[UrushiError]) -> list[str]:
    """The names of a table's rows; of another file, none.

    Raises:
        UrushiError: of the class `error`; it cannot be read.
    """
    content = _mapping_in(path, error)
    return list(_rows(content, str(path), error)) if _ROWS in content else []


def _rows(
    content: dict[str, Any], source: str, error: type[UrushiError]
) -> dict[str, list[dict[str, Any]]]:
    """What each row states, from the general to the special."""
    axes, special = content.get(_ROWS, {}), content.get(_EXCEPT, {})
    for entry in (axes, special, *(axes.values() if isinstance(axes, dict) else ())):
        if not isinstance(entry, dict):
            raise error(f"{source}: rows and except are not mappings of names to mappings")
    found = {}
    for names in product(*axes.values()) if axes else ():
        row = ".".join(map(str, names))
        parts = [axis[name] or {} for axis, name in zip(axes.values(), names, strict=True)]
        own = [value for pattern, value in special.items() if fnmatchcase(row, pattern)]
        if None not in own:
            found[row] = [*parts, *own]
    if not all(isinstance(part, dict) for parts in found.values() for part in parts):
        raise error(f"{source}: a name of rows or except states no mapping")
    return found


def _mapping_in(path: Path, error: type[UrushiError]) -> dict[str, Any]:
    from urushi.yaml_text import YAMLTextError, read_yaml  # most processes read no YAML

    try:
        content = read_yaml(path)
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
    content: dict[str, Any],
    model: type[Model],
    error: type[UrushiError],
    source: str,
    *,
    former: bool = False,
) -> Model:
    """Validates `content` as `model`; see `read_settings`.

    With `former`, keys may have former names: what an earlier version wrote stays readable, where
    what a person writes is refused with the present name.
    """
    try:
        return model.model_validate(content, context={"former": former})
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
            raise error(
                f"{text!r} sets nothing: expected KEY=VALUE, such as schedule.steps=1000",
                usage=True,
            )
        place: Any = content
        *parents, last = key.split(".")
        if len(parents) > _MOST_PARENTS:
            raise error(
                f"{shown(key)} names {len(parents)} groups within groups, which none has",
                usage=True,
            )
        for name in parents:
            if isinstance(place, list):
                place = place[_index(place, name, key, error)]
            else:
                place = place.setdefault(name, {})
            if not isinstance(place, dict | list):
                raise error(
                    f"{key} cannot be set: {name} is a value, not a group of keys", usage=True
                )
        where: Any = _index(place, last, key, error) if isinstance(place, list) else last
        try:
            place[where] = parse_yaml(value)
        except YAMLTextError as reason:
            raise error(
                f"{shown(text)}: {shown(value)} is not a YAML value ({reason})", usage=True
            ) from reason


def _index(entries: list[Any], name: str, key: str, error: type[UrushiError]) -> int:
    if not name.isascii() or not name.isdigit() or not int(name[:9]) < len(entries):
        last = len(entries) - 1
        raise error(
            f"{key} cannot be set: {name} is no entry of a list that ends at {last}", usage=True
        )
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
