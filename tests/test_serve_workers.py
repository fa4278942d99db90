"""Workers: what becomes of a task when its process dies, takes too long, or is told to stop."""

import os
import signal
import threading

import pytest
from serve_support import write

from urushi.serve.runs import QueueFullError, Task, TaskCancelledError, TaskFailedError
from urushi.serve.workers import Lane


@pytest.fixture
def lane():
    lane = Lane("test", {"engine": {"threads": 1}}, 2, lazily=True)
    lane.start()
    yield lane
    lane.stop(30)
    assert lane.pid is None


@pytest.fixture
def small(tmp_path):
    return write(tmp_path / "small.png")


def inspecting(path, seconds=60.0, **told):
    return Task("inspect", {"source": str(path), "max_pixels": 10**6}, seconds, **told)


def test_a_task_is_done_in_another_process(lane, small):
    lane.submit(task := inspecting(small))
    assert task.future.result(120)["width"] == 64
    assert lane.pid not in (None, os.getpid())


def test_an_error_of_ours_comes_back_by_name(lane, tmp_path):
    lane.submit(task := inspecting(tmp_path / "none.png"))
    with pytest.raises(TaskFailedError, match=r"none\.png") as failed:
        task.future.result(120)
    assert failed.value.kind == "UnreadableError"


def test_one_that_dies_fails_its_task_and_is_replaced(lane, small):
    lane.submit(first := inspecting(small))
    first.future.result(120)
    before = lane.pid

    def kill():
        os.kill(lane.pid, signal.SIGKILL)

    lane.submit(killed := inspecting(small, on_start=kill))
    lane.submit(after := inspecting(small))
    with pytest.raises(TaskFailedError) as failed:
        killed.future.result(120)
    assert failed.value.kind == "died"
    assert after.future.result(120)["width"] == 64
    assert lane.pid != before
    assert lane.deaths == 1


def test_one_that_dies_while_it_waits_fails_nothing(lane, small):
    lane.submit(first := inspecting(small))
    first.future.result(120)
    process = lane._process
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    lane.submit(after := inspecting(small))
    assert after.future.result(120)["width"] == 64


def test_one_that_takes_too_long_is_ended(lane, small):
    # Which brings the engine, so that it takes longer than no time.
    arguments = {"source": str(small), "max_pixels": 10**6}
    lane.submit(task := Task("look", arguments, 0.0))
    with pytest.raises(TaskFailedError, match="longer than") as failed:
        task.future.result(120)
    assert failed.value.kind == "time"
    lane.submit(after := inspecting(small))
    assert after.future.result(120)["width"] == 64


def test_what_waits_can_be_cancelled(lane, small):
    held = threading.Event()
    lane.submit(inspecting(small, on_start=held.wait))
    lane.submit(task := inspecting(small))
    task.cancel()
    held.set()
    with pytest.raises(TaskCancelledError):
        task.future.result(120)


def test_a_restoration_that_runs_can_be_cancelled(lane, tmp_path):
    large = write(tmp_path / "large.png", height=600, width=600)
    running = threading.Event()
    arguments = {
        "source": str(large), "target": str(tmp_path / "out"), "wish": {"task": "none"},
        "max_pixels": 10**9, "levels": None,
    }  # fmt: skip
    task = Task("restore", arguments, 600, on_progress=lambda said: running.set(), group="all")
    lane.submit(task)
    assert running.wait(120)
    task.cancel()
    with pytest.raises(TaskCancelledError):
        task.future.result(120)
    assert not (tmp_path / "out" / "large.png").exists()


def test_no_more_wait_than_may(small):
    lane = Lane("full", {}, 2, lazily=True)
    tasks = [inspecting(small) for _ in range(2)]
    for task in tasks:
        lane.submit(task)
    with pytest.raises(QueueFullError):
        lane.submit(inspecting(small))
    tasks[0].cancel()
    lane.submit(inspecting(small))
    assert lane.depth == 2


def test_when_it_ends_what_waits_fails_and_nothing_is_taken(small):
    lane = Lane("ending", {"engine": {"threads": 1}}, 4, lazily=True)
    held, begun = threading.Event(), threading.Event()

    def begin():
        begun.set()
        held.wait()

    lane.submit(running := inspecting(small, on_start=begin))
    lane.submit(waiting := inspecting(small))
    lane.start()
    assert begun.wait(120)
    ending = threading.Thread(target=lane.stop, args=(120,))
    ending.start()
    held.set()
    assert running.future.result(120)["width"] == 64
    with pytest.raises(TaskFailedError) as failed:
        waiting.future.result(120)
    assert failed.value.kind == "stopped"
    ending.join(120)
    with pytest.raises(QueueFullError):
        lane.submit(inspecting(small))


def restoring(folder, path, group="all", **told):
    arguments = {
        "source": str(path), "target": str(folder / path.stem), "wish": {"task": "none"},
        "max_pixels": 10**9, "levels": None,
    }  # fmt: skip
    return Task("restore", arguments, 600, group=group, **told)


def test_those_of_a_group_are_done_together_and_each_ends_on_its_own(lane, tmp_path):
    held = threading.Event()
    paths = [write(tmp_path / f"{i}.png", shift=float(i)) for i in range(4)]
    paths[1].write_bytes(b"this is no picture")
    lane.submit(first := inspecting(paths[0], on_start=held.wait))
    lane.capacity = 10
    tasks = [restoring(tmp_path, path) for path in paths]
    for task in tasks:
        lane.submit(task)
    tasks[2].cancel()
    held.set()
    assert first.future.result(120)["width"] == 64
    for index in (0, 3):
        made = tasks[index].future.result(120)["target"]
        assert made == str(tmp_path / str(index) / f"{index}.png")
    with pytest.raises(TaskFailedError, match=r"1\.png"):
        tasks[1].future.result(120)
    with pytest.raises(TaskCancelledError):
        tasks[2].future.result(120)


def test_when_one_of_a_group_ends_the_worker_the_others_are_done(lane, tmp_path):
    paths = [write(tmp_path / f"{i}.png", shift=float(i)) for i in range(3)]
    lane.capacity = 10
    held = threading.Event()
    lane.submit(inspecting(paths[0], on_start=held.wait))

    def kill():
        os.kill(lane.pid, signal.SIGKILL)

    tasks = [restoring(tmp_path, path) for path in paths]
    tasks[0].on_start = kill
    for task in tasks:
        lane.submit(task)
    held.set()
    with pytest.raises(TaskFailedError) as failed:
        tasks[0].future.result(120)
    assert failed.value.kind == "died"
    for task in tasks[1:]:
        assert task.future.result(120)["pixels"] == 64 * 48
