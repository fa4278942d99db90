"""NAFNet, a U-shaped restoration network without activation functions.

Chen, Chu, Zhang, Sun: "Simple Baselines for Image Restoration", ECCV 2022, arXiv 2204.04676.
Local pooling at test time (TLC) after Chu et al.: "Improving Image Restoration by Revisiting
Global Information Aggregation", ECCV 2022, arXiv 2112.04491. Tensor names are the released ones.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from urushi.backbones.nafnet_block import NAFBlock, enlarged
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import FeedForwardSite, Sites, Stage
from urushi.errors import BackboneError
from urushi.names import counted

LOCAL_POOLING_FACTOR = 1.5  # TLC: the window is 1.5 times the training patch


class IdentityBlock(nn.Module):
    """A `NAFBlock` that leaves its input as it is: its tensors are constants, beta and gamma zero.

    Programs that recognise a NAFNet by its tensors look for a block on the outermost levels. This
    one has them under the same names, at no cost: they are neither trained, adapted nor calculated.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, tensor in NAFBlock(channels).state_dict().items():
            # Zeros, so that the file does not depend on how the tensors of blocks are drawn.
            _buffer_at(self, name, torch.zeros_like(tensor))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x


def _buffer_at(module: nn.Module, name: str, tensor: Tensor) -> None:
    """Registers a buffer under a dotted name, with plain modules on the way."""
    first, _, rest = name.partition(".")
    if not rest:
        module.register_buffer(first, tensor)
        return
    if not hasattr(module, first):
        module.add_module(first, nn.Module())
    _buffer_at(module.get_submodule(first), rest, tensor)


