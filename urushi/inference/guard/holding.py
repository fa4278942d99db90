"""Holds what networks change to what the damage of a picture explains.

Three rules, all of them of neighbourhoods, so that they are the same however a picture is tiled:

- Where all 5x5 pixels are exactly equal, nothing was added to them, and nothing is taken away.
- Noise and compression leave the mean of a neighbourhood nearly as it was; a change of the mean
  beyond that is left out.
- Whatever takes away noise changes a neighbourhood by about as much as the noise. A change that is
  far stronger takes away something else, and is left out.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from urushi.errors import UnreadableError
from urushi.inference.guard.damage import Guard, Limits
from urushi.inference.restorer import OnProgress, Restorer
from urushi.inference.tiling import ReadRows

__all__ = ["GuardedRestorer", "Holder", "guarded", "taken_rows", "unchanged_rows"]

_MEAN, _AROUND, _FLAT = 4, 7, 2  # half the sides of neighbourhoods, less the pixel in the middle
_MARGIN = _MEAN + _AROUND
_ROWS = 64
# Sums of whole numbers are the same wherever a sum begins.
_STEPS = np.float32(1 << 14)
_SQUARES = np.float32(1 << 22)
# Of a sum that is equal for equal colours alone.
_WEIGHTS = np.array([0.31830987, 0.57721566, 0.20787958], np.float32)
_TOLD = 0.25


class GuardedRestorer(Restorer):
    """Restores one picture, or pictures that the same guard is for.

    Args:
        restorer: what restores.
        guard: what its work is held to.
    """

    def __init__(self, restorer: Restorer, guard: Guard) -> None:
        self._record(inner=restorer, guard=guard)
        self._make(restorer, guard)

    def _make(self, inner: Restorer, guard: Guard) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.inner, self.guard = inner, guard
        self.engine, self.adapters = inner.engine, inner.adapters

    @property
    def notes(self) -> list[str]:
        """Sentences about the latest picture of this thread; they go with the next one."""
        return self.inner.notes

    def describe(self) -> dict[str, object]:
        """What restores; see `Restorer.describe`."""
        return self.inner.describe()

    def restore_rows(
        self, read: ReadRows, width: int, height: int, on_progress: OnProgress | None = None
    ) -> Iterator[np.ndarray]:
        """Restore a picture that streams through; see `Restorer.restore_rows`."""
        if self.guard.strength == 0:
            self.notes.clear()
            yield from unchanged_rows(read, width, height, on_progress)
            return
        if self.guard.limits is None:
            yield from self.inner.restore_rows(read, width, height, on_progress)
            return
        waiting: deque[np.ndarray] = deque()

        def kept(count: int) -> np.ndarray:
            rows = read(count)
            waiting.append(rows.copy())
            return rows

        holder = Holder(self.guard.limits)
        for after in self.inner.restore_rows(kept, width, height, on_progress):
            yield from holder.add(taken_rows(waiting, len(after)), after)
        yield from holder.finish()
        if self.guard.told and holder.left_out >= _TOLD:
            self.notes.append(
                f"About {holder.left_out:.0%} of what would have been changed is no damage, and "
                "was left as it is."
            )


def guarded(restorer: Restorer, guard: Guard | None) -> Restorer:
    """What restores under a guard; itself where there is none, or where it enlarges."""
    if guard is None or restorer.scale != 1:
        return restorer
    return GuardedRestorer(restorer, guard)


class Holder:
    """Holds the changes of one picture, whose rows are given from top to bottom.

    Args:
        limits: what a change may be.

    Attributes:
        left_out: the share of all changes that was left out, 0 to 1.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._before: list[np.ndarray] = []
        self._after: list[np.ndarray] = []
        self._count = 0
        self._begun = False
        self._asked, self._done = 0.0, 0.0

    @property
    def left_out(self) -> float:
        return 1 - self._done / self._asked if self._asked > 0 else 0.0

    def add(self, before: np.ndarray, after: np.ndarray) -> Iterator[np.ndarray]:
        """The next rows of the picture and of what it became, `(n, W, 3)`; gives finished ones."""
        if not len(before):
            return
        if not self._begun:
            # Beyond its border a picture goes on as it ends.
            self._begun = True
            self._push(before[:1].repeat(_MARGIN, axis=0), after[:1].repeat(_MARGIN, axis=0))
        self._push(before, after)
        if self._count >= _ROWS + 2 * _MARGIN:
            yield self._finished()

    def finish(self) -> Iterator[np.ndarray]:
        """The last rows."""
        if self._begun:
            last = self._before[-1][-1:], self._after[-1][-1:]
            self._push(*(rows.repeat(_MARGIN, axis=0) for rows in last))
            yield self._finished()

    def _push(self, before: np.ndarray, after: np.ndarray) -> None:
        self._before.append(before)
        self._after.append(after.copy())
        self._count += len(before)

    def _finished(self) -> np.ndarray:
        before, after = np.concatenate(self._before), np.concatenate(self._after)
        self._before, self._after = [before[-2 * _MARGIN :]], [after[-2 * _MARGIN :]]
        self._count = 2 * _MARGIN
        wanted = after - before
        inner = before[_MARGIN:-_MARGIN]
        change = wanted[_MARGIN:-_MARGIN]
        self._asked += float(np.abs(change).sum())
        if self._limits.damage is not None:
            change = _explained(wanted, self._limits)
        change = change * _uneven(before[_MARGIN - 2 * _FLAT : len(before) - _MARGIN + 2 * _FLAT])
        self._done += float(np.abs(change).sum())
        return inner + change


