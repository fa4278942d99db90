"""The restorer on arrays: what goes in, what comes out, and what happens when something fails."""

import numpy as np
import pytest
from networks import DarkenEngine
from safetensors.numpy import save_file

from urushi.errors import (
    EngineError,
    FileFormatError,
    OutOfMemoryError,
    PictureError,
    UnreadableError,
    UrushiError,
)
from urushi.inference.arrays import as_layers, problem_in_int8
from urushi.inference.engines.base import Precision
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import find_model, zoo_names


class LocalEngine:
    """Executes a small convolution: deterministic, local, and of any size."""

    name = "local"
    device = "cpu"
    precision: Precision = "float32"
    scale = 1
    fixed_patch = None

    def __init__(self, *, size_multiple=1, most_pixels=None, bytes_per_pixel=1000.0):
        self.size_multiple = size_multiple
        self.bytes_per_pixel = bytes_per_pixel
        self.most_pixels = most_pixels
        self.shapes = []

    def run(self, batch):
        assert batch.dtype == np.float32
        assert batch.ndim == 4
        assert all(side % self.size_multiple == 0 for side in batch.shape[2:])
        if self.most_pixels is not None and batch.shape[2] * batch.shape[3] > self.most_pixels:
            raise OutOfMemoryError("too large")
        self.shapes.append(batch.shape[2:])
        padded = np.pad(batch, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
        neighbours = (
            padded[:, :, :-2, 1:-1]
            + padded[:, :, 2:, 1:-1]
            + padded[:, :, 1:-1, :-2]
            + padded[:, :, 1:-1, 2:]
        )
        return np.float32(0.6) * batch + np.float32(0.1) * neighbours

    def in_float32(self):
        return self


class SameEngine(LocalEngine):
    def run(self, batch):
        self.shapes.append(batch.shape[2:])
        return batch.copy()


class FaultyEngine(LocalEngine):
    """Gives `wrong` in every tile; its float32 counterpart is sound unless told otherwise."""

    precision: Precision = "bf16"

    def __init__(self, wrong, sound_in_float32=True):
        super().__init__()
        self.wrong = wrong
        self.counterpart = LocalEngine() if sound_in_float32 else self
        self.asked = 0

    def run(self, batch):
        return np.full_like(batch, self.wrong)

    def in_float32(self):
        self.asked += 1
        return self.counterpart


def random_picture(*shape, dtype="float32"):
    generator = np.random.default_rng(sum(shape))
    values = generator.random(shape)
    if np.dtype(dtype).kind == "u":
        values = values * np.iinfo(dtype).max
    return values.astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(37, 50), (37, 50, 1), (37, 50, 3), (37, 50, 4)])
def test_shape_dtype_and_values_come_back(shape, dtype):
    picture = random_picture(*shape, dtype=dtype)
    before = picture.copy()
    result = Restorer.from_engine(SameEngine(size_multiple=8), tile=32, overlap=8).restore(picture)
    assert result.shape == shape
    assert result.dtype == dtype
    np.testing.assert_array_equal(picture, before)
    # An engine that changes nothing gives integers back exactly.
    np.testing.assert_allclose(result, picture, atol=0 if result.dtype.kind == "u" else 1e-6)


def test_alpha_is_untouched_while_colours_are_restored():
    picture = random_picture(40, 40, 4, dtype="uint16")
    result = Restorer.from_engine(LocalEngine()).restore(picture)
    np.testing.assert_array_equal(result[:, :, 3], picture[:, :, 3])
    colours = Restorer.from_engine(LocalEngine()).restore(picture[:, :, :3])
    np.testing.assert_array_equal(result[:, :, :3], colours)
    assert (colours != picture[:, :, :3]).any()


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (90, 1), (3, 7), (64, 64), (65, 129)])
@pytest.mark.parametrize("multiple", [1, 16])
def test_any_size_comes_back(shape, multiple):
    picture = random_picture(*shape, 3)
    engine = SameEngine(size_multiple=multiple)
    result = Restorer.from_engine(engine, tile=64).restore(picture)
    np.testing.assert_allclose(result, picture, atol=1e-6)


def test_views_with_strides_are_pictures_too():
    picture = random_picture(60, 70, 3)[::-1, ::2]
    result = Restorer.from_engine(SameEngine()).restore(picture)
    np.testing.assert_allclose(result, picture, atol=1e-6)


def test_tiles_equal_the_whole_picture():
    picture = random_picture(201, 333, 3)
    whole = Restorer.from_engine(LocalEngine())
    tiled = Restorer.from_engine(LocalEngine(), tile=64, overlap=16)
    assert whole.plan(201, 333).count == 1
    assert tiled.plan(201, 333).count > 20
    np.testing.assert_allclose(tiled.restore(picture), whole.restore(picture), atol=1e-6)