class NAFNet(RestorationNetwork):
    """NAFNet of any depths and width; picture sizes are arbitrary, odd ones too.

    Args:
        img_channel: channels of input and output.
        placeholders: give levels without blocks one that is the identity (`IdentityBlock`).
        width: channels at full resolution; doubled by every encoder level.
        middle_blk_num: blocks at the lowest resolution.
        enc_blk_nums: blocks of each encoder level, from full resolution down.
        dec_blk_nums: blocks of each decoder level, from the lowest resolution up.
        pooling_window: side in input pixels (or height and width) of the window over which channel
            attention averages (TLC, at test time only); None averages the whole picture.
        pooling_patch: instead of a window, the training patch from which the authors' rule makes
            one: see `set_pooling_patch`.

    Raises:
        BackboneError: a size is not positive, or encoder and decoder have different depths.
    """

    def __init__(
        self,
        *,
        width: int,
        enc_blk_nums: Sequence[int],
        middle_blk_num: int,
        dec_blk_nums: Sequence[int],
        img_channel: int = 3,
        placeholders: bool = False,
        pooling_window: int | Sequence[int] | None = None,
        pooling_patch: int | Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _check_configuration(img_channel, width, middle_blk_num, enc_blk_nums, dec_blk_nums)
        levels = len(enc_blk_nums)
        widths = [width * 2**level for level in range(levels + 1)]
        self.size_multiple = 2**levels
        self.intro = nn.Conv2d(img_channel, width, 3, padding=1)
        self.ending = nn.Conv2d(width, img_channel, 3, padding=1)
        self.encoders = nn.ModuleList(
            _blocks(widths[level], count, placeholders) for level, count in enumerate(enc_blk_nums)
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])
        self.middle_blks = _blocks(widths[-1], middle_blk_num)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in reversed(widths[1:])
        )
        self.decoders = nn.ModuleList(
            _blocks(c, count, placeholders)
            for c, count in zip(reversed(widths[:-1]), dec_blk_nums, strict=True)
        )
        if pooling_patch is None:
            self.set_pooling_window(pooling_window)
        elif pooling_window is None:
            self.set_pooling_patch(pooling_patch)
        else:
            raise BackboneError("pooling_window and pooling_patch exclude each other: give one")

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Restores `(B, C, H, W)` pictures in `[0, 1]`; the result is not clipped."""
        height, width = x.shape[-2:]
        m = self.size_multiple
        padded = F.pad(x, (0, -width % m, 0, -height % m))
        features = self.intro(padded)
        skips = []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            features = blocks(features)
            skips.append(features)
            features = down(features)
        features = self.middle_blks(features)
        for blocks, up in zip(self.decoders, self.ups, strict=True):
            features = blocks(enlarged(up, features, skips.pop()))
        return (self.ending(features) + padded)[..., :height, :width]

    def set_pooling_window(self, window: int | Sequence[int] | None) -> None:
        """Chooses global pooling (None), or TLC with a window in input pixels.

        Raises:
            BackboneError: the window is smaller than one pixel of the coarsest feature map.
        """
        if window is None:
            self._set_windows(lambda _: None)
            return
        rows, columns = self._pair("pooling_window", window)
        self._set_windows(lambda downscale: (rows // downscale, columns // downscale))

    def set_pooling_patch(self, patch: int | Sequence[int]) -> None:
        """Chooses TLC with the authors' window for a network trained on patches of that side.

        1.5 times the training patch, on each level in proportion to what the padded patch is there.

        Raises:
            BackboneError: the patch is smaller than one pixel of the coarsest feature map.
        """
        sides = self._pair("pooling_patch", patch)

        def window(downscale: int) -> tuple[int, int]:
            rows, columns = (
                (side + -side % self.size_multiple)
                // downscale
                * int(LOCAL_POOLING_FACTOR * side)
                // side
                for side in sides
            )
            return rows, columns

        self._set_windows(window)

    def _pair(self, name: str, value: int | Sequence[int]) -> tuple[int, int]:
        sides = (value, value) if isinstance(value, int) else tuple(value)
        if len(sides) != 2 or min(sides) < self.size_multiple:
            raise BackboneError(
                f"{name} is {value!r}: expected one or two sides of at least "
                f"{self.size_multiple} pixels, or null for global pooling"
            )
        return sides

    def _set_windows(self, window: Callable[[int], tuple[int, int] | None]) -> None:
        """Gives every block the window for the downscaling of its stage."""
        for stage in self.sites.stages:
            for name in stage.blocks:
                block = self.get_submodule(name)
                assert isinstance(block, NAFBlock)
                block.pooling.window = window(stage.downscale)

    @property
    def sites(self) -> Sites:
        """Where this network can be adapted."""
        stages = []
        groups = [
            ("encoder", "encoders", self.encoders),
            ("middle", "middle_blks", [self.middle_blks]),
            ("decoder", "decoders", self.decoders),
        ]
        width = self.intro.out_channels
        downscale = 1
        for role, prefix, levels in groups:
            for index, blocks in enumerate(levels):
                name = prefix if role == "middle" else f"{prefix}.{index}"
                if role == "decoder":
                    width, downscale = width // 2, downscale // 2
                paths = tuple(
                    f"{name}.{number}"
                    for number, block in enumerate(blocks)
                    if isinstance(block, NAFBlock)
                )
                stages.append(Stage(name, role, paths, width, downscale))
                if role == "encoder":
                    width, downscale = width * 2, downscale * 2
        feed_forward = tuple(
            FeedForwardSite(
                norm=f"{block}.norm2",
                modules=(f"{block}.conv4", f"{block}.conv5"),
                output=f"{block}.conv5",
                scale=f"{block}.gamma",
                width=stage.width,
                layout="bchw",
            )
            for stage in stages
            for block in stage.blocks
        )
        return Sites(
            feed_forward=feed_forward,
            attention=(),
            stages=tuple(stages),
            decoder=("ups", "decoders", "ending"),
            tokens=(),
        )


def configuration_of(state: dict[str, Tensor]) -> dict[str, object]:
    """Reads width, channels and depths off the names and shapes of a NAFNet's tensors.

    Raises:
        BackboneError: the tensors are not those of a NAFNet.
    """
    if "intro.weight" not in state or not any(".sca.1." in name for name in state):
        raise BackboneError(
            "these tensors are not a NAFNet's: intro.weight and the attention layers "
            "(sca.1) were expected among the names"
        )
    depth = 1 + max((int(n.split(".")[1]) for n in state if n.startswith("downs.")), default=-1)

    def count(prefix: str) -> int:
        position = prefix.count(".")
        return 1 + max(
            (int(n.split(".")[position]) for n in state if n.startswith(prefix)), default=-1
        )

    return {
        "img_channel": state["intro.weight"].shape[1],
        "width": state["intro.weight"].shape[0],
        "enc_blk_nums": [count(f"encoders.{i}.") for i in range(depth)],
        "middle_blk_num": count("middle_blks."),
        "dec_blk_nums": [count(f"decoders.{i}.") for i in range(depth)],
    }


def _blocks(channels: int, count: int, placeholder: bool = False) -> nn.Sequential:
    if placeholder and count == 0:
        return nn.Sequential(IdentityBlock(channels))
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


def _check_configuration(
    channels: int, width: int, middle: int, encoder: Sequence[int], decoder: Sequence[int]
) -> None:
    if len(encoder) != len(decoder):
        raise BackboneError(
            f"enc_blk_nums has {counted(len(encoder), 'level')} and dec_blk_nums {len(decoder)}: "
            "a NAFNet needs as many of one as of the other"
        )
    if channels < 1 or width < 1 or min([middle, *encoder, *decoder]) < 0:
        raise BackboneError(
            f"img_channel {channels}, width {width}, middle_blk_num {middle}, enc_blk_nums "
            f"{list(encoder)}, dec_blk_nums {list(decoder)}: channels must be positive and no "
            "count negative"
        )
