"""Workers: processes that read pictures and run networks, replaced when they die.

A lane has one process and a queue of tasks. The process is spawned, so nothing of this one is in
it; whatever happens there, from a fault in a decoder to memory that runs out, fails the task that
it was at, and the next one gets a new process.
"""

import contextlib
import logging
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import Any

from urushi.serve.tasks import work

__all__ = ["Lane", "QueueFullError", "Task", "TaskCancelledError", "TaskFailedError"]

logger = logging.getLogger(__name__)

_POLL = 0.1
# A worker is given so long to stop a task by itself, and to come up.
_GRACE, _STARTING = 5.0, 300.0
_BACKOFF = 2.0

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
        name: of a function of `urushi.serve.tasks.TASKS`.
        arguments: of that, which can be pickled.
        seconds: that it may run.
        on_start: told, on the lane's thread, that it runs now.
        on_progress: told, on the lane's thread, of what the worker says meanwhile.

    Attributes:
        future: what becomes of it; its exceptions are `TaskFailedError` and `TaskCancelledError`.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any],
        seconds: float | int,
        on_start: Callable[[], Any] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.name, self.arguments, self.seconds = name, dict(arguments), seconds
        self.on_start = on_start or (lambda: None)
        self.on_progress = on_progress or (lambda said: None)
        self.future: Future[Any] = Future()
        self.cancelled = threading.Event()

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


