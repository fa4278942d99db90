"""Large pictures and experts that need the whole: brightness comes from a small version."""

import numpy as np
import pytest
from networks import DarkenEngine

from urushi.errors import UnreadableError
from urushi.inference import overview
from urushi.inference.auto import AutoRestorer
from urushi.inference.overview import Spool, joined, reduction, worked_out
from urushi.inference.restorer import Restorer
from urushi.inference.tiling import reader_of


def pictures(height=90, width=130):
    return np.random.default_rng(3).random((height, width, 3)).astype(np.float32)


def reduced_plainly(picture, factor):
    rows = range(0, len(picture), factor)
    columns = range(0, picture.shape[1], factor)
    return np.array(
        [[picture[r : r + factor, c : c + factor].mean(axis=(0, 1)) for c in columns] for r in rows]
    )


@pytest.mark.parametrize("step", [1, 7, 13, 90])
def test_a_spool_gives_the_rows_back_and_their_means(step):
    picture = pictures()
    with Spool(130, 7) as spool:
        for top in range(0, 90, step):
            spool.add(picture[top : top + step])
        np.testing.assert_allclose(spool.reduced(), reduced_plainly(picture, 7), atol=1e-6)
        for _ in range(2):
            read = spool.rows()
            back = [read(11) for _ in range(9)]
            np.testing.assert_array_equal(np.concatenate(back), picture)


