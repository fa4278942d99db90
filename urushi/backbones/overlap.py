"""Whole pictures from squares that overlap, as IPT's authors put them together.

Slow, with each pixel calculated up to 16 times: it is for scores that are to be compared with
theirs. Chen et al.: "Pre-Trained Image Processing Transformer", CVPR 2021, released code.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from urushi.backbones.network import RestorationNetwork, mirrored

__all__ = ["restore_overlapping"]

STEPS = 4  # squares begin at every fourth of their side; a fourth at each end is not trusted


def restore_overlapping(
    network: RestorationNetwork, x: Float[Tensor, "b c h w"], batch: int = 16
) -> Float[Tensor, "b c h2 w2"]:
    """Restores pictures square by square; the central halves of squares are averaged.

    What the step leaves over at the bottom and at the right comes from squares at those very edges.

    Args:
        network: one with a `fixed_patch` that 4 divides.
        x: pictures in `[0, 1]`; sides smaller than a square are filled up by mirroring.
        batch: squares calculated at once.
    """
    return _Squares(network, batch).whole(x)


class _Squares:
    def __init__(self, network: RestorationNetwork, batch: int) -> None:
        assert network.fixed_patch is not None
        assert network.fixed_patch % STEPS == 0
        assert batch > 0
        self._network, self._batch = network, batch
        self._side, self._scale = network.fixed_patch, network.scale
        self._step = self._side // STEPS

    def whole(self, x: Tensor) -> Tensor:
        side, s = self._side, self._scale
        height, width = x.shape[2:]
        if height < side or width < side:
            larger = mirrored(x, side)
            larger = larger[..., : max(height, side), : max(width, side)]
            return self.whole(larger)[..., : height * s, : width * s]
        over = [size - self._covered(size) for size in (height, width)]
        bottom, right = x[:, :, -side:], x[..., -side:]
        # Where the squares at the edges take over: in the middle of what they share with the grid.
        (above, down), (before, across) = (
            ((side - rest) * s // 2, ((side - rest) * s + 1) // 2) for rest in over
        )
        left = torch.cat(
            [_upto(self._grid(x), 2, above), self._averaged(bottom, [3])[:, :, down:]], 2
        )
        end = torch.cat(
            [
                _upto(self._averaged(right, [2]), 2, above),
                self._averaged(bottom[..., -side:], [])[:, :, down:],
            ],
            2,
        )
        return torch.cat([_upto(left, 3, before), end[..., across:]], 3)

    def _covered(self, size: int) -> int:
        """How far the squares reach that begin at every step."""
        return size - (size - self._side) % self._step

    def _grid(self, x: Tensor) -> Tensor:
        """The part that the squares cover; its bottom and right ends are no good."""
        side, edge = self._side * self._scale, self._step * self._scale
        inner = self._averaged(x, [2, 3])
        result = inner.clone()
        result[:, :, :side] = self._averaged(x[:, :, : self._side], [3])
        result[..., :side] = self._averaged(x[..., : self._side], [2])
        middle = (..., slice(edge, -edge), slice(edge, -edge))
        result[middle] = inner[middle]
        return result

    def _averaged(self, x: Tensor, axes: list[int]) -> Tensor:
        """Squares at every step along the axes; along others `x` is as long as a square.

        Along the axes only the central half of a square counts, and the ends of the outer ones.
        """
        side, s = self._side, self._scale
        spots = [
            range(0, self._covered(x.shape[axis]) - side + 1, self._step) if axis in axes else (0,)
            for axis in (2, 3)
        ]
        places = [(top, left) for top in spots[0] for left in spots[1]]
        squares = [x[..., top : top + side, left : left + side] for top, left in places]
        reach = [(at[-1] + side) * s for at in spots]
        total = x.new_zeros(*x.shape[:2], *reach)
        counts = x.new_zeros(*reach)
        for (top, left), result in zip(places, self._restored(squares), strict=True):
            own, there = [], []
            for start, at in zip((top, left), spots, strict=True):
                first = 0 if start == at[0] else self._step
                last = side if start == at[-1] else side - self._step
                own.append(slice(first * s, last * s))
                there.append(slice((start + first) * s, (start + last) * s))
            total[..., there[0], there[1]] += result[..., own[0], own[1]]
            counts[there[0], there[1]] += 1
        return total / counts

    def _restored(self, squares: list[Tensor]) -> list[Tensor]:
        pictures = len(squares[0])
        batches = torch.cat(squares).split(self._batch)
        return list(torch.cat([self._network(batch) for batch in batches]).split(pictures))


def _upto(x: Tensor, axis: int, left_out: int) -> Tensor:
    return x.narrow(axis, 0, x.shape[axis] - left_out)
