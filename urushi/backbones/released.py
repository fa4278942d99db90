"""The authors' released checkpoints, read without executing anything they contain."""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.backbones.claims import check_claims, compare_shapes
from urushi.errors import BackboneError, FileFormatError

# In the order in which a file that has several is to be read.
WRAPPINGS = ("params_ema", "params", "state_dict", "model", "net")
PREFIXES = ("module.", "net_g.", "net.", "model.")
# Safetensors hold no mappings within mappings: there, wrappings are prefixes too.
_ALL_PREFIXES = (*(f"{name}." for name in WRAPPINGS), *PREFIXES)

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype", b"<html")


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
    if backbone not in BACKBONES:
        raise BackboneError(f"backbone {backbone!r} is unknown: known are {', '.join(BACKBONES)}")
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


def read_checkpoint(path: Path | str) -> dict[str, Tensor]:
    """The tensors of a released checkpoint, wrappings and common prefixes taken off.

    Args:
        path: a file written by `torch.save`, or safetensors.

    Raises:
        FileFormatError: the file is not a checkpoint of plain, finite tensors.
    """
    path = Path(path)
    content = _content(path)
    for key in WRAPPINGS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise FileFormatError(f"{path} holds no named tensors: a state dict was expected")
    state = dict(content)
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise FileFormatError(f"{path}: {name!r} is no tensor: a state dict was expected")
        if tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
            raise FileFormatError(
                f"{path}: tensor {name!r} is of the kind {tensor.dtype} {tensor.layout}: plain "
                "numbers were expected"
            )
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FileFormatError(f"{path}: tensor {name!r} holds values that are not finite")
    for prefix in _ALL_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _content(path: Path) -> Any:
    """What the file holds, as it stands there."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
        _refuse_stand_ins(path, start)
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # Of unusual pickles it warns before it refuses them.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read: {error.strerror or error}") from error
    except SafetensorError as error:
        raise FileFormatError(
            f"{path} is no safetensors file, or is cut off ({error}): get it again"
        ) from error
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        wants = f" (it asks for {named[1]})" if named else ""
        raise FileFormatError(
            f"{path} is not a checkpoint of plain tensors, or is damaged{wants}: nothing else is "
            "loaded, because other objects could run code"
        ) from error
    except FileFormatError:
        raise
    except Exception as error:
        # Whatever the bytes of a damaged or hostile file make of the reader.
        raise FileFormatError(
            f"{path} is not a checkpoint of plain tensors, or is damaged or cut off: get it again"
        ) from error


def _refuse_stand_ins(path: Path, start: bytes) -> None:
    """Names what often lies in the place of a file that was not fetched."""
    if not start:
        raise FileFormatError(f"{path} is empty: get a whole copy")
    if start.startswith(_LFS_POINTER):
        raise FileFormatError(
            f"{path} is a pointer of Git LFS and not the file itself: fetch that with  git lfs pull"
        )
    if start.lstrip().lower().startswith(_PAGES):
        raise FileFormatError(
            f"{path} is a web page and not a checkpoint: download the file that the page offers"
        )


def load_strictly(network: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Loads `state` into `network`; nothing is loaded unless every name and shape agrees.

    Raises:
        BackboneError: names the first tensor that is missing, left over or misshapen.
    """
    compare_shapes(network, {n: tuple(t.shape) for n, t in state.items()}, source)
    network.load_state_dict(state)
