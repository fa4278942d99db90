"""What a worker is handed, one task or several of a kind, and what it says of them meanwhile."""

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

__all__ = [
    "EndWorkerError",
    "QueueFullError",
    "Run",
    "Task",
    "TaskCancelledError",
    "TaskFailedError",
]

_POLL = 0.1
# A worker is given so long to stop a task by itself.
_GRACE = 5.0

OnProgress = Callable[[dict[str, Any]], None]


class QueueFullError(Exception):
    """No more tasks are taken at present."""


class TaskCancelledError(Exception):
    """The task was cancelled."""


class TaskFailedError(Exception):
    """The task failed.

    Args:
        kind: name of an exception of `urushi.errors`; `died` for a worker that is gone, `time` for
            one that took too long, `stopped` where the service ends; otherwise a fault of ours.
        sentence: what people are told.
    """

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind, self.sentence = kind, sentence


class Task:
    """One thing for a worker to do.

    Args:
        name: of a function of `urushi.serve.worker_tasks.TASKS`.
        arguments: of that, which can be pickled.
        seconds: that it may run.
        on_start: told, on the lane's thread, that it runs now.
        on_progress: told, on the lane's thread, of what the worker says meanwhile.
        group: tasks of one name and one group may be handed to the worker together, where they
            wait behind one another; None for one that goes alone.

    Attributes:
        alone: it is not handed over with others of its group.
        begun: it has been handed over.
        future: what becomes of it; its exceptions are `TaskFailedError` and `TaskCancelledError`.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        seconds: float | int,
        on_start: Callable[[], Any] | None = None,
        on_progress: OnProgress | None = None,
        group: str | None = None,
    ) -> None:
        self.name, self.arguments, self.seconds = name, dict(arguments), seconds
        self.on_start = on_start or (lambda: None)
        self.on_progress = on_progress or (lambda said: None)
        self.group, self.alone, self.begun = group, False, False
        self.future: Future[Any] = Future()
        self.cancelled = threading.Event()

    def begin(self) -> None:
        """Says that it runs, the first time this is called."""
        if not self.begun and not self.future.done():
            self.begun = True
            self.on_start()

    def cancel(self) -> None:
        """Ends it as soon as that can be."""
        self.cancelled.set()

    def end(self, result: Any = None, error: BaseException | None = None) -> None:
        """Says what became of it; only the first time counts."""
        if self.future.done():
            return
        with contextlib.suppress(Exception):
            if error is None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)


class EndWorkerError(Exception):
    """The worker has to be ended.

    Args:
        error: what becomes of the task that it is at.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Run:
    """Tasks that a worker is handed together.

    Args:
        tasks: one, or several of one name and group.
        pipe: to the worker.
        alive: tells whether it lives.
        hurried: tells whether there is no more time.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        pipe: Connection,
        alive: Callable[[], bool],
        hurried: Callable[[], bool],
    ) -> None:
        self.tasks, self._pipe = tasks, pipe
        self._alive, self._hurried = alive, hurried
        self._index, self._begun = 0, 0.0
        self._asked: float | None = None

    @property
    def current(self) -> Task:
        """What the worker is at."""
        return self.tasks[self._index]

    @property
    def left(self) -> list[Task]:
        """What it has not done."""
        return [task for task in self.tasks if not task.future.done()]

    def carry_out(self) -> None:
        """Hands the tasks to the worker, and says what became of each.

        Raises:
            EndWorkerError: it took too long, or did not stop when it was told to.
            EOFError, OSError: it is gone.
        """
        first = self.tasks[0]
        arguments = first.arguments
        if first.group is not None:
            arguments = {"items": [task.arguments for task in self.tasks]}
        self._turn_to(0)
        self._pipe.send((first.name, arguments))
        while True:
            if not self._pipe.poll(_POLL):
                self._check()
                continue
            said, what = self._pipe.recv()
            if said == "progress":
                self._told(what)
                continue
            self._finished(said, what)
            return

    def _turn_to(self, index: int) -> None:
        self._index, self._begun, self._asked = index, time.monotonic(), None
        self.current.begin()

    def _told(self, facts: dict[str, Any]) -> None:
        index = facts.pop("index", 0)
        if "ended" in facts:
            self._end(self.tasks[index], *facts["ended"])
            return
        if index != self._index:
            self._turn_to(index)
        self.current.on_progress(facts)

    def _finished(self, said: str, what: Any) -> None:
        if said == "cancelled":
            self.current.end(error=TaskCancelledError())
        elif said == "failed":
            for task in self.left:
                self._end(task, said, what)
        elif self.current.group is None:
            self.current.end(what)

    def _end(self, task: Task, said: str, what: Any) -> None:
        if said == "done":
            task.end(what)
        else:
            task.end(error=TaskFailedError(*what))

    def _check(self) -> None:
        now, task = time.monotonic(), self.current
        if self._hurried():
            sentence = "the service was stopped before it was done"
            raise EndWorkerError(TaskFailedError("stopped", sentence))
        if now > self._begun + task.seconds:
            sentence = f"it took longer than {task.seconds:g} seconds"
            raise EndWorkerError(TaskFailedError("time", sentence))
        if task.cancelled.is_set() and not task.future.done():
            if self._asked is None:
                self._asked = now
                self._pipe.send(("cancel", {"index": self._index}))
            elif now > self._asked + _GRACE:
                raise EndWorkerError(TaskCancelledError())
        if not self._alive() and not self._pipe.poll():
            raise EOFError
