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

from urushi.backbones.nafnet_steps import (
    FeedForward,
    Spatial,
    Widen,
    doubled,
    feed_forward,
    spatial,
    widen_of,
)
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import FeedForwardSite, Sites, Stage
from urushi.errors import BackboneError

NORM_EPSILON = 1e-6  # the released code's value, not torch's default
LOCAL_POOLING_FACTOR = 1.5  # TLC: the window is 1.5 times the training patch


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel, on `(B, C, H, W)`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        # On channels-last tensors the permutation is free and the fused kernel reads in order.
        y = F.layer_norm(
            x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, NORM_EPSILON
        )
        return y.permute(0, 3, 1, 2)


class Pooling(nn.Module):
    """The average that feeds channel attention: global, or over a sliding window (TLC).

    Args:
        window: `(height, width)` in pixels of this feature map, or None for the global average.
    """

    def __init__(self, window: tuple[int, int] | None = None) -> None:
        super().__init__()
        self.window = window

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        height, width = x.shape[-2:]
        if self.window is None or (self.window[0] >= height and self.window[1] >= width):
            return x.mean((2, 3), keepdim=True)
        rows, columns = min(height, self.window[0]), min(width, self.window[1])
        # A box mean is separable and a cumulative sum makes its cost independent of the window.
        mean = _sliding_mean(_sliding_mean(x.float(), rows, -2), columns, -1).to(x.dtype)
        missing_rows, missing_columns = height - mean.shape[-2], width - mean.shape[-1]
        margins = (
            missing_columns // 2,
            (missing_columns + 1) // 2,
            missing_rows // 2,
            (missing_rows + 1) // 2,
        )
        return F.pad(mean, margins, mode="replicate")


def _sliding_mean(x: Tensor, window: int, axis: int) -> Tensor:
    """Mean over `window` neighbours along `axis`, valid positions only; float32 expected."""
    size = x.shape[axis]
    # Sums of deviations stay small, so that float32 keeps its digits on long rows.
    offset = x.mean(axis, keepdim=True)
    sums = F.pad((x - offset).cumsum(axis), (1, 0) if axis == -1 else (0, 0, 1, 0))
    upper = sums.narrow(axis, window, size - window + 1)
    return (upper - sums.narrow(axis, 0, size - window + 1)) / window + offset


