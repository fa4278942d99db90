"""The authors' released checkpoints, read without executing anything they contain."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.errors import BackboneError, FileFormatError

# In the order in which a file that has several is to be read.
WRAPPINGS = ("params_ema", "params", "state_dict", "model", "net")
PREFIXES = ("module.", "net_g.", "net.", "model.")


def load_released(path: Path | str, backbone: str, **options: object) -> RestorationNetwork:
    """Builds the network a released `.pth` file holds, sizes read off its tensors, and loads it.

    Args:
        path: a file written by `torch.save`.
        backbone: an entry of `BACKBONES`.
        options: configuration that tensors cannot tell, such as NAFNet's `pooling_window`.

    Raises:
        FileFormatError: the file is not a checkpoint of plain, finite tensors.
        BackboneError: tensors are missing, left over or of the wrong shape.
    """
    if backbone not in BACKBONES:
        raise BackboneError(f"backbone {backbone!r} is unknown: known are {', '.join(BACKBONES)}")
    state = read_checkpoint(path)
    config = BACKBONES[backbone].configuration_of(state)
    network = create_backbone(backbone, {**config, **options})
    load_strictly(network, BACKBONES[backbone].from_released(state), Path(path).name)
    return network


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a released checkpoint, wrappings and common prefixes taken off.

    Raises:
        FileFormatError: see `load_released`.
    """
    path = Path(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise FileFormatError(
            f"{path} is not a checkpoint of plain tensors, or is damaged: nothing else is loaded, "
            "because other objects could run code"
        ) from error
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise FileFormatError(f"{path} holds no named tensors: a state dict was expected")
    state = dict(content)
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise FileFormatError(f"{path}: {name!r} is no tensor: a state dict was expected")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FileFormatError(f"{path}: tensor {name!r} holds values that are not finite")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads `state` into `network`; nothing is loaded unless every name and shape agrees.

    Raises:
        BackboneError: names the first tensor that is missing, left over or misshapen.
    """
    wanted = network.state_dict()
    missing = [name for name in wanted if name not in state]
    surplus = [name for name in state if name not in wanted]
    misshapen = [
        name for name in wanted if name in state and state[name].shape != wanted[name].shape
    ]
    for kind, names in (("missing", missing), ("unexpected", surplus), ("misshapen", misshapen)):
        if names:
            name = names[0]
            detail = (
                f" ({tuple(state[name].shape)} instead of {tuple(wanted[name].shape)})"
                if kind == "misshapen"
                else ""
            )
            raise BackboneError(
                f"{source} does not fit the network: {len(names)} tensors are {kind}, "
                f"the first is {name}{detail}"
            )
    network.load_state_dict(state)
