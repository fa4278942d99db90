"""Adapters to files and from them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from urushi.adapters import METHODS, Adapter, create_adapter
from urushi.backbones.claims import compare_shapes, sketched
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError, BackboneError
from urushi.files.adapter import AdapterHeader, LoadedAdapter, base_facts
from urushi.files.model import LoadedModel

__all__ = ["header_of", "load_adapter", "tensors_of"]


def header_of(adapter: Adapter, model: LoadedModel, **facts: Any) -> AdapterHeader:
    """What the file of an adapter says: method, all settings, the base, and other facts.

    Args:
        adapter: made for the network of `model`.
        model: the base it was trained on.
        facts: other fields of `AdapterHeader`: name, description, recipe, scores, ...

    Raises:
        AdapterError: the model is not from a file.
    """
    config = adapter.describe()
    method = str(config.pop("method"))
    # Written out, so that the file means the same when a default changes.
    settings = METHODS[method].settings.model_validate(config)
    return AdapterHeader(
        method=method,
        config=settings.model_dump(mode="json"),
        base=base_facts(model),
        **facts,
    )


def tensors_of(adapter: Adapter) -> dict[str, np.ndarray]:
    """What the file of an adapter holds: its state dict, buffers included, as arrays."""
    return {name: tensor.detach().cpu().numpy() for name, tensor in adapter.state_dict().items()}


def load_adapter(
    backbone: RestorationNetwork, stored: LoadedAdapter, strength: float | int = 1
) -> Adapter:
    """Makes the adapter of a file, to be attached to the network of the base it was trained on.

    Args:
        backbone: the network of its base: `urushi.files.adapter.check_base` tells whether it is.
        stored: a checked adapter file.
        strength: 1 is what it was trained for, 0 the plain backbone.

    Raises:
        AdapterError: the method is unknown here, or settings and tensors do not belong together.
    """
    header = stored.header
    # Whoever wrote the file would choose what is read here.
    for profile in _profiles(header.config):
        raise AdapterError(
            f"{stored.path}: its settings name the profile {profile!r:.80}, but a finished adapter "
            "states its ranks: write it again from the training"
        )
    config = {**header.config, "method": header.method}
    try:
        # Before memory is taken for what the file only claims.
        shapes = {name: array.shape for name, array in stored.own.items()}
        sketch = sketched(lambda: create_adapter(backbone, config), shapes, stored.path.name)
        compare_shapes(sketch, shapes, stored.path.name)
        adapter = create_adapter(backbone, config)
        # Copies: the network must not share memory with the arrays of the file.
        tensors = {name: torch.tensor(array) for name, array in stored.own.items()}
        adapter.load_state_dict(tensors, strict=True)
    except AdapterError as error:
        raise AdapterError(f"{stored.path}: {error}") from error
    except (BackboneError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300].rstrip(". ")
        raise AdapterError(
            f"{stored.path}: not a sound adapter of method {header.method!r} ({reason}): get it "
            "again, or train it again"
        ) from error
    adapter.strength = float(strength)
    return adapter


def _profiles(settings: Any) -> Iterator[Any]:
    """Profiles that settings name, also those of methods within a method."""
    if isinstance(settings, dict):
        if settings.get("profile") is not None:
            yield settings["profile"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for value in settings:
            yield from _profiles(value)
