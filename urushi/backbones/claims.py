"""What files claim of their networks is compared with their tensors before anything is built.

A configuration is some text from anywhere: a hundred bytes can ask for a million layers. So the
network is sketched first, on torch's device without memory, and no further than the file has
tensors for.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from urushi.backbones import BACKBONES, RestorationNetwork, create_backbone
from urushi.errors import BackboneError, UrushiError
from urushi.files.model import LoadedModel
from urushi.names import counted

__all__ = ["check_claims", "compare_shapes", "create_claimed", "sketched", "without_memory"]

Shapes = Mapping[str, tuple[int, ...]]
T = TypeVar("T", bound=nn.Module)

_RANDOM = (torch.Tensor.normal_, torch.Tensor.uniform_, nn.init.normal_, nn.init.uniform_)
# What a network keeps that follows from its configuration, such as the indices of windows.
_MOST_BYTES_BESIDE = 2_000_000_000
# Whatever constructors make of numbers that nobody would give them.
_ILL_FORMED = (
    RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, AttributeError,
    AssertionError, MemoryError,
)  # fmt: skip


class _Unfilled(TorchFunctionMode):
    """Leaves out random numbers, which shapes do not need.

    Torch imports its compiler for some of them on `meta`, which takes seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _RANDOM:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


class _TooManyError(Exception):
    """More parameters are made than there may be."""


def check_claims(backbone: str, config: Mapping[str, Any], shapes: Shapes, source: str) -> None:
    """Compare what a configuration makes with the tensors that a file holds; takes no memory.

    Args:
        backbone: an entry of `BACKBONES`.
        config: the arguments from which it is built.
        shapes: of the tensors, by name.
        source: what messages call them.

    Raises:
        BackboneError: the configuration is none, or makes a network of other tensors.
    """
    _check_counts(backbone, config, len(shapes), source)
    network = sketched(lambda: create_backbone(backbone, config), shapes, source)
    compare_shapes(network, shapes, source)
    stored = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    beside = sum(b.nbytes for b in network.buffers() if id(b) not in stored)
    if beside > _MOST_BYTES_BESIDE:
        raise BackboneError(
            f"{source} asks for {beside:,} bytes beside its weights, as no network does that was "
            "trained: get it again"
        )


def sketched(build: Callable[[], T], shapes: Shapes, source: str) -> T:
    """Build a network on the device `meta`, which has shapes and no memory.

    Args:
        build: makes it.
        shapes: of the tensors that a file holds for it: those that are missing can be told, and
            no more than as many again are built.
        source: what messages call the file.

    Raises:
        BackboneError: it has far more tensors, or cannot be built.
    """
    try:
        with without_memory(2 * len(shapes) + 16):
            return build()
    except _TooManyError:
        raise BackboneError(
            f"{source} claims a network of far more than the {counted(len(shapes), 'tensor')} it "
            "holds: it is "
            "damaged or was made to exhaust memory, get it again"
        ) from None
    except UrushiError:
        raise
    except _ILL_FORMED as error:
        reason = " ".join(str(error).split())[:200]
        raise BackboneError(
            f"{source} has a configuration that makes no network ({reason}): get it again"
        ) from error


@contextmanager
def without_memory(most: int = 100_000) -> Iterator[None]:
    """What this thread builds meanwhile takes no memory, and has at most so many parameters."""
    thread, count = threading.get_ident(), 0

    def register(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal count
        if threading.get_ident() == thread and parameter is not None:
            count += 1
            if count > most:
                raise _TooManyError

    handle = register_module_parameter_registration_hook(register)
    try:
        with torch.device("meta"), _Unfilled():
            yield
    finally:
        handle.remove()


def compare_shapes(network: nn.Module, shapes: Shapes, source: str) -> None:
    """Compare names and shapes of tensors with those of a network.

    Raises:
        BackboneError: names the first tensor that is missing, left over or misshapen.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    missing = [name for name in wanted if name not in shapes]
    surplus = [name for name in shapes if name not in wanted]
    misshapen = [n for n in wanted if n in shapes and tuple(shapes[n]) != wanted[n]]
    for kind, names in (("missing", missing), ("unexpected", surplus), ("misshapen", misshapen)):
        if names:
            name, detail = names[0], ""
            if kind == "misshapen":
                detail = f" ({tuple(shapes[name])} instead of {wanted[name]})"
            raise BackboneError(
                f"{source} does not fit the network: "
                f"{counted(len(names), 'tensor is', 'tensors are')} {kind}, "
                f"the first is {name[:200]}{detail}"
            )


def _check_counts(backbone: str, config: Mapping[str, Any], tensors: int, source: str) -> None:
    """Numbers of layers, and lengths of lists, can be no more than there are tensors."""
    counts = BACKBONES[backbone].counts if backbone in BACKBONES else ()
    for name, value in config.items():
        numbers = value if isinstance(value, list | tuple) else [value]
        few = name not in counts or all(
            isinstance(n, int | float) and n <= tensors for n in numbers
        )
        if len(numbers) > tensors or not few:
            raise BackboneError(
                f"{source}: {name[:80]} is {str(value)[:80]}, more than a file of {tensors} "
                "tensors can have: it is damaged or was made to exhaust memory, get it again"
            )


def create_claimed(model: LoadedModel) -> RestorationNetwork:
    """Build the network of a model file with freshly initialised weights, after `check_claims`.

    Raises:
        BackboneError: its configuration is none, or makes a network of other tensors.
    """
    header = model.header
    shapes = {name: array.shape for name, array in model.tensors.items()}
    check_claims(header.backbone, header.config, shapes, model.path.name)
    return create_backbone(header.backbone, header.config)
