"""What the tests of adapter files share: tiny adapters that do something."""

from pathlib import Path
from typing import Any

import torch

from urushi.adapters import Adapter, create_adapter
from urushi.adapters.stored import header_of, tensors_of
from urushi.backbones import create_backbone
from urushi.files.adapter import LoadedAdapter, read_adapter, write_adapter
from urushi.files.model import LoadedModel


def network_of(model: LoadedModel):
    network = create_backbone(model.header.backbone, model.header.config)
    network.load_state_dict({name: torch.tensor(array) for name, array in model.tensors.items()})
    return network.eval()


def random_adapter(model: LoadedModel, seed: int = 0, size: float = 0.05, **config) -> Adapter:
    """An adapter as if it were trained: fresh ones change nothing."""
    config = {"method": "lora", **({} if "method" in config else {"rank": 2}), **config}
    adapter = create_adapter(network_of(model), config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    return adapter


def write_random(
    path: Path, model: LoadedModel, facts: dict[str, Any] | None = None, **options
) -> LoadedAdapter:
    adapter = random_adapter(model, **options)
    write_adapter(path, tensors_of(adapter), header_of(adapter, model, **(facts or {})), "float32")
    return read_adapter(path)
