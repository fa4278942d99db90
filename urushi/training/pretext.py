"""Pre-training beside restoring: parts of the input are masked, the damage is named.

The two ideas of masked, degradation-classifying pre-training (MaskDCPT, the successor of DCPT, Hu
et al., ICLR 2025), here as options of any training: for its first steps, square cells of the
degraded input are blanked, so that the network must fill them from around, and a linear head
reads off the middle of the network which degradations were applied: to the picture, or place by
place where its regions differ (as in ABAIR, arXiv 2411.18412). The head is thrown away. Cell, share
and weights are ours.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.network import RestorationNetwork
from urushi.errors import RecipeError
from urushi.training.recipe import PretextSettings

__all__ = ["Pretext", "draw_cells"]


class Pretext(nn.Module):
    """Masks inputs and classifies degradations while a network trains.

    Its parameters, those of the head, are trained with the network's. The features are those of
    the network's latest forward pass, and are listened to only after `listen`.

    Args:
        settings: what is asked for.
        network: a network with stages; its last `middle` stage is listened to.
        kinds: degradations to tell apart.

    Raises:
        RecipeError: the network has no middle stage with a block.
    """

    def __init__(self, settings: PretextSettings, network: RestorationNetwork, kinds: int) -> None:
        super().__init__()
        self.settings = settings
        middles = [s for s in network.sites.stages if s.role == "middle" and s.blocks]
        if not middles:
            raise RecipeError("pretext needs a backbone with blocks in its middle")
        self.head = nn.Linear(middles[-1].width, kinds)
        # Not a submodule of this one: its parameters are trained elsewhere.
        self._listened = [network.get_submodule(middles[-1].blocks[-1])]
        self._features: Tensor | None = None
        self._handle = None

    def listen(self, on: bool) -> None:
        """Begins or ends keeping features; to be called before the network is compiled."""
        if on and self._handle is None:
            self._handle = self._listened[0].register_forward_hook(self._keep)
        elif not on and self._handle is not None:
            self._handle.remove()
            self._handle = self._features = None

    def _keep(self, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        self._features = output

    def mask(
        self,
        images: Float[Tensor, "b c h w"],
        generator: torch.Generator,
        rows: slice,
        total: int,
    ) -> Float[Tensor, "b c h w"]:
        """Blanks the share of cells that the settings ask for.

        Args:
            images: in [0, 1]; the rows `rows` of a batch of `total` that processes share.
            generator: on the CPU; the same in every process.
            rows: which these are.
            total: pictures of the whole batch.
        """
        share, cell = self.settings.mask, self.settings.cell
        if not share:
            return images
        height, width = images.shape[-2:]
        kept = ~draw_cells((total, height, width), share, cell, generator)[rows]
        return images * kept.to(images)

    def forward(
        self, applied: Bool[Tensor, "b kinds"] | Float[Tensor, "b kinds rows columns"]
    ) -> Float[Tensor, ""]:
        """The weighted classification loss of the network's latest pass.

        Binary cross-entropy for every kind, since several degradations may lie on one picture.

        Args:
            applied: what was applied to each picture, or to each of its cells in [0, 1].
        """
        assert self._features is not None
        features = self._features.float()
        if applied.ndim == 2:
            logits, target = self.head(features.mean((2, 3))), applied
        else:
            rows, columns = features.shape[-2:]
            logits = self.head(features.permute(0, 2, 3, 1))
            target = F.adaptive_avg_pool2d(applied, (rows, columns)).permute(0, 2, 3, 1)
        target = target.to(logits)
        return self.settings.classify * F.binary_cross_entropy_with_logits(logits, target)


def draw_cells(
    shape: tuple[int, int, int], share: float, cell: int, generator: torch.Generator
) -> Bool[Tensor, "b 1 h w"]:
    """Square cells, each drawn independently with probability `share`.

    Args:
        shape: number of masks, height and width in pixels.
        share: of the area, in [0, 1].
        cell: side of a cell in pixels; those of the last row and column may be cut.
        generator: on the CPU.
    """
    count, height, width = shape
    rows, columns = -(-height // cell), -(-width // cell)
    drawn = torch.rand(count, 1, rows, columns, generator=generator) < share
    return drawn.repeat_interleave(cell, 2).repeat_interleave(cell, 3)[..., :height, :width]