def _explained(wanted: np.ndarray, limits: Limits) -> np.ndarray:
    """What damage explains of changes `(n, W, 3)`; without the margins."""
    assert limits.damage is not None
    damage = limits.damage / 255
    means = _box(np.rint(wanted * _STEPS).astype(np.int32), _MEAN) / _STEPS
    most = np.float32(0.6 * damage + 1 / 255)
    change = wanted[_MEAN:-_MEAN] - (means - np.clip(means, -most, most))
    squares = np.minimum(np.square(change).mean(axis=2, keepdims=True), 2.0)
    power = _box(np.rint(squares * _SQUARES).astype(np.int32), _AROUND) / _SQUARES
    most = limits.most / 255
    # Of a ratio above a few nothing is left, so there is no need to raise it to huge powers.
    ratio = np.minimum(power / np.float32(most) ** 2, 64)
    held = change[_AROUND:-_AROUND] / (1 + np.square(ratio * ratio * ratio))
    # A mean that is left out may be that of one bright edge: nothing is to go the other way there.
    asked = wanted[_MARGIN:-_MARGIN]
    return np.clip(held, np.minimum(asked, 0), np.maximum(asked, 0), out=held)


def _uneven(before: np.ndarray) -> np.ndarray:
    """0 where 5x5 pixels are equal, 1 where none near by are, `(n - 8, W, 1)`."""
    sums = np.pad(before @ _WEIGHTS, ((0, 0), (_FLAT, _FLAT)), mode="edge")
    high, low = sums, sums
    for axis in (0, 1):
        length = sums.shape[axis] - 2 * _FLAT
        places = [np.s_[at : at + length] if axis == 0 else np.s_[:, at : at + length]
                  for at in range(2 * _FLAT + 1)]  # fmt: skip
        high = np.maximum.reduce([high[place] for place in places])
        low = np.minimum.reduce([low[place] for place in places])
    flat = (high == low)[..., None]
    around = _box(flat.astype(np.int32), _FLAT)
    return np.where(flat[_FLAT:-_FLAT], 0, 1 - around).astype(np.float32)


def _box(values: np.ndarray, reach: int) -> np.ndarray:
    """Means over squares of whole numbers; rows at both ends fall away."""
    side = 2 * reach + 1
    sums = np.empty((len(values) - 2 * reach, *values.shape[1:]), np.int32)
    total = values[:side].sum(axis=0, dtype=np.int32)
    sums[0] = total
    for row in range(1, len(sums)):
        total = total + values[row + side - 1] - values[row - 1]
        sums[row] = total
    padded = np.pad(sums, ((0, 0), (reach + 1, reach), (0, 0)), mode="edge")
    # A sum may go round; the difference of two does not.
    sums = np.cumsum(padded, axis=1, dtype=np.int32)
    sums = sums[:, side:] - sums[:, :-side]
    return sums / np.float32(side * side)


def taken_rows(waiting: deque[np.ndarray], count: int) -> np.ndarray:
    """The first rows of what waits, taken from it."""
    parts = []
    while count:
        rows = waiting.popleft()
        if len(rows) > count:
            waiting.appendleft(rows[count:])
            rows = rows[:count]
        parts.append(rows)
        count -= len(rows)
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def unchanged_rows(
    read: ReadRows, width: int, height: int, on_progress: OnProgress | None
) -> Iterator[np.ndarray]:
    """The rows of a picture that is left as it is; see `Restorer.restore_rows`."""
    done = 0
    while done < height:
        rows = read(min(max((1 << 18) // width, 1), height - done))
        if not len(rows):
            raise UnreadableError(
                f"the picture ended after {done} of {height} rows: the file is truncated, fetch "
                "or export it again"
            )
        done += len(rows)
        yield np.array(rows)
        if on_progress is not None:
            on_progress(done * width, height * width)
