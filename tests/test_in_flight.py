"""Tiles restored side by side: the same picture, the same notes and errors as one by one."""

import threading
from collections.abc import Generator

import numpy as np
import pytest
from test_restorer import LocalEngine

from urushi.errors import EngineError, OutOfMemoryError, PictureError
from urushi.inference import restorer as module
from urushi.inference.engines.base import Precision
from urushi.inference.restorer import Restorer

SIDES = (150, 210)


@pytest.fixture(autouse=True)
def _every_picture_is_large(monkeypatch):
    monkeypatch.setattr(module, "WORTH_COMPILING", 0)


class ManyLanes(LocalEngine):
    """Restores tiles side by side, the first of them last."""

    def __init__(self, lanes=3, precision: Precision = "float32"):
        super().__init__()
        self.lanes = lanes
        self.precision: Precision = precision
        self.threads = set()
        self._others = threading.Semaphore(0)

    def run_beside(self, batch):
        self.threads.add(threading.current_thread().name)
        if len(self.threads) == 1:
            self._others.acquire(timeout=5)
        self._others.release()
        return self.run(batch)


def picture(beyond=False):
    image = np.random.default_rng(0).random((*SIDES, 3)).astype(np.float32)
    if beyond:
        image[20:40, 30:60] = 1.7
        image[120:, 100:] = -0.4
    return image


def restored(engine, image):
    made = Restorer.from_engine(engine, tile=64, overlap=8)
    return made.restore(image), made.notes


@pytest.mark.parametrize("beyond", [False, True])
@pytest.mark.parametrize("lanes", [2, 5])
def test_the_result_is_that_of_one_by_one(lanes, beyond):
    image, engine = picture(beyond), ManyLanes(lanes)
    expected, _ = restored(LocalEngine(), image)
    result, notes = restored(engine, image)
    np.testing.assert_array_equal(result, expected)
    assert notes == []
    assert len(engine.threads) > 1
    assert threading.current_thread().name not in engine.threads


class Spoils(ManyLanes):
    """Gives no numbers in bf16 from a certain tile on: the one that holds the mark."""

    def __init__(self):
        super().__init__(3, "bf16")
        self.exact = LocalEngine()

    def run(self, batch):
        result = super().run(batch)
        return result * np.nan if (batch == 0.125).any() else result

    def in_float32(self):
        return self.exact


def test_from_an_unusable_tile_on_all_are_restored_in_float32():
    image = picture()
    image[70, 100] = 0.125
    engine = Spoils()
    made = Restorer.from_engine(engine, tile=64, overlap=8)
    made.restore(image)
    told = made.notes
    assert len(told) == 1
    assert "restored in float32" in told[0]
    before = made.plan(*SIDES)
    first = next(
        row * len(before.columns.starts) + column
        for row, top in enumerate(before.rows.starts)
        for column, left in enumerate(before.columns.starts)
        if top <= 70 < top + before.rows.size and left <= 100 < left + before.columns.size
    )
    assert len(engine.exact.shapes) == before.count - first


class Fails(ManyLanes):
    def __init__(self, error):
        super().__init__(2)
        self.error = error

    def run(self, batch):
        if batch.max() > 0.9999:
            raise self.error
        return super().run(batch)


def test_errors_are_raised_and_threads_end():
    before = threading.active_count()
    with pytest.raises(EngineError, match="broken"):
        restored(Fails(EngineError("broken")), picture())
    image = picture()
    image[149, 209] = np.nan
    with pytest.raises(PictureError, match="NaN"):
        restored(ManyLanes(2), image)
    assert threading.active_count() == before


def test_memory_that_runs_out_beside_others_is_found_one_by_one():
    class Small(ManyLanes):
        def run_beside(self, batch):
            raise OutOfMemoryError("no memory for several")

    result, _ = restored(Small(2), picture())
    np.testing.assert_array_equal(result, restored(LocalEngine(), picture())[0])


def test_a_reader_that_goes_away_leaves_no_thread():
    before = threading.active_count()
    image, position = picture(), 0

    def read(count):
        nonlocal position
        rows = image[position : position + count]
        position += len(rows)
        return rows

    made = Restorer.from_engine(ManyLanes(2), tile=64, overlap=8)
    rows = made.restore_rows(read, SIDES[1], SIDES[0])
    assert isinstance(rows, Generator)
    next(rows)
    rows.close()
    assert threading.active_count() == before


def test_memory_limits_how_many_are_restored_at_once():
    engine = ManyLanes(3)
    made = Restorer.from_engine(
        engine, tile=64, overlap=8, memory_limit=int(engine.bytes_per_pixel * 64 * 64)
    )
    made.restore(picture())
    assert not engine.threads


def test_openvino_gives_the_same_bits_beside_others():
    pytest.importorskip("openvino")
    from concurrent.futures import ThreadPoolExecutor

    from urushi.files.model import read_model
    from urushi.inference.engines.openvino_engine import OpenVINOEngine
    from urushi.inference.zoo import ZOO

    engine = OpenVINOEngine(read_model(ZOO / "base.safetensors"), threads=2)
    assert engine.lanes == 2
    batches = np.random.default_rng(1).random((3, 1, 3, 72, 64), dtype=np.float32)
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(engine.run_beside, batches))
    # On all threads, and on those of a lane.
    np.testing.assert_array_equal([engine.run(batch) for batch in batches], found)
    engine.rest()
    np.testing.assert_array_equal(engine.run_beside(batches[0]), found[0])
