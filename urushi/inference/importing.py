"""The former place of `urushi.convert.importing`, for scripts that were written for that.

It is looked up when it is used: what is here knows nothing of `urushi.convert`, which uses it.
"""

from importlib import import_module
from typing import Any

__all__: list[str] = []

_PLACE = "urushi.convert.importing"


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PLACE), name)
