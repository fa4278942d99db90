"""The order in which pictures come from shards, and what of them is read ahead.

Packs are drawn from: each patch is of any picture, at any step. Shards are gone through: within an
epoch each picture comes once, in an order that depends on the seed and the epoch alone. Which
picture row `r` of the global batch shows at step `n` is a function of seed, `n` and `r`, so a
training can be resumed at any step, by any number of processes, each of which reads its own rows
and nothing else.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Int64

from urushi.data.shards.part_decoding import Crop
from urushi.data.shards.sharded import ShardedPictures

__all__ = ["Cuts", "Stream"]

Cuts = tuple[np.ndarray, np.ndarray, np.ndarray, int]
"""Indices of pictures, tops and lefts of the parts cut out of them, and their side, in pixels."""

_LEAST_AHEAD = 2


class Stream:
    """Goes through shards, epoch after epoch, for one size of patches.

    A picture stays in its row for `crops` steps, and is decoded once for all of them. Rows change
    their pictures at different steps, so that each step decodes as many.

    Args:
        pack: the shards.
        usable: indices of the samples that are large enough.
        batch: patches of the global batch.
        seed: of the order.
        crops: patches cut from a picture each time it comes.
        first, last: steps that are drawn, the second not included.
    """

    def __init__(
        self,
        pack: ShardedPictures,
        usable: Int64[np.ndarray, " n"],
        batch: int,
        seed: int,
        crops: int = 1,
        first: int = 0,
        last: int = 2**62,
    ) -> None:
        self.pack, self.first, self.last = pack, first, last
        self._usable, self._seed, self._crops = usable, seed, crops
        self._rows = np.arange(batch)
        self._phases = self._rows % crops
        self._permutation = lru_cache(maxsize=2)(self._permuted)
        self._next = -1  # the step that is drawn next, if the training goes on from step to step
        self._announced = 0  # what begins before this step is announced
        self._cuts: dict[int, list[Cuts]] = {}

    # --- the order ---

    def samples(self, step: int) -> Int64[np.ndarray, " batch"]:
        """Indices of the samples that the rows of the global batch show at a step."""
        places = self._visits(step) * len(self._rows) + self._rows
        epochs, places = np.divmod(places, len(self._usable))
        found = np.empty(len(places), np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            found[chosen] = self._usable[self._permutation(int(epoch))[places[chosen]]]
        return found

    def _visits(self, step: int) -> Int64[np.ndarray, " batch"]:
        """How many pictures each row has shown before the one that it shows at a step."""
        return (step - self.first + self._phases) // self._crops

    def _permuted(self, epoch: int) -> Int64[np.ndarray, " n"]:
        # Sorted by the numbers of a generator whose stream never changes, unlike its permutations.
        seed = np.random.SeedSequence((self._seed, epoch))
        return np.argsort(np.random.PCG64(seed).random_raw(len(self._usable)), kind="stable")

    # --- reading ahead ---

    def announce(self, step: int, rows: slice, cuts: Callable[[int], list[Cuts]]) -> None:
        """Has read what a step needs, and some steps after it.

        Args:
            step: that is about to be drawn.
            rows: of this process.
            cuts: what the rows of the global batch cut out at a step.
        """
        if step != self._next:
            self.pack.forget()
            self._announced, self._cuts = step, {}
            begun = True
        else:
            begun = False
        self._next = step + 1
        for old in [known for known in self._cuts if known < step]:
            del self._cuts[old]
        own = self._rows[rows]
        ahead = max(_LEAST_AHEAD, math.ceil(4 * self.pack.workers / max(1, len(own))))
        for now in range(self._announced, min(step + ahead + 1, self.last)):
            starts = (now - self.first + self._phases[own]) % self._crops == 0
            begins = own if begun and now == step else own[starts | (now == self.first)]
            self.pack.expect(self._wanted(now, begins, cuts))
            self._announced = now + 1

    def _wanted(
        self, step: int, rows: np.ndarray, cuts: Callable[[int], list[Cuts]]
    ) -> Iterator[tuple[int, list[Crop]]]:
        """The pictures of some rows from a step on, each with all parts that are cut out of it."""
        for row in rows:
            stays = self._crops - (step - self.first + int(self._phases[row])) % self._crops
            steps = [self._known(s, cuts) for s in range(step, min(step + stays, self.last))]
            for files in zip(*steps, strict=True):
                parts = [(int(tops[row]), int(lefts[row]), side) for _, tops, lefts, side in files]
                yield int(files[0][0][row]), parts

    def _known(self, step: int, cuts: Callable[[int], list[Cuts]]) -> list[Cuts]:
        if step not in self._cuts:
            self._cuts[step] = cuts(step)
        return self._cuts[step]