def test_streamed_rows_equal_the_array():
    picture = random_picture(150, 90, 3)
    restorer = Restorer.from_engine(LocalEngine(), tile=64, overlap=16)
    position = 0

    def read(count):
        nonlocal position
        rows = picture[position : position + min(count, 13)]
        position += len(rows)
        return rows

    rows = np.concatenate(list(restorer.restore_rows(read, 90, 150)))
    np.testing.assert_array_equal(rows, restorer.restore(picture))


class StretchingEngine(LocalEngine):
    """Makes contrasts half as large again, beyond black and white."""

    def run(self, batch):
        return np.float32(1.5) * batch - np.float32(0.25)


def test_results_stay_within_black_and_white():
    picture = random_picture(30, 30, 3)
    result = Restorer.from_engine(StretchingEngine()).restore(picture)
    np.testing.assert_allclose(result, np.clip(1.5 * picture - 0.25, 0, 1), atol=1e-6)
    assert (result.min(), result.max()) == (0, 1)


def test_what_lies_beyond_black_and_white_comes_back():
    picture = random_picture(30, 30, 3) * 3 - 1
    result = Restorer.from_engine(SameEngine()).restore(picture)
    np.testing.assert_allclose(result, picture, atol=1e-4)


def test_progress_reaches_the_end_and_never_goes_back():
    seen = []
    restorer = Restorer.from_engine(LocalEngine(), tile=64, overlap=16)
    restorer.restore(random_picture(130, 90, 3), lambda done, total: seen.append((done, total)))
    assert len(seen) == restorer.plan(130, 90).count
    assert seen == sorted(seen)
    assert seen[-1] == (130 * 90, 130 * 90)


@pytest.mark.parametrize(
    ("picture", "match"),
    [
        (np.zeros((4, 4, 2), np.uint8), "1, 3 or 4 channels"),
        (np.zeros((3, 40, 40), np.float32), "reorder"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (np.zeros((4, 4, 3), bool), "bool"),
        (np.zeros((4, 4), np.complex64), "complex64"),
        (np.full((4, 4, 3), np.nan, np.float32), "NaN"),
        (np.full((4, 4), np.inf), "infinite"),
        (np.full((4, 4, 3), 200.0, np.float32), "255"),
    ],
)
def test_what_is_no_picture_is_refused(picture, match):
    with pytest.raises(PictureError, match=match):
        Restorer.from_engine(LocalEngine()).restore(picture)


def test_streamed_nan_is_refused():
    restorer = Restorer.from_engine(LocalEngine())
    rows = restorer.restore_rows(lambda n: np.full((n, 8, 3), np.nan, np.float32), 8, 8)
    with pytest.raises(PictureError, match="NaN"):
        list(rows)


def test_a_stream_that_ends_early_is_refused():
    restorer = Restorer.from_engine(LocalEngine())
    with pytest.raises(UnreadableError, match="0 of 8 rows"):
        list(restorer.restore_rows(lambda n: np.zeros((0, 8, 3), np.float32), 8, 8))


@pytest.mark.parametrize("whole", [True, False])
def test_out_of_memory_is_answered_by_smaller_tiles(whole):
    picture = random_picture(300, 260, 3)
    engine = LocalEngine(most_pixels=64 * 64)
    restorer = Restorer.from_engine(engine, tile=None if whole else 200, overlap=32)
    assert (restorer.plan(300, 260).count == 1) is whole
    result = restorer.restore(picture)
    expected = Restorer.from_engine(LocalEngine()).restore(picture)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    # The next picture begins with what is known to fit.
    tile = restorer.describe()["tile"]
    assert isinstance(tile, int)
    assert tile < 100
    engine.shapes.clear()
    np.testing.assert_allclose(restorer.restore(picture), expected, atol=1e-6)
    assert len(engine.shapes) == restorer.plan(300, 260).count


def test_memory_that_runs_out_midway_spoils_no_row():
    picture = random_picture(400, 100, 3)
    engine = LocalEngine()
    restorer = Restorer.from_engine(engine, tile=96, overlap=16)

    def progress(done, total):
        if done > total // 2:
            engine.most_pixels = 64 * 64

    result = restorer.restore(picture, progress)
    expected = Restorer.from_engine(LocalEngine()).restore(picture)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    assert max(engine.shapes) > (64, 64)
    assert engine.shapes[-1] <= (64, 64)


def test_out_of_memory_at_the_smallest_tile_is_told():
    restorer = Restorer.from_engine(LocalEngine(most_pixels=1))
    with pytest.raises(OutOfMemoryError, match=r"tile of \d+ pixels.*close other programs"):
        restorer.restore(random_picture(300, 300, 3))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 0.5])
