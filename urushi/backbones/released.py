"""Networks of the authors' released layouts, built with the tensors of their checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.backbones.checkpoints import read_checkpoint
from urushi.backbones.claims import check_claims, compare_shapes
from urushi.errors import BackboneError

__all__ = ["build_released", "load_released", "load_strictly", "read_configuration"]


def load_released(path: Path | str, backbone: str, **options: object) -> RestorationNetwork:
    """Builds the network a released `.pth` file holds, sizes read off its tensors, and loads it.

    Args:
        path: a file written by `torch.save`, or safetensors.
        backbone: an entry of `BACKBONES`.
        options: configuration that tensors cannot tell, such as NAFNet's `pooling_window`.

    Raises:
        FileFormatError: the file is not a checkpoint of plain, finite tensors.
        BackboneError: tensors are missing, left over or of the wrong shape.
    """
    BACKBONES.find(backbone, BackboneError)
    state = read_checkpoint(path)
    source = Path(path).name
    return build_released(state, backbone, read_configuration(state, backbone), source, options)


def build_released(
    state: dict[str, Tensor],
    backbone: str,
    config: Mapping[str, object],
    source: str,
    options: Mapping[str, object] | None = None,
) -> RestorationNetwork:
    """Builds a network from tensors by their released names.

    Args:
        state: the tensors.
        backbone: an entry of `BACKBONES`.
        config: of `read_configuration`.
        source: what messages call the tensors.
        options: configuration that tensors cannot tell.

    Raises:
        BackboneError: tensors are missing, left over or of the wrong shape.
    """
    try:
        translated = BACKBONES[backbone].from_released(state)
    except (IndexError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise _misshapen(backbone) from error
    whole = {**config, **(options or {})}
    shapes = {name: tuple(tensor.shape) for name, tensor in translated.items()}
    check_claims(backbone, whole, shapes, source)
    network = create_backbone(backbone, whole)
    network.load_state_dict(translated)
    return network


def read_configuration(state: dict[str, Tensor], backbone: str) -> dict[str, Any]:
    """Reads the configuration of a network off its tensors.

    Raises:
        BackboneError: the tensors are not those of such a network.
    """
    for name in state:
        # Depths are read off the numbers in names, and the network is built as deep.
        if any(int(number[:9]) >= len(state) + 16 for number in _numbers(name)):
            raise BackboneError(
                f"the tensor {name[:200]!r} has a number in its name that a file of {len(state)} "
                "tensors cannot need: the file is damaged, get it again"
            )
    try:
        return BACKBONES[backbone].configuration_of(state)
    except (IndexError, KeyError, ValueError, RuntimeError, TypeError, ArithmeticError) as error:
        raise _misshapen(backbone) from error


def _numbers(name: str) -> list[str]:
    return [part for part in name.split(".") if part.isascii() and part.isdecimal()]


def _misshapen(backbone: str) -> BackboneError:
    return BackboneError(
        f"a tensor that tells the sizes of a {backbone} has not the number of axes that it has in "
        "one: the file is damaged or of another network"
    )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads `state` into `network`; nothing is loaded unless every name and shape agrees.

    Raises:
        BackboneError: names the first tensor that is missing, left over or misshapen.
    """
    compare_shapes(network, {n: tuple(t.shape) for n, t in state.items()}, source)
    network.load_state_dict(state)
