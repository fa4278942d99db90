"""Beginning a training with the weights of a model file."""

import torch
from torch import nn

from urushi.errors import RecipeError
from urushi.files.model import read_model
from urushi.inference.zoo import find_model

__all__ = ["load_start"]


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
    own = dict(network.named_parameters())
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
    return sorted(own)
