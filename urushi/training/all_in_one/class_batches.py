"""Batches of several kinds of damage, all equally likely, with what a router sees in them.

LoRA-IR (arXiv 2410.15385) trains so: a class is drawn for every patch, and then a patch of it. The
patches of a class are synthetic, or from pairs, or both in a stated share. As every batch, one is a
function of the seed and the step alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from urushi.adapters.experts import top_weights
from urushi.routing.router import Router
from urushi.training.batches import Batch, Batches, Draws, step_generator

__all__ = ["ChangedBatches", "ClassBatches", "ClassDraws", "RoutedBatches"]


@dataclass(frozen=True)
class ClassDraws:
    """Where the patches of one class come from.

    Attributes:
        made: from clean pictures, or None.
        real: from pairs, or None; one of the two is there.
        share: of real ones where there are both.
    """

    made: Batches | None
    real: Batches | None
    share: float = 0.5

    def __post_init__(self) -> None:
        assert self.made is not None or self.real is not None

    @property
    def _share(self) -> float:
        if self.made is None or self.real is None:
            return float(self.made is None)
        return self.share

    def sources(self, chance: Tensor) -> list[tuple[Batches | None, Tensor]]:
        """Both sources, and which patches are from them, by a number in [0, 1) for each patch."""
        real = chance < self._share
        return [(self.made, ~real), (self.real, real)]


@dataclass(frozen=True)
class ClassBatches:
    """Draws the batch of any step; `applied` has a column for each class.

    Args:
        classes: in the order of the columns.
        patch: side of a patch in pixels.
        batch: patches of the global batch.
        seed: of the training.
        rank: of this process.
        processes: how many share the batch.
    """

    classes: Sequence[ClassDraws]
    patch: int
    batch: int
    seed: int
    rank: int = 0
    processes: int = 1
    scale: int = 1

    @property
    def rows(self) -> slice:
        """Which patches of the global batch are this process's."""
        share = self.batch // self.processes
        return slice(self.rank * share, (self.rank + 1) * share)

    def __call__(self, step: int) -> Batch:
        """The patches of this process for step `step`."""
        generator = step_generator(self.seed, step)
        labels = torch.randint(len(self.classes), (self.batch,), generator=generator)
        chance = torch.rand(self.batch, generator=generator)
        seeds = torch.randint(2**62, (len(self.classes), 2), generator=generator)
        own = torch.zeros(self.batch, dtype=torch.bool)
        own[self.rows] = True
        places, parts = [], []
        for index, drawn in enumerate(self.classes):
            chosen = (labels == index) & own
            for kind, (batches, mask) in enumerate(drawn.sources(chance)):
                rows = (chosen & mask).nonzero()[:, 0].numpy()
                if batches is None or len(rows) == 0:
                    continue
                # A generator each, so that no source depends on how much another one draws.
                seeded = torch.Generator().manual_seed(int(seeds[index, kind]))
                parts.append(batches.some(seeded, rows))
                places.append(torch.from_numpy(rows))
        order = torch.cat(places).argsort()
        device = parts[0].degraded.device
        applied = torch.nn.functional.one_hot(labels[self.rows], len(self.classes)).bool()
        return Batch(
            torch.cat([part.degraded for part in parts])[order.to(device)],
            torch.cat([part.clean for part in parts])[order.to(device)],
            applied.to(device),
        )


@dataclass(frozen=True)
class ChangedBatches:
    """Batches of others with something added or changed.

    Args:
        inner: what draws them.
    """

    inner: Draws

    @property
    def patch(self) -> int:
        """As the inner one's."""
        return self.inner.patch

    @property
    def batch(self) -> int:
        """As the inner one's."""
        return self.inner.batch

    @property
    def scale(self) -> int:
        """As the inner one's."""
        return self.inner.scale

    @property
    def rows(self) -> slice:
        """As the inner one's."""
        return self.inner.rows


@dataclass(frozen=True)
class RoutedBatches(ChangedBatches):
    """Batches with what a frozen router reads from each patch: LoRA-IR's own training reads crops.

    Args:
        inner: see `ChangedBatches`.
        router: frozen, in evaluation mode, on the device of the batches.
        vector: whether to give its degradation vectors.
        experts: for each expert, its class's index in the router and in the batches; empty gives no
            weights.
        k: experts of one patch at most.
    """

    router: Router
    vector: bool = False
    experts: Sequence[tuple[int, int]] = ()
    k: int = 1

    @torch.no_grad()
    def __call__(self, step: int) -> Batch:
        """The patches of step `step`, with vectors and weights."""
        batch = self.inner(step)
        seen = self.router.read(batch.degraded)
        if self.vector:
            batch = batch._replace(vector=seen.vector.float())
        if self.experts:
            batch = batch._replace(weights=self._weights(seen.logits.float(), batch.applied))
        return batch

    def _weights(self, logits: Tensor, applied: Tensor) -> Tensor:
        """The router's, of the experts; where it sees none of them, the patch's own class.

        A patch that is taken for clean would teach no expert anything.
        """
        columns, labels = (list(index) for index in zip(*self.experts, strict=True))
        weights = top_weights(logits, min(self.k, logits.shape[1]))[:, columns]
        told = applied[:, labels].to(weights.dtype)
        return torch.where(weights.sum(1, keepdim=True) > 0, weights, told)
