"""What is wrong with the fields of a request, in sentences that say what was expected."""

from collections.abc import Mapping, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fastapi import UploadFile
from pydantic.fields import FieldInfo

from urushi.names import counted

__all__ = ["empty", "expected", "wrong"]

_ASKED: Mapping[str, str] = {
    "adapters": "adapters such as haze:0.5,noise:0.25",
    "task": "auto, none or a task such as haze",
}
_BOUNDS = ("ge", "gt", "le", "lt", "max_length")
_NUMBERS: Mapping[Any, str] = {float: "a number", int: "a whole number", bool: "true or false"}


def expected(name: str, info: FieldInfo) -> str:
    """What a field takes, for people: `a number from 0 to 1`."""
    if name in _ASKED:
        return _ASKED[name]
    type_ = _bare(info.annotation)
    if get_origin(type_) is Literal:
        return f"one of {', '.join(map(str, get_args(type_)))}"
    if get_origin(type_) is list:
        return "files" if _bare(get_args(type_)[0]) is UploadFile else "several"
    if type_ is UploadFile:
        return "a file"
    bounds = {key: getattr(one, key) for one in info.metadata for key in _BOUNDS if _has(one, key)}
    if type_ in _NUMBERS:
        return _NUMBERS[type_] + _range(bounds)
    most = bounds.get("max_length")
    return "text" if most is None else f"at most {counted(most, 'character')}"


def wrong(error: Mapping[str, Any], fields: Mapping[str, FieldInfo], listed: Sequence[str]) -> str:
    """The sentence on what pydantic found.

    Args:
        error: the first of what it found.
        fields: of the address, by their names: of its form, its JSON, its parameters.
        listed: names of those of its form or JSON.
    """
    loc: Sequence[Any] = error.get("loc", ())
    name = str(loc[1]) if len(loc) > 1 else ""
    info = fields.get(name)
    if error.get("type") == "json_invalid":
        return f"the request's JSON cannot be read ({error.get('ctx', {}).get('error', 'broken')})"
    if info is None:
        if error.get("type") == "missing":
            return f"{name or 'the body of the request'} is missing: {_there(listed)}"
        return f"the request cannot be read: {_there(listed)}"
    wanted = expected(name, info)
    if error.get("type") == "missing":
        return f"{name} is missing: expected {wanted}"
    given = error.get("input")
    if hasattr(given, "filename"):
        return f"{name} is a file: expected {wanted}"
    if error.get("type") == "string_too_long":
        most = error.get("ctx", {}).get("max_length")
        return f"{name} has {counted(len(str(given)), 'character')}: expected at most {most}"
    if given == "":
        return empty(name, info)
    return f"{name} is {given!r:.80}: expected {wanted}"


def empty(name: str, info: FieldInfo) -> str:
    """The sentence on a field that is sent, and has nothing in it."""
    left = "" if info.is_required() else ", or leave it out"
    return f"{name} is empty: expected {expected(name, info)}{left}"


def _has(one: Any, key: str) -> bool:
    return getattr(one, key, None) is not None


def _bare(type_: Any) -> Any:
    """A type without `None` and what is annotated."""
    if get_origin(type_) is Annotated:
        return _bare(get_args(type_)[0])
    if get_origin(type_) in (Union, UnionType):
        return _bare(next(one for one in get_args(type_) if one is not NoneType))
    return type_


def _range(bounds: Mapping[str, Any]) -> str:
    least, most = bounds.get("ge"), bounds.get("le")
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    said = "" if "gt" not in bounds else f" above {bounds['gt']:g}"
    said += "" if least is None else f" from {least:g}"
    return said + ("" if most is None else f"{' and' if said else ''} at most {most:g}")


def _there(listed: Sequence[str]) -> str:
    return f"expected {', '.join(sorted(listed)) or 'nothing'}"
