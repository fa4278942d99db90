"""A low-rank change with a quadratic branch, as VoRA's.

VoRA (github.com/degull/VORA, 2026) extends LoRA by squares, as its description says:
`y = W0 x + B_l A_l x + B_v (A_v x * A_v x)`. No more is published in text, and nothing else is
here: neither its interactions between tokens nor its routing.

Ours: the linear part is LoRA's in its layout `flat`, on all layers; beside a convolution `A_v` is
one with its kernel and stride and `B_v` one of 1x1; depth-wise, grouped and transposed convolutions
have the linear part alone, for every group would need r squares of its own; `B_v` is zero at first,
`A_v` begins as `A_l`; and there is a scale of the squares.

The published form has no norm, and none is put in here: where no norm of the base stands between
layers, squares are squared again. So they are between Restormer's levels and in the tails of IPT
and EDT; in blocks a norm stands before nearly every layer. Tried on small networks of all kinds and
on the shipped base, with random `B_v`: of deviation 0.3 all results stay below 10; of deviation 1
Restormer leaves float32 on the way between its levels, and IPT float16 in its tail. A training in
which that happens ends with the error of a loss that is not finite, and a picture with that of a
result that is not; a lesser strength or scale is the way out.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field
from torch import Tensor

from urushi.adapters.base import parameter_of
from urushi.adapters.beside_layers import LayerBranches, chosen_layers
from urushi.adapters.low_rank import LowRank
from urushi.adapters.low_rank_formula import LowRankSettings
from urushi.adapters.low_rank_formula import deltas as low_rank_deltas
from urushi.adapters.method import Method, UnfitError
from urushi.backbones.network import RestorationNetwork
from urushi.errors import AdapterError
from urushi.settings import Settings

__all__ = ["METHOD", "Quadratic", "QuadraticSettings"]


class QuadraticSettings(Settings):
    """Settings of `Quadratic`.

    Attributes:
        rank: of the linear part; with the two ranks of 4 a layer has as many parameters as with
            LoRA's 8 (ours: the published text states none).
        quadratic_rank: of the branch that squares.
        scale: factor of the squares; 1 is the published form.
        layers: patterns of the names of layers; all by default.
    """

    rank: Annotated[int, Field(ge=1)] = 4
    quadratic_rank: Annotated[int, Field(ge=1)] = 4
    scale: Annotated[float, Field(gt=0)] = 1.0
    layers: list[str] = ["*"]


class Quadratic(LayerBranches):
    """Low-rank deltas of weights, and squares beside layers; it cannot be merged.

    Its parameters: `down` and `up`, A_l and B_l; `branch_down` and `branch_up`, A_v and B_v, see
    `LayerBranches`.

    Raises:
        AdapterError: no layer is chosen beside which a branch could stand.
    """

    method = "vora"
    config: QuadraticSettings

    def __init__(self, backbone: RestorationNetwork, config: QuadraticSettings) -> None:
        layers = chosen_layers(backbone, config.layers, self.method)
        super().__init__(backbone, config, layers, config.quadratic_rank)
        low_rank = LowRank(backbone, LowRankSettings(rank=config.rank, layers=config.layers))
        self.down, self.up = low_rank.down, low_rank.up

    def deltas(self, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
        factors = {
            "down": {parameter_of(key): tensor for key, tensor in self.down.items()},
            "up": {parameter_of(key): tensor for key, tensor in self.up.items()},
            "value": {},
        }
        try:
            return low_rank_deltas(factors, LowRankSettings(), base)
        except UnfitError as error:
            raise AdapterError(f"{error}: the adapter was made for another backbone") from error

    def changed(self, key: str, hidden: Tensor, axis: int) -> Tensor:
        return self.config.scale * hidden.square()


METHOD = Method(
    QuadraticSettings, "VoRA, github.com/degull/VORA, 2026: its first form", adapter=Quadratic
)
