"""Pictures with nothing on them are left to the base; dark ones with something are not."""

import numpy as np
import pytest

from urushi.inference.auto import AutoRestorer
from urushi.inference.emptiness import Emptiness, is_empty

SIZE = (80, 90, 3)


def noise(level, seed=0):
    return np.random.default_rng(seed).normal(0, level / 255, SIZE)


def scene():
    y, x = np.mgrid[0:80, 0:90]
    return np.stack([0.5 + 0.4 * np.sin(x / 9), 0.5 + 0.4 * np.cos(y / 7), x / 90], -1)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros(SIZE),
        np.full((1, 1, 3), 9 / 255),
        np.full(SIZE, 9 / 255),
        np.full(SIZE, 1.0),
        np.broadcast_to([0.8, 0.1, 0.1], SIZE),
        0.01 + noise(3),
        0.03 + noise(8),
        np.zeros((80, 90)),
        np.zeros((3, 500, 3)),
    ],
)
def test_nothing_is_on_it(picture):
    assert is_empty(np.clip(picture, 0, 1).astype(np.float32))


@pytest.mark.parametrize(
    "picture",
    [
        scene(),
        scene() * 0.05,
        np.rint(scene() * 0.03 * 255) / 255,
        scene() * 0.05 + noise(2),
        0.5 + noise(10),
        np.zeros((0, 5, 3)),
    ],
)
def test_something_is_on_it(picture):
    assert not is_empty(np.clip(picture, 0, 1).astype(np.float32))


@pytest.mark.parametrize("step", [1, 7, 80])
def test_rows_may_come_in_any_number(step):
    for picture, expected in ((np.clip(0.02 + noise(4), 0, 1), True), (scene() * 0.05, False)):
        rows = iter(np.array_split(picture.astype(np.float32), range(step, 80, step)))
        watched = Emptiness(lambda _count, rows=rows: next(rows, np.zeros((0, 90, 3))))
        while watched.read(step).shape[0]:
            pass
        assert watched.empty is expected


@pytest.mark.parametrize("level", [0, 9])
def test_the_shipped_model_leaves_the_dark_dark(level):
    ready = AutoRestorer(quick=True, device="cpu")
    picture = np.full((40, 50, 3), level, np.uint8)
    restored = ready.restore(picture)
    assert ready.last is not None
    assert ready.last.route == ()
    assert "nothing is on it" in ready.last.reason
    assert np.abs(restored.astype(int) - level).max() <= 2
