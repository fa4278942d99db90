"""Batches of degraded and clean patches, each a function of the seed and the step alone.

Nothing is carried from step to step: the pictures, crops, symmetries and the degradations'
parameters of step `n` are drawn from a generator seeded by `(seed, n)`. So a resumed training goes
on exactly where it stopped, and several processes draw the same global batch and take their rows.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import Degradation
from urushi.degradations.base import Parameters
from urushi.degradations.chain import Chain
from urushi.degradations.regions import Regions
from urushi.degradations.rehaze import Rehaze
from urushi.degradations.rerain import Rerain
from urushi.errors import DataError
from urushi.training.streaming import Cuts, Stream

__all__ = [
    "Batch",
    "Batches",
    "CleanBatches",
    "DegradedBatches",
    "Draws",
    "PairBatches",
    "Rows",
    "step_generator",
    "turn_and_mirror",
]


def step_generator(seed: int, step: int) -> torch.Generator:
    """A CPU generator for step `step` of a training with seed `seed`."""
    # SeedSequence mixes both numbers, so that neighbouring steps are unrelated.
    state = int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


class Batch(NamedTuple):
    """Patches of one process for one step, on the device, in [0, 1].

    Attributes:
        degraded: what the network gets.
        clean: what it should give; larger where the network enlarges.
        applied: which steps of a chain each patch went through, or each of its cells where its
            regions differ, as shares in [0, 1]; one column where there is no chain.
        vector: side information for a guided network: degradation vectors.
        weights: side information for a mixture: those of its experts for each patch.
    """

    degraded: Float[Tensor, "b 3 p p"]
    clean: Float[Tensor, "b 3 q q"]
    applied: Bool[Tensor, "b kinds"] | Float[Tensor, "b kinds rows columns"]
    vector: Float[Tensor, "b d"] | None = None
    weights: Float[Tensor, "b n"] | None = None

    @property
    def side(self) -> dict[str, Any]:
        """What the network is given beside the patches, by the names of its arguments."""
        known = {"vector": self.vector, "weights": self.weights}
        return {name: value for name, value in known.items() if value is not None}


@runtime_checkable
class Draws(Protocol):
    """What draws the batch of any step.

    Attributes:
        patch: side of a patch in pixels.
        batch: patches of the global batch.
        scale: side of a clean patch divided by that of a degraded one.
        rows: which patches of the global batch are this process's.
    """

    @property
    def patch(self) -> int: ...

    @property
    def batch(self) -> int: ...

    @property
    def scale(self) -> int: ...

    @property
    def rows(self) -> slice: ...

    def __call__(self, step: int) -> Batch:
        """The patches of this process for step `step`."""
        ...


# Indices of pictures, tops and lefts of crops in pixels.
_Crops = tuple[np.ndarray, np.ndarray, np.ndarray]
# Some patches of a global batch.
Rows = slice | np.ndarray


@dataclass(frozen=True)
class Batches:
    """Draws the batch of any step from a pack; see `DegradedBatches` and `PairBatches`.

    Args:
        pack: pictures, or pairs of them.
        patch: side in pixels of the patches that the network gets.
        batch: patches of the global batch.
        augment: apply the eight symmetries of the square.
        seed: of the training.
        device: where patches are made.
        resident: the pack's pixels on `device`; None reads them from the mapped file.
        rank: of this process.
        processes: how many share the batch; divides `batch`.
        stream: the order in which pictures come, where they come from shards; None draws them.
    """

    pack: PackedPictures
    patch: int
    batch: int
    augment: bool
    seed: int
    device: torch.device
    resident: UInt8[Tensor, " bytes"] | None = None
    rank: int = 0
    processes: int = 1
    stream: Stream | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        usable = int((self.pack.sizes.min(1) >= self._side).sum())
        if usable == 0:
            raise DataError(
                f"no picture of {self.pack.path} is {self._side} pixels on its shorter side: "
                "choose a smaller patch or larger pictures"
            )

    @property
    def scale(self) -> int:
        """Side of a clean patch divided by that of a degraded one."""
        return 1

    @property
    def _side(self) -> int:
        """Side of what is cut out of the pack's pictures, of pairs out of the inputs."""
        return self.patch

    @property
    def rows(self) -> slice:
        """Which patches of the global batch are this process's."""
        share = self.batch // self.processes
        return slice(self.rank * share, (self.rank + 1) * share)

    def __call__(self, step: int) -> Batch:
        """The patches of this process for step `step`."""
        if self.stream is not None:
            self.stream.announce(step, self.rows, self._cuts_of)
        return self.some(step_generator(self.seed, step), self.rows, step)

    def some(self, generator: torch.Generator, rows: Rows, step: int | None = None) -> Batch:
        """Some patches of the global batch that `generator` draws; of a stream, those of a step."""
        crops = self._draw_crops(generator, step)
        symmetry = torch.randint(8, (self.batch,), generator=generator)[rows]
        indices, tops, lefts = (values[rows] for values in crops)
        return self._make((indices, tops, lefts), symmetry, generator, rows)

    @abstractmethod
    def _make(
        self, crops: _Crops, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        """The batch of these crops; `generator` is that of the step, as far as it was used."""

    def _patches(
        self, crops: _Crops, symmetry: Tensor, side: int | None = None
    ) -> Float[Tensor, "b 3 side side"]:
        patches = self._cut(*crops, side or self._side)
        return turn_and_mirror(patches, symmetry) if self.augment else patches

    def _cuts_of(self, step: int) -> list[Cuts]:
        """What the global batch of a step cuts out of pictures."""
        return self._cuts(self._draw_crops(step_generator(self.seed, step), step))

    def _cuts(self, crops: _Crops) -> list[Cuts]:
        return [(*crops, self._side)]

    def _draw_crops(self, generator: torch.Generator, step: int | None = None) -> _Crops:
        """Indices, tops and lefts, every position in every picture equally likely.

        A stream says which pictures; every position in them is equally likely.
        """
        if self.stream is not None and step is not None:
            indices = self.stream.samples(step)
            room = self.pack.sizes[indices] - self._side + 1
            positions = room.prod(1)
            drawn = torch.rand(self.batch, dtype=torch.float64, generator=generator).numpy()
            within = np.minimum((drawn * positions).astype(np.int64), positions - 1)
            return indices, within // room[:, 1], within % room[:, 1]
        room = self.pack.sizes - self._side + 1
        positions = np.where((room > 0).all(1), room.prod(1), 0)
        ends = positions.cumsum()
        drawn = torch.rand(self.batch, dtype=torch.float64, generator=generator).numpy()
        drawn = np.minimum((drawn * ends[-1]).astype(np.int64), ends[-1] - 1)
        indices = np.searchsorted(ends, drawn, side="right")
        within = drawn - (ends[indices] - positions[indices])
        return indices, within // room[indices, 1], within % room[indices, 1]

    def _cut(
        self, indices: np.ndarray, tops: np.ndarray, lefts: np.ndarray, side: int
    ) -> Float[Tensor, "b 3 side side"]:
        if self.resident is None:
            crops = torch.from_numpy(self.pack.crops(indices, tops, lefts, side))
            crops = crops.to(self.device, non_blocking=True)
        else:
            starts = torch.from_numpy(self.pack.row_starts(indices, tops, lefts, side))
            row = torch.arange(side * 3, device=self.device)
            crops = self.resident[starts.to(self.device)[:, :, None] + row]
            crops = crops.view(len(indices), side, side, 3)
        return crops.permute(0, 3, 1, 2).float() / 255


@dataclass(frozen=True)
class DegradedBatches(Batches):
    """Clean patches, and the same degraded.

    Args:
        degradation: what spoils them. Where it makes pictures smaller, clean patches are so much
            larger that degraded ones have `patch` pixels.
        scene: what clean patches are made into before, or None; keeps their size.
    """

    degradation: Degradation = field(kw_only=True)
    scene: Degradation | None = field(default=None, kw_only=True)

    @property
    def scale(self) -> int:
        """See `Batches.scale`."""
        return self.degradation.scale

    @property
    def _side(self) -> int:
        return self.patch * self.scale

    def _make(
        self, crops: _Crops, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        # Drawn for the whole batch, so that it does not depend on how many processes share it.
        shape = (self.batch, 3, self._side, self._side)
        parameters = self.degradation.sample(shape, generator)
        own = {name: values[rows] for name, values in parameters.items()}
        clean = self._patches(crops, symmetry)
        if self.scene is not None:
            drawn = self.scene.sample(shape, generator)
            clean = self.scene.apply(clean, {name: values[rows] for name, values in drawn.items()})
        return Batch(self.degradation.apply(clean, own), clean, self._applied(own, len(clean)))

    @property
    def kinds(self) -> int:
        """How many degradations `Batch.applied` tells apart."""
        inner = self._inner
        return len(inner.steps) if isinstance(inner, Chain) else 1

    @property
    def _inner(self) -> Degradation:
        return (
            self.degradation.degradation
            if isinstance(self.degradation, Regions)
            else self.degradation
        )

    def _applied(self, parameters: Parameters, count: int) -> Tensor:
        if isinstance(self.degradation, Regions) and isinstance(self._inner, Chain):
            return self.degradation.applied(parameters, (self._side, self._side)).to(self.device)
        if isinstance(self.degradation, Chain):
            return self.degradation.applied(parameters).to(self.device)
        return torch.ones(count, 1, dtype=torch.bool, device=self.device)


@dataclass(frozen=True)
class PairBatches(Batches):
    """Patches of degraded pictures, and the same parts of their targets; `pack` holds pairs.

    Args:
        rehaze: lays other haze over them, or None; for networks that keep the size.
        rerain: lays other rain over them in its place, or None; patches are then not turned.
        scenes: clear patches for the share of either that goes elsewhere, or None.
        level: give every target the mean of its input, channel by channel; may leave [0, 1].
    """

    rehaze: Rehaze | None = field(default=None, kw_only=True)
    rerain: Rerain | None = field(default=None, kw_only=True)
    scenes: Batches | None = field(default=None, kw_only=True)
    level: bool = field(default=False, kw_only=True)

    @property
    def scale(self) -> int:
        """See `Batches.scale`."""
        assert isinstance(self.pack, PackedPairs)
        return self.pack.scale

    def _cuts(self, crops: _Crops) -> list[Cuts]:
        indices, tops, lefts = crops
        # In a pack of pairs the input of pair k is picture 2 k, its target the next.
        scale = self.scale
        larger = (2 * indices + 1, scale * tops, scale * lefts, scale * self.patch)
        return [(2 * indices, tops, lefts, self.patch), larger]

    def _make(
        self, crops: _Crops, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        inputs, targets = self._cuts(crops)
        varied = self.rehaze or self.rerain
        if self.rerain is not None:
            symmetry = symmetry & 3  # both mirrors, without the transposition
        degraded = self._patches(inputs[:3], symmetry)
        clean = self._patches(targets[:3], symmetry, targets[3])
        if varied is not None:
            # Drawn for the whole batch, so that it does not depend on how many processes share it.
            drawn = varied.sample(self.batch, generator)
            own = {name: values[rows] for name, values in drawn.items()}
            others = self.scenes.some(generator, rows).clean if self.scenes else None
            degraded, clean = varied.apply(degraded, clean, own, others)
        if self.level:
            wanted, own = (picture.mean((2, 3), keepdim=True) for picture in (degraded, clean))
            clean = clean + (wanted - own)
        applied = torch.ones(len(clean), 1, dtype=torch.bool, device=self.device)
        return Batch(degraded, clean, applied)


@dataclass(frozen=True)
class CleanBatches(Batches):
    """Clean patches, which should stay as they are."""

    def _make(
        self, crops: _Crops, symmetry: Tensor, generator: torch.Generator, rows: Rows
    ) -> Batch:
        clean = self._patches(crops, symmetry)
        return Batch(clean, clean, torch.ones(len(clean), 1, dtype=torch.bool, device=self.device))


def turn_and_mirror(images: Float[Tensor, "b 3 p p"], symmetry: Tensor) -> Float[Tensor, "b 3 p p"]:
    """Applies to each picture one of the eight symmetries of the square, numbered 0 to 7."""
    bits = symmetry.to(images.device)[:, None, None, None]
    images = torch.where(bits & 1 > 0, images.flip(-1), images)
    images = torch.where(bits & 2 > 0, images.flip(-2), images)
    return torch.where(bits & 4 > 0, images.transpose(-1, -2), images).contiguous()
