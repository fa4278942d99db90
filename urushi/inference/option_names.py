"""Options that are handed on by name: what cannot be one is told before anything is made ready."""

from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from urushi.errors import EngineError, nearest

__all__ = ["check_names", "check_types"]

_PIXELS = (Integral, type(None)), "a whole number of pixels"
_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "engine": ((str,), "a name, such as auto"),
    "device": ((str,), "a name, such as auto or cpu"),
    "precision": ((str,), "a name, such as float32"),
    "tile": _PIXELS,
    "overlap": _PIXELS,
    "threads": ((Integral, type(None)), "a whole number"),
    "memory_limit": ((Real, type(None)), "a number of bytes"),
}


def check_names(given: Mapping[str, Any], known: Iterable[str], what: str) -> None:
    """Refuse options that nothing takes, or that are not what they have to be.

    Args:
        given: by their names.
        known: names of those there are.
        what: has them, for people.

    Raises:
        EngineError: one is not known, or of another type.
    """
    there = list(known)
    for name in given:
        if name not in there:
            hint = nearest(name, there)
            raise EngineError(
                f"{what} has no option {name!r}{hint}: known are {', '.join(there)}", usage=True
            )
    check_types(given)


def check_types(options: Mapping[str, Any]) -> None:
    """Refuse options of an engine that are not what they have to be, whatever their values.

    Raises:
        EngineError: one is.
    """
    for name, value in options.items():
        types, expected = _TYPES.get(name, ((object,), ""))
        number = Integral in types or Real in types
        if not isinstance(value, types) or (number and isinstance(value, bool)):
            raise EngineError(f"{name} is {value!r:.80}: expected {expected}", usage=True)
