"""Beginning a training with the weights of a file."""

import torch
from torch import nn

from urushi.adapters import Adapter
from urushi.adapters.stored import load_adapter
from urushi.backbones.network import RestorationNetwork
from urushi.errors import RecipeError
from urushi.files.adapter import check_base, read_adapter
from urushi.files.model import LoadedModel, read_model
from urushi.inference.zoo import find_adapter, find_model

__all__ = ["load_begin", "load_start"]


def load_start(network: nn.Module, name: str) -> list[str]:
    """Puts the weights of a model file into a network of the same or of more layers.

    Args:
        network: changed in place.
        name: path of a model file, or a name in the zoo.

    Returns:
        Names of the network's parameters that the file does not have; they stay as they are.

    Raises:
        FileFormatError: there is no such model, or its file is damaged.
        RecipeError: the file has a tensor that the network lacks or has in another shape.
    """
    model = read_model(find_model(name))
    own: dict[str, torch.Tensor] = dict(network.named_parameters())
    own |= dict(network.named_buffers())
    for tensor_name, values in model.tensors.items():
        target = own.pop(tensor_name, None)
        if target is None or tuple(target.shape) != values.shape:
            found = "lacks it" if target is None else f"has it with shape {tuple(target.shape)}"
            raise RecipeError(
                f"start is {name}, whose tensor {tensor_name} has shape {values.shape}; the "
                f"network {found}: start from a model of the same widths and no more layers"
            )
        with torch.no_grad():
            target.copy_(torch.from_numpy(values.astype("float32")))
    return sorted(own.keys() & dict(network.named_parameters()).keys())


def load_begin(
    adapter: Adapter, name: str, backbone: RestorationNetwork, model: LoadedModel
) -> None:
    """Puts the weights of an adapter file into an adapter that is to be trained on.

    Args:
        adapter: changed in place.
        name: path of an adapter file, or name of one in the zoo.
        backbone: what the adapter was made for; not changed.
        model: the file of that backbone.

    Raises:
        FileFormatError: there is no such file, or it is damaged.
        AdapterError: it was made for another model.
        RecipeError: it is of another method, or has other settings.
    """
    stored = read_adapter(find_adapter(name))
    check_base(stored, model)
    known = load_adapter(backbone, stored)
    if known.describe() != adapter.describe():
        found = "other settings" if known.method == adapter.method else f"method {known.method}"
        raise RecipeError(
            f"begin is {name}, an adapter of {found}, which cannot continue as one of method "
            f"{adapter.method} with the settings that adapter states: state its own"
        )
    adapter.load_state_dict(known.state_dict())
