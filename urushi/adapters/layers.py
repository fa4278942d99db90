"""Finding what can be adapted in a backbone, by walking its modules.

Importing this needs no torch; walking does.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Literal

from urushi.errors import AdapterError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["KINDS", "ParameterKind", "WeightLayer", "choose", "parameter_kinds", "weight_layers"]

ParameterKind = Literal["weight", "bias", "norm", "scale"]
KINDS: tuple[ParameterKind, ...] = ("weight", "bias", "norm", "scale")


@dataclass(frozen=True)
class WeightLayer:
    """A convolution, a transposed one, or a linear layer.

    Attributes:
        name: dotted path of the module.
        shape: of its weight, `(out, in / groups, kh, kw)` or `(out, in)`; of a transposed
            convolution `(in, out / groups, kh, kw)`.
        groups: of a convolution; 1 for a linear layer.
        kernel: side of a convolution's kernel; 1 for a linear layer.
        transposed: whether it is a transposed convolution.
    """

    name: str
    shape: tuple[int, ...]
    groups: int
    kernel: tuple[int, int]
    transposed: bool = False

    @property
    def weight(self) -> str:
        """Name of its weight among the backbone's parameters."""
        return f"{self.name}.weight"

    @property
    def rows(self) -> int:
        """Rows d of the weight as a matrix: output channels, of a transposed one input channels."""
        return self.shape[0]

    @property
    def columns(self) -> int:
        """Columns k of the weight as a matrix: what makes one output value, or one input makes."""
        count = 1
        for size in self.shape[1:]:
            count *= size
        return count


def weight_layers(network: "nn.Module") -> list[WeightLayer]:
    """All convolutions and linear layers, in the order in which the network holds them."""
    from torch import nn

    layers = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            height, width = module.kernel_size
            shape, transposed = tuple(module.weight.shape), isinstance(module, nn.ConvTranspose2d)
            layers.append(WeightLayer(name, shape, module.groups, (height, width), transposed))
        elif isinstance(module, nn.Linear):
            layers.append(WeightLayer(name, tuple(module.weight.shape), 1, (1, 1)))
    return layers


def parameter_kinds(network: "nn.Module") -> dict[str, ParameterKind]:
    """The kind of every parameter, by name, in order.

    `weight` and `bias` are those of convolutions and linear layers, `norm` gains and offsets of
    normalisation layers, `scale` all else: residual scales, temperatures, embeddings.
    """
    from torch import nn

    kinds: dict[str, ParameterKind] = {}
    for prefix, module in network.named_modules():
        start = f"{prefix}." if prefix else ""
        for name, _ in module.named_parameters(recurse=False):
            if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
                kinds[start + name] = "bias" if name == "bias" else "weight"
            else:
                kinds[start + name] = "norm" if _normalises(module) else "scale"
    return kinds


def _normalises(module: "nn.Module") -> bool:
    """Whether a module is a normalisation layer: of torch, or by the name of its class."""
    return type(module).__name__.endswith(("Norm", "Norm2d"))


def choose(names: Iterable[str], patterns: Sequence[str], what: str) -> list[str]:
    """Those names that match a pattern such as `encoders.*.conv1`, in their order.

    Raises:
        AdapterError: a pattern matches none.
    """
    known = list(names)
    for pattern in patterns:
        if not known:
            raise AdapterError(
                f"{what} {pattern!r} matches nothing, for this backbone has no {what} that could "
                "be chosen: use another method or another backbone"
            )
        if not any(fnmatchcase(name, pattern) for name in known):
            raise AdapterError(
                f"{what} {pattern!r} matches nothing in this backbone: names look like {known[0]!r}"
            )
    return [name for name in known if any(fnmatchcase(name, p) for p in patterns)]
