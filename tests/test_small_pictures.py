"""Many small pictures: told in order, none harmed by its neighbours, few in memory at a time."""

import threading

import numpy as np
import pytest
from networks import DarkenEngine

from urushi.errors import UrushiError
from urushi.files.model import read_model
from urushi.image import read_picture, write_picture
from urushi.inference.batch import Job, plan_batch, run_batch
from urushi.inference.engines import create_engine
from urushi.inference.lanes import Ahead, Behind, InOrder
from urushi.inference.restorer import Restorer


@pytest.fixture(scope="module")
def model(exported):
    return read_model(exported)


def pictures(folder, sizes):
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number, (height, width) in enumerate(sizes):
        write_picture(
            folder / f"{number:02}.png", random.random((height, width, 3), dtype=np.float32)
        )
    return folder


def told(jobs, restorer):
    events = []
    report = run_batch(restorer, jobs, on_event=events.append)
    return report, events


SIZES = [(40, 52), (260, 264), (33, 70), (40, 52), (280, 240), (1, 9), (300, 310)]


@pytest.mark.processor
def test_a_picture_does_not_depend_on_its_neighbours(tmp_path, model):
    folder = pictures(tmp_path / "in", SIZES)
    restorer = Restorer(model, engine="openvino")
    together = run_batch(restorer, plan_batch([folder], tmp_path / "together"))
    assert together.count("restored") == len(SIZES)
    for result in reversed(together.results):
        (job,) = plan_batch([result.source], tmp_path / "alone" / result.source.name)
        assert run_batch(Restorer(model, engine="openvino"), [job]).ok
        assert job.target.read_bytes() == result.target.read_bytes()


@pytest.mark.processor
def test_what_is_compiled_for_a_size_gives_the_same_up_to_rounding(model):
    engine = create_engine(model, engine="openvino")
    image = np.random.default_rng(1).random((1, 3, 264, 272), dtype=np.float32)
    given = np.abs(engine.run(image) - image).max()
    np.testing.assert_allclose(engine.run_few(image), engine.run(image), atol=1e-4)
    assert given > 0.01


@pytest.mark.processor
def test_an_engine_that_rested_gives_the_same(model):
    engine = create_engine(model, engine="openvino")
    image = np.random.default_rng(1).random((1, 3, 40, 48), dtype=np.float32)
    before = engine.run(image)
    engine.rest()
    np.testing.assert_array_equal(engine.run(image), before)


def test_all_is_told_in_order_and_who_fails_fails_alone(tmp_path):
    folder = pictures(tmp_path / "in", [(30, 40)] * 8)
    (folder / "02.png").write_bytes(b"no picture")
    whole = (folder / "03.png").read_bytes()
    (folder / "03.png").write_bytes(whole[: len(whole) // 2])
    jobs = plan_batch([folder], tmp_path / "out")
    # One fails when it is written, long after its source was read.
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    jobs[5] = Job(jobs[5].source, blocked / "05.png")
    report, events = told(jobs, Restorer.from_engine(DarkenEngine(), tile=64))
    assert [r.source.name for r in report.results] == [f"{n:02}.png" for n in range(8)]
    failed = [n for n, r in enumerate(report.results) if r.status == "failed"]
    assert failed == [2, 3, 5]
    assert "blocked" in report.results[5].message
    indices = [event.index for event in events]
    assert indices == sorted(indices)
    for number in range(8):
        own = [event for event in events if event.index == number]
        assert (own[0].done, own[0].result) == (0, None)
        assert [event.result for event in own if event.result] == [report.results[number]]
        assert own[-1].result is not None
    for result in report.results:
        if result.status == "restored":
            np.testing.assert_allclose(
                read_picture(result.target), read_picture(result.source) / 2, atol=0.6 / 255
            )


def test_an_interruption_keeps_what_was_restored_before(tmp_path):
    folder = pictures(tmp_path / "in", [(30, 40)] * 6)
    engine = DarkenEngine(healthy=4, failure=KeyboardInterrupt())
    report, events = told(
        plan_batch([folder], tmp_path / "out"), Restorer.from_engine(engine, tile=64)
    )
    assert report.interrupted
    assert [r.status for r in report.results] == ["restored"] * 4
    assert [e.result for e in events if e.result] == report.results
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [f"{n:02}.png" for n in range(4)]


def test_few_are_read_ahead():
    made = []
    with Ahead(range(20), lambda item: made.append(item) or item, ahead=3) as ahead:
        for index in range(10):
            assert ahead.take(index) == index
            assert len(made) <= index + 4
    assert len(made) <= 13


def test_what_cannot_be_read_ahead_is_left_to_its_turn():
    def make(item):
        if item == 1:
            raise UrushiError("broken")
        return item

    with Ahead(range(3), make) as ahead:
        assert [ahead.take(index) for index in range(3)] == [0, None, 2]


def test_few_wait_to_be_written_and_are_told_in_order():
    going, seen, waiting = threading.Event(), [], []

    def part(number):
        going.wait(600)
        waiting.remove(number)
        if number == 3:
            raise UrushiError("full")
        return number

    def done(note, result):
        try:
            seen.append((note, result()))
        except UrushiError as error:
            seen.append((note, str(error)))

    with Behind(done, most=2) as behind:
        for number in range(6):
            waiting.append(number)
            behind.add(number, lambda number=number: part(number))
            assert len(waiting) <= 3
            if number == 1:
                assert seen == []
                going.set()
        behind.finish()
    assert seen == [(0, 0), (1, 1), (2, 2), (3, "full"), (4, 4), (5, 5)]


def test_events_wait_for_those_before():
    seen = []
    order = InOrder(seen.append)
    order.tell(0, "begin 0")
    order.tell(1, "begin 1")
    order.tell(2, "begin 2")
    order.tell(1, "half 1")
    assert seen == ["begin 0"]
    order.tell(0, "end 0", last=True)
    assert seen == ["begin 0", "end 0", "begin 1", "half 1"]
    order.tell(1, "end 1", last=True)
    assert seen[-2:] == ["end 1", "begin 2"]