class Lane:
    """A worker and its queue.

    Args:
        name: for logs and messages.
        options: of the worker; see `urushi.serve.tasks.work`.
        capacity: tasks that wait at most.
        lazily: start the process with the first task.

    Attributes:
        ready: whether the process has come up.
        problem: why it has not, if it has not.
        running: whether it is at a task.
        seconds: that a task takes, on average.
        deaths: processes that died at a task.
    """

    def __init__(
        self, name: str, options: Mapping[str, Any], capacity: int, *, lazily: bool = False
    ) -> None:
        self.name, self._options, self.capacity, self._lazily = (
            name,
            dict(options),
            capacity,
            lazily,
        )
        self._waiting: deque[Task] = deque()
        self._changed = threading.Condition()
        self._stopping = self._hurried = False
        self._process: Any = None
        self._pipe: Connection | None = None
        self._thread = threading.Thread(target=self._serve, name=f"lane {name}", daemon=True)
        self.ready = self.running = False
        self.problem = ""
        self.seconds, self.deaths = 1.0, 0

    def start(self) -> None:
        """Begins to serve; the process comes up in the background."""
        self._thread.start()

    @property
    def depth(self) -> int:
        """How many tasks wait."""
        with self._changed:
            return sum(not task.cancelled.is_set() for task in self._waiting)

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def submit(self, task: Task) -> None:
        """Puts a task at the end of the queue.

        Raises:
            QueueFullError: so many wait already, or the service ends.
        """
        with self._changed:
            while self._waiting and self._waiting[0].cancelled.is_set():
                self._waiting.popleft().end(error=TaskCancelledError())
            waiting = sum(not other.cancelled.is_set() for other in self._waiting)
            if self._stopping or waiting >= self.capacity:
                raise QueueFullError
            self._waiting.append(task)
            self._changed.notify_all()

    def refuse(self) -> None:
        """Takes no more tasks, and fails those that wait; the one that runs comes to its end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._changed:
            return not self.running and not self._waiting

    def stop(self, seconds: float | int) -> None:
        """Lets the running task come to its end within that time, and fails those that wait."""
        self.refuse()
        if self._thread.is_alive():
            self._thread.join(seconds)
        self._hurried = True
        if self._thread.is_alive():
            self._thread.join(_GRACE)

    # --- the lane's thread ---

    def _serve(self) -> None:
        if not self._lazily:
            self._start()
        while (task := self._next()) is not None:
            if self._pipe is None:
                self._start()
            if self._pipe is None:
                task.end(
                    error=TaskFailedError(
                        "EngineError", self.problem or "the worker does not start"
                    )
                )
            else:
                self._do(task, self._pipe)
        self._end()

    def _next(self) -> Task | None:
        """The next task; None at the end, when those that wait have failed."""
        while True:
            if not self._lazily and not self._stopping and self._gone():
                self._end()
                self._start()
            with self._changed:
                if not self._waiting and not self._stopping:
                    self._changed.wait(1.0)
                if self._stopping:
                    for task in self._waiting:
                        task.end(error=TaskFailedError("stopped", "the service is being stopped"))
                    self._waiting.clear()
                    return None
                task = self._waiting.popleft() if self._waiting else None
            if task is None:
                continue
            if task.cancelled.is_set():
                task.end(error=TaskCancelledError())
                continue
            if self._gone():
                self._end()
            return task

    def _gone(self) -> bool:
        """Whether there is no process that lives."""
        process = self._process
        return process is None or not process.is_alive()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        pipe, other = context.Pipe()
        process = context.Process(
            target=work, args=(other, self._options), name=f"urushi {self.name}", daemon=True
        )
        try:
            process.start()
        except OSError as error:
            self.problem = f"a worker cannot be started ({error.strerror or error})"
            logger.error("%s", self.problem)
            return
        finally:
            other.close()
        self._process, self._pipe = process, pipe
        until = time.monotonic() + _STARTING
        try:
            while not pipe.poll(_POLL):
                if time.monotonic() > until or self._hurried or not process.is_alive():
                    raise EOFError
            said, what = pipe.recv()
        except (EOFError, OSError):
            said, what = "problem", "the worker ended while it was starting"
        if said == "ready":
            self.ready, self.problem = True, ""
            return
        self.problem = str(what)
        logger.error("worker %s: %s", self.name, self.problem)
        self._end()
        if not self._stopping:
            self._pause(_BACKOFF)

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._stopping:
                self._changed.wait(seconds)

    def _do(self, task: Task, pipe: Connection) -> None:
        begun = time.monotonic()
        self.running = True
        try:
            task.on_start()
            pipe.send((task.name, task.arguments))
            result = self._answer(task, pipe, begun + task.seconds)
        except (TaskFailedError, TaskCancelledError) as error:
            task.end(error=error)
        except (EOFError, OSError):
            self.deaths += 1
            logger.error("worker %s (process %s) died at %s", self.name, self.pid, task.name)
            self._end()
            task.end(
                error=TaskFailedError(
                    "died", "the process that was at it died: try again, or try a smaller picture"
                )
            )
        except Exception as error:
            logger.exception("%s failed unexpectedly", task.name)
            self._end()
            task.end(error=TaskFailedError("fault", f"unexpected {type(error).__name__}"))
        else:
            self.seconds += 0.2 * (time.monotonic() - begun - self.seconds)
            task.end(result)
        finally:
            self.running = False

    def _answer(self, task: Task, pipe: Connection, until: float) -> Any:
        """What the worker says in the end; it is killed where it says nothing in time."""
        asked: float | None = None
        while True:
            if pipe.poll(_POLL):
                said, what = pipe.recv()
                if said == "progress":
                    task.on_progress(what)
                    continue
                if said == "done":
                    return what
                if said == "cancelled":
                    raise TaskCancelledError
                raise TaskFailedError(*what)
            now = time.monotonic()
            if now > until or self._hurried:
                self._end()
                if self._hurried:
                    raise TaskFailedError("stopped", "the service was stopped before it was done")
                raise TaskFailedError("time", f"it took longer than {task.seconds:g} seconds")
            if task.cancelled.is_set() and asked is None:
                asked = now
                pipe.send(("cancel", {}))
            if asked is not None and now > asked + _GRACE:
                self._end()
                raise TaskCancelledError
            if not self._process.is_alive() and not pipe.poll():
                raise EOFError

    def _end(self) -> None:
        """Ends the process, whatever it is at."""
        process, pipe = self._process, self._pipe
        self._process = self._pipe = None
        self.ready = False
        if pipe is not None:
            pipe.close()
        if process is None:
            return
        if not self._stopping or self.running:
            process.kill()
        process.join(_GRACE)
        if process.is_alive():
            process.kill()
            process.join(_GRACE)
        with contextlib.suppress(ValueError):
            process.close()