def test_an_unusable_result_is_tried_once_more_in_float32(wrong):
    picture = random_picture(130, 90, 3)
    engine = FaultyEngine(wrong)
    restorer = Restorer.from_engine(engine, tile=64)
    expected = Restorer.from_engine(LocalEngine(), tile=64).restore(picture)
    np.testing.assert_array_equal(restorer.restore(picture), expected)
    restorer.restore(picture)
    assert engine.asked == 1


@pytest.mark.parametrize("wrong", [np.nan, -np.inf, 0.5])
def test_an_engine_that_stays_unusable_is_told(wrong):
    restorer = Restorer.from_engine(FaultyEngine(wrong, sound_in_float32=False))
    with pytest.raises(EngineError, match="even in float32"):
        restorer.restore(random_picture(20, 20, 3))


def test_a_flat_picture_may_stay_flat():
    picture = np.full((20, 20, 3), 0.25, np.float32)
    result = Restorer.from_engine(FaultyEngine(0.5, sound_in_float32=False)).restore(picture)
    assert (result == 0.5).all()


def test_the_tile_is_chosen_from_the_memory():
    few = Restorer.from_engine(LocalEngine(), memory_limit=20_000_000)
    many = Restorer.from_engine(LocalEngine(), memory_limit=10_000_000_000)
    assert few.tile == 128
    assert few.plan(136, 136).count == 1
    assert few.plan(150, 150).count > 1
    largest = few.plan(3000, 4000)
    assert largest.rows.size * largest.columns.size * 1000 <= 20_000_000
    assert 256 <= many.tile <= 1024
    # However little there is, the work is tried.
    assert Restorer.from_engine(LocalEngine(), memory_limit=1).tile == 64


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tile": 0}, "tile is 0"),
        ({"tile": -64}, "tile is -64"),
        ({"tile": 7}, "at least 8"),
        ({"tile": 64, "overlap": 33}, "half of the tile"),
        ({"overlap": -1}, "overlap is -1"),
        ({"memory_limit": 0}, "memory_limit"),
    ],
)
def test_options_that_cannot_be_are_refused(options, match):
    with pytest.raises(EngineError, match=match):
        Restorer.from_engine(LocalEngine(size_multiple=8), **{"overlap": 0, **options})


def test_describe_names_what_is_used():
    description = Restorer.from_engine(
        LocalEngine(size_multiple=8), tile=100, overlap=20
    ).describe()
    assert description == {
        "engine": "local",
        "device": "cpu",
        "precision": "float32",
        "tile": 96,
        "overlap": 20,
        "adapters": [],
    }


@pytest.mark.parametrize("name", ["nosuch", "", "zoo/../nosuch.safetensors"])
def test_an_unknown_model_lists_those_there_are(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileFormatError, match="names are") as caught:
        Restorer(name)
    for known in zoo_names():
        assert known in str(caught.value)


def test_a_model_is_found_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.safetensors"
    save_file({"a": np.zeros(1, np.float32)}, path)
    assert find_model(path) == path
    assert find_model("mine.safetensors").samefile(path)
    with pytest.raises(UrushiError, match=r"mine\.safetensors"):
        Restorer(path)


def test_shipped_names_are_found():
    for name in zoo_names():
        assert find_model(name).stem == name


@pytest.mark.parametrize("sign", [1, -1])
def test_values_of_another_range_are_those_beyond_eight(sign):
    bright = np.zeros((4, 5, 3), np.float32)
    bright[0, 0] = sign * 8
    assert as_layers(bright).shape == (4, 5, 3)
    bright[0, 0] = np.nextafter(np.float32(sign * 8), np.float32(sign * 9))
    with pytest.raises(PictureError, match=r"expected \[0, 1\]"):
        as_layers(bright)


class Shifted(DarkenEngine):
    """Adds a fixed amount, as if rounding did; in float32 it adds nothing."""

    def __init__(self, by):
        super().__init__()
        self.by = np.float32(by)

    def run(self, batch):
        return batch + self.by

    def in_float32(self):
        return Shifted(0)


@pytest.mark.parametrize(("by", "noticed"), [(0.0099, False), (-0.0099, False), (0.0101, True)])
def test_int8_may_be_off_by_forty_decibels(by, noticed):
    tile = np.full((3, 40, 60), 0.5, np.float32)
    tile[:, ::2] = 0.4
    assert bool(problem_in_int8(Shifted(by), tile)) == noticed
    # What is cut off at white is not seen.
    assert not problem_in_int8(Shifted(0.5), np.ones((3, 40, 60), np.float32))