@pytest.mark.parametrize(
    ("sides", "factor"),
    [((600, 400), 1), ((760, 760), 1), ((780, 780), 2), ((4000, 3000), 7), ((9, 1), 1)],
)
def test_small_versions_have_about_a_quarter_of_a_megapixel(sides, factor):
    assert reduction(*sides) == factor
    assert np.prod([-(-side // factor) for side in sides]) < 2.25 * overview.PIXELS
    # Memory may allow less.
    less = reduction(*sides, 10_000)
    assert np.prod([side / less for side in sides]) <= 10_000


def test_a_linear_difference_is_found_where_there_is_detail():
    tiles = pictures(60, 80)
    gain, offset = worked_out(tiles, 0.5 * tiles + 0.2)
    # A little flatness is assumed everywhere: variance here is 1/12.
    np.testing.assert_allclose(gain, 0.5, atol=0.02)
    np.testing.assert_allclose(gain * tiles + offset, 0.5 * tiles + 0.2, atol=0.01)


def test_flat_parts_keep_what_detail_they_have():
    flat = np.full((40, 40, 3), 0.3, np.float32)
    gain, offset = worked_out(flat, flat + 0.4)
    np.testing.assert_allclose(gain, 1, atol=1e-5)
    np.testing.assert_allclose(offset, 0.4, atol=1e-5)


def test_detail_is_not_turned_over():
    tiles = pictures(40, 40)
    gain, _ = worked_out(tiles, 1 - tiles)
    assert gain.min() >= 0


def test_tiles_of_other_brightness_come_to_that_of_the_whole():
    """Each tile is made brighter or darker by its place; the small version knows better."""
    x, y = np.meshgrid(np.linspace(0, 1, 400), np.linspace(0, 1, 300))
    truth = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.5 + 0.3 * x * y], axis=-1)
    detail = 0.05 * np.sign(np.sin(np.arange(400) * 1.5))[None, :, None]
    truth = (truth + detail).astype(np.float32)
    wrong = truth.copy()
    wrong[:, 200:] *= 0.6
    wrong[:, :200] *= np.linspace(1.0, 1.3, 200, dtype=np.float32)[None, :, None]

    def restore(read):
        done = 0
        while len(rows := read(37)):
            yield wrong[done : done + len(rows)]
            done += len(rows)

    read = reader_of(truth)
    factor = reduction(400, 300, 1 << 12)
    found = np.concatenate(list(joined(read, 400, 300, factor, lambda small: small, restore)))
    assert found.shape == truth.shape

    def off(picture):
        return float(np.sqrt(np.square(picture - truth).mean()))

    assert off(found) < 0.25 * off(wrong)
    # Detail, which the small version does not have, is there.
    fine = np.diff(found[:, 20:180], axis=1) - np.diff(truth[:, 20:180], axis=1)
    assert np.abs(fine).mean() < 0.4 * np.abs(np.diff(truth[:, 20:180], axis=1)).mean()


def test_a_dark_picture_gets_one_light_whatever_the_tiles():
    """By the expert that ships: tiles as if the picture had not been cut, in brightness."""
    x, y = np.meshgrid(np.linspace(0, 1, 720), np.linspace(0, 1, 560))
    dark = np.stack([0.02 + 0.08 * x, 0.03 + 0.05 * y, 0.02 + 0.05 * x * y], axis=-1)
    dark[200:320, 300:420] = 0.6  # a window
    dark = dark.astype(np.float32)
    small = dark[::2, ::2]
    aim = AutoRestorer(task="low-light", threads=1).restore(small)
    found = AutoRestorer(task="low-light", threads=1, tile=96).restore(dark)[::2, ::2]
    off = np.abs(found - aim).mean()
    assert off < 0.25 * np.abs(aim - small).mean()
    # Without the small version: tiles of 96 pixels, each with a light of its own.
    pieces = AutoRestorer(task="low-light", threads=1).restore(dark[:96, :96])
    assert np.abs(pieces[::2, ::2] - aim[:48, :48]).mean() > 2 * off


class MeanEngine(DarkenEngine):
    """What comes of a tile hangs on its mean, as in haze."""

    def __init__(self):
        super().__init__()
        self.sides = []

    def run(self, batch):
        self.sides.append(max(batch.shape[2:]))
        return batch - 0.5 * batch.mean((1, 2, 3), keepdims=True, dtype=np.float32)


def wide_restorer(**options):
    """For an adapter of damage that is not local."""
    restorer = Restorer.from_engine(MeanEngine(), **options)
    restorer._wide = True
    return restorer


@pytest.mark.parametrize("size", [(90, 130), (300, 420), (512, 512)])
def test_small_pictures_have_one_light_whatever_the_tile(size):
    x, y = np.meshgrid(np.linspace(0.2, 0.9, size[1]), np.linspace(0, 0.2, size[0]))
    picture = np.repeat((x + y / 2)[..., None], 3, axis=2).astype(np.float32)
    whole = wide_restorer().restore(picture)
    np.testing.assert_array_equal(wide_restorer(tile=64).restore(picture), whole)


class SizeEngine(MeanEngine):
    """What comes of a tile hangs on its size, too."""

    def run(self, batch):
        share = min(batch.shape[2] * batch.shape[3] / 1e6, 1)
        return batch - share * batch.mean((1, 2, 3), keepdims=True, dtype=np.float32)


@pytest.mark.parametrize("tiled", [True, False])
def test_the_light_is_the_same_whatever_the_tile(monkeypatch, tiled):
    """Not cut, cut into few, and into many; with detail of the tiles, and of the picture."""
    monkeypatch.setattr("urushi.inference.restorer.leaves_detail", lambda _: not tiled)
    x, y = np.meshgrid(np.linspace(0.2, 0.9, 992), np.linspace(0, 0.2, 624))
    picture = np.repeat((x + y / 2)[..., None], 3, axis=2)
    picture += 0.02 * np.random.default_rng(1).standard_normal(picture.shape)
    picture = np.clip(picture, 0, 1).astype(np.float32)

    def found(tile):
        restorer = Restorer.from_engine(SizeEngine(), tile=tile)
        restorer._wide = True
        return restorer.restore(picture)

    whole = found(1024)
    assert np.abs(whole - picture).mean() > 10 / 255
    for tile in (None, 320, 96):
        off = (found(tile) - whole).reshape(39, 16, 62, 16, 3).mean((1, 3))
        assert np.abs(off).max() < (1 / 255 if tiled else 1e-7)


def test_little_memory_gets_a_smaller_version_and_the_same_light():
    x, y = np.meshgrid(np.linspace(0.2, 0.9, 420), np.linspace(0, 0.2, 300))
    picture = np.repeat((x + y / 2)[..., None], 3, axis=2).astype(np.float32)
    whole = wide_restorer().restore(picture)
    little = wide_restorer()
    little._at_once, little._whole, little.tile = 100 * 100, 0, 96
    found = little.restore(picture)
    assert max(little.engine.sides) <= 128
    # Tiles alone would have been far from it.
    alone = wide_restorer().restore(picture[:96, :96])
    off = np.abs(found - whole)[:96, :96].mean()
    assert off < 0.1 * np.abs(alone - whole[:96, :96]).mean()


def test_without_room_the_sentence_names_the_way_out(monkeypatch):
    def full(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("urushi.inference.overview.tempfile.TemporaryFile", full)
    with pytest.raises(UnreadableError, match=r"No space left on device\): make room"):
        Spool(10, 2)
