"""What `torch.save` wrote, with nothing of it executed: the weights, and stand-ins for the rest.

Trainers save their options beside the weights: `argparse.Namespace`, NumPy's numbers,
configurations of their own classes. torch's reader of weights alone refuses a whole file for one
of them. Here each such class is taken for an empty one of ours, which swallows what it is given;
no module is imported and no function called that the file names.
"""

import builtins
import re
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch.serialization import safe_globals

__all__ = ["StandIn", "class_of", "load_pickled"]

# Modules of Python whose classes hold data. Nothing else of its library belongs into a checkpoint,
# so a file that names it was made to do harm.
_OF_DATA = {
    "argparse", "array", "collections", "copyreg", "copy_reg", "dataclasses", "datetime", "decimal",
    "enum", "fractions", "functools", "logging", "numbers", "pathlib", "types", "typing", "uuid",
}  # fmt: skip
_PYTHON = set(sys.stdlib_module_names) | {"__builtin__", "copy_reg", "commands", "nt", "posix"}
_MOST_CLASSES = 200
_UNKNOWN = re.compile(r"GLOBAL ([\w.]+) was not an allowed global")
_FILLED = re.compile(r"Can only (SETITEMS?|extend|append).*got <class '([\w.]+)'>", re.DOTALL)


class StandIn:
    """In the place of an object of a class that was not imported: it holds nothing."""

    def __new__(cls, *args: object, **kwargs: object) -> Any:
        """Whatever the object was made of is dropped."""
        return super().__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """As `__new__`."""

    def __setstate__(self, state: object) -> None:
        """As `__new__`."""


def class_of(value: object) -> str:
    """The class of the object that a stand-in stands for; "" for everything else."""
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}" if issubclass(kind, StandIn) else ""


def load_pickled(path: Path) -> tuple[Any, tuple[str, ...]]:
    """What the file holds, and the classes whose objects were left out, in the order of the file.

    Raises:
        UnpicklingError: it names something that no data is made of, or is damaged.
        Exception: whatever torch makes of damaged bytes.
    """
    # A dict or a list of a class of its own may hold the weights: it becomes a plain one.
    kinds: dict[str, type | None] = {}
    while True:
        try:
            with (
                # Of a path torch goes by the suffix.
                path.open("rb") as file,
                warnings.catch_warnings(),
                safe_globals([_stand_in(*item) for item in kinds.items()]),
            ):
                # Of unusual pickles torch warns before it refuses them.
                warnings.simplefilter("ignore")
                content = torch.load(file, map_location="cpu", weights_only=True)
            return content, tuple(name for name, kind in kinds.items() if kind is None)
        except UnpicklingError as error:
            text = str(error)
            unknown, filled = _UNKNOWN.search(text), _FILLED.search(text)
            # Of what every program has, torch does not tell the module.
            name = "" if unknown is None else unknown[1]
            name = name if "." in name else f"builtins.{name}"
            if unknown and _may_be_added(name, kinds):
                kinds[name] = None
            elif filled and kinds.get(filled[2], filled) is None:
                kinds[filled[2]] = OrderedDict if filled[1].startswith("SET") else list
            else:
                raise


def _stand_in(name: str, kind: type | None) -> tuple[type, str]:
    """A class under the name that a file asks for."""
    module, _, last = name.rpartition(".")
    content: dict[str, Any] = {"__module__": module}
    if kind is not None:
        content["__new__"] = lambda cls, *args, **kwargs: kind()
    return type(last, (StandIn,), content), name


def _may_be_added(name: str, kinds: dict[str, type | None]) -> bool:
    return _is_data(name) and name not in kinds and len(kinds) < _MOST_CLASSES


def _is_data(name: str) -> bool:
    module, _, last = name.rpartition(".")
    top = module.partition(".")[0]
    if top in ("builtins", "__builtin__"):
        return isinstance(getattr(builtins, last, None), type)
    return top in _OF_DATA or top not in _PYTHON
