"""Urushi mends pictures: restoration networks, kept frozen, and thin adapters on them.

The names below load what they need on first use: importing the package imports neither torch nor
an engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from urushi.errors import UrushiError
from urushi.version import __version__

if TYPE_CHECKING:
    from urushi.adapters import attach, create_adapter
    from urushi.api import Adapter, adapt, restore
    from urushi.backbones import create_backbone
    from urushi.degradations import create_degradation
    from urushi.evaluation.benchmark import evaluate
    from urushi.files.model import read_model, write_model
    from urushi.image import read_picture, write_picture
    from urushi.inference.auto import AutoRestorer
    from urushi.inference.restorer import Restorer
    from urushi.training.loop import train
    from urushi.training.recipe import load_recipe

_HOMES = {
    "Adapter": "urushi.api",
    "AutoRestorer": "urushi.inference.auto",
    "Restorer": "urushi.inference.restorer",
    "adapt": "urushi.api",
    "attach": "urushi.adapters",
    "create_adapter": "urushi.adapters",
    "create_backbone": "urushi.backbones",
    "create_degradation": "urushi.degradations",
    "evaluate": "urushi.evaluation.benchmark",
    "load_recipe": "urushi.training.recipe",
    "read_model": "urushi.files.model",
    "read_picture": "urushi.image",
    "restore": "urushi.api",
    "train": "urushi.training.loop",
    "write_model": "urushi.files.model",
    "write_picture": "urushi.image",
}

__all__ = [
    "Adapter",
    "AutoRestorer",
    "Restorer",
    "UrushiError",
    "__version__",
    "adapt",
    "attach",
    "create_adapter",
    "create_backbone",
    "create_degradation",
    "evaluate",
    "load_recipe",
    "read_model",
    "read_picture",
    "restore",
    "train",
    "write_model",
    "write_picture",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'urushi' has no attribute {name!r}")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "torch":
            from urushi.errors import MissingExtraError

            raise MissingExtraError(f"torch, which urushi.{name} needs,", "torch") from error
        if error.name == "accelerate":
            from urushi.errors import MissingExtraError

            raise MissingExtraError(f"accelerate, which urushi.{name} needs,", "train") from error
        raise


def __dir__() -> list[str]:
    return __all__