class NAFBlock(nn.Module):
    """One block: a spatial branch with channel attention, then a feed-forward branch.

    Both are scaled by `beta` and `gamma`, zero at first, so that a fresh block is the identity.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.norm1 = ChannelNorm(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(Pooling(), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.norm2 = ChannelNorm(c)
        self.conv4 = nn.Conv2d(c, 2 * c, 1)
        self.conv5 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, c, 1, 1))

    @property
    def pooling(self) -> Pooling:
        """The average before channel attention."""
        pooling = self.sca[0]
        assert isinstance(pooling, Pooling)
        return pooling

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        if torch.is_grad_enabled() and self._undisturbed():
            return self._stepped(x) if self._whole(x) else self._trained(x)
        first, second = self.conv2(self.conv1(self.norm1(x))).chunk(2, dim=1)
        mixed = first * second
        x = x + self.beta * self.conv3(mixed * self.sca(mixed))
        first, second = self.conv4(self.norm2(x)).chunk(2, dim=1)
        return x + self.gamma * self.conv5(first * second)

    def _trained(self, x: Tensor) -> Tensor:
        """The same up to rounding, and faster with its way back.

        What scales channels is put into the weights beside it, so that its gradient is a sum over
        weights and not over feature maps.
        """
        first, second = self.conv2(_after_norm(self.norm1, self.conv1, x)).chunk(2, dim=1)
        mixed = first * second
        x = x + _scaled(self.conv3, mixed * self.sca(mixed), self.beta)
        first, second = _after_norm(self.norm2, self.conv4, x).chunk(2, dim=1)
        return x + _scaled(self.conv5, first * second, self.gamma)

    def _stepped(self, x: Tensor) -> Tensor:
        """The same once more, each branch as one function; see `nafnet_steps`."""
        attention = self.sca[1]
        assert isinstance(attention, nn.Conv2d)
        y = spatial(
            x.permute(0, 2, 3, 1),
            _widen(self.norm1, self.conv1),
            Spatial(
                self.conv2.weight,
                _bias(self.conv2),
                attention.weight.flatten(1),
                _bias(attention),
                *_joined(self.conv3, self.beta),
            ),
            NORM_EPSILON,
        )
        join = FeedForward(*_joined(self.conv5, self.gamma))
        return feed_forward(y, _widen(self.norm2, self.conv4), join, NORM_EPSILON).permute(
            0, 3, 1, 2
        )

    def _whole(self, x: Tensor) -> bool:
        """Whether the branches can be one function each."""
        window = self.pooling.window
        if not _takes_steps(x):
            return False
        if window is not None and (window[0] < x.shape[-2] or window[1] < x.shape[-1]):
            return False
        layers = (self.conv2, self.sca, self.sca[0], self.sca[1])
        plain = (nn.Conv2d, nn.Sequential, Pooling, nn.Conv2d)
        return all(type(a) is b and _alone(a) for a, b in zip(layers, plain, strict=True))

    def _undisturbed(self) -> bool:
        """Whether nobody listens to, replaces or wraps the layers that are put together."""
        layers = (self.norm1, self.conv1, self.conv3, self.norm2, self.conv4, self.conv5)
        # A layer of a class of its own has weights, too, and does more with them: PEFT's have.
        if any(type(layer) not in (nn.Conv2d, ChannelNorm) for layer in layers):
            return False
        return all(_alone(layer) for layer in layers)


def _takes_steps(x: Tensor) -> bool:
    """Whether `nafnet_steps` are for these maps: on CPUs, in training, where they are faster."""
    kind = x.device.type
    if kind != "cpu" or not torch.is_grad_enabled():
        return False
    return not torch.is_autocast_enabled(kind) and not torch.compiler.is_compiling()


def _enlarged(up: nn.Module, x: Tensor, skip: Tensor) -> Tensor:
    """Maps of twice the sides, with what was skipped added."""
    if _takes_steps(x) and type(up) is nn.Sequential and _alone(up):
        layer, shuffle = up
        plain = type(layer) is nn.Conv2d and type(shuffle) is nn.PixelShuffle
        if plain and _alone(layer) and _alone(shuffle):
            maps, shown = (t.permute(0, 2, 3, 1).contiguous() for t in (x, skip))
            return doubled(maps, layer.weight, shown).permute(0, 3, 1, 2)
    return up(x) + skip


def _alone(layer: nn.Module) -> bool:
    """Whether a layer has no hooks and its own `forward`."""
    return not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or "forward" in layer.__dict__
    )


def _bias(layer: nn.Conv2d) -> Tensor:
    return layer.weight.new_zeros(len(layer.weight)) if layer.bias is None else layer.bias


def _widen(norm: ChannelNorm, layer: nn.Conv2d) -> Widen:
    return widen_of(norm.weight, norm.bias, layer.weight, _bias(layer))


def _joined(layer: nn.Conv2d, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Weight and bias of `scale * layer`, for a kernel of one pixel."""
    scale = scale.flatten()
    return layer.weight.flatten(1) * scale[:, None], _bias(layer) * scale


def _after_norm(norm: ChannelNorm, layer: nn.Conv2d, x: Tensor) -> Tensor:
    """`layer(norm(x))` for a kernel of one pixel."""
    weight = layer.weight.flatten(1)
    bias = weight @ norm.bias
    if layer.bias is not None:
        bias = bias + layer.bias
    y = F.layer_norm(x.permute(0, 2, 3, 1), norm.weight.shape, eps=NORM_EPSILON)
    return F.linear(y, weight * norm.weight, bias).permute(0, 3, 1, 2)


def _scaled(layer: nn.Conv2d, x: Tensor, scale: Tensor) -> Tensor:
    """`scale * layer(x)` for a kernel of one pixel and a scale of each channel."""
    scale = scale.flatten()
    bias = None if layer.bias is None else layer.bias * scale
    y = F.linear(x.permute(0, 2, 3, 1), layer.weight.flatten(1) * scale[:, None], bias)
    return y.permute(0, 3, 1, 2)


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
            features = blocks(_enlarged(up, features, skips.pop()))
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
            f"enc_blk_nums has {len(encoder)} levels and dec_blk_nums {len(decoder)}: "
            "a NAFNet needs as many of one as of the other"
        )
    if channels < 1 or width < 1 or min([middle, *encoder, *decoder]) < 0:
        raise BackboneError(
            f"img_channel {channels}, width {width}, middle_blk_num {middle}, enc_blk_nums "
            f"{list(encoder)}, dec_blk_nums {list(decoder)}: channels must be positive and no "
            "count negative"
        )
