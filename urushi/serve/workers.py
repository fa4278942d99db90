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
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any

from urushi.serve.runs import (
    EndWorkerError,
    QueueFullError,
    Run,
    Task,
    TaskCancelledError,
    TaskFailedError,
)
from urushi.serve.worker_tasks import work

__all__ = ["Lane"]

logger = logging.getLogger(__name__)

_POLL = 0.1
# A worker is given so long to end, and to come up.
_GRACE, _STARTING = 5.0, 300.0
_BACKOFF = 2.0
# Tasks of one group that a worker is handed together.
_TOGETHER = 16


class Lane:
    """A worker and its queue.

    Args:
        name: for logs and messages.
        options: of the worker; see `urushi.serve.worker_tasks.work`.
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
        while tasks := self._next():
            if self._pipe is None:
                self._start()
            if self._pipe is None:
                why = self.problem or "the worker does not start"
                for task in tasks:
                    task.end(error=TaskFailedError("EngineError", why))
            else:
                self._do(tasks, self._pipe)
        self._end()

    def _next(self) -> list[Task]:
        """The next tasks; none at the end, when those that wait have failed."""
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
                    return []
                tasks = self._taken()
                # Said at once: nobody is to think that there is nothing to be done.
                self.running = bool(tasks)
            if tasks:
                if self._gone():
                    self._end()
                return tasks

    def _taken(self) -> list[Task]:
        """The first task that waits, and those of its group behind it."""
        taken: list[Task] = []
        while self._waiting and len(taken) < _TOGETHER:
            task = self._waiting[0]
            if task.cancelled.is_set():
                task.end(error=TaskCancelledError())
            elif taken and (task.group is None or task.alone or task.group != taken[0].group):
                break
            else:
                taken.append(task)
            self._waiting.popleft()
            if taken and (taken[0].group is None or taken[0].alone):
                break
        return taken

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

    def _do(self, tasks: list[Task], pipe: Connection) -> None:
        begun = time.monotonic()
        run = Run(tasks, pipe, lambda: not self._gone(), lambda: self._hurried)
        try:
            run.carry_out()
            self.seconds += 0.2 * ((time.monotonic() - begun) / len(tasks) - self.seconds)
        except EndWorkerError as error:
            self._end()
            run.current.end(error=error.error)
        except (EOFError, OSError):
            self.deaths += 1
            name = run.current.name
            logger.error("worker %s (process %s) died at %s", self.name, self.pid, name)
            self._end()
            sentence = "the process that was at it died: try again, or try a smaller picture"
            run.current.end(error=TaskFailedError("died", sentence))
        except Exception as error:
            logger.exception("%s failed unexpectedly", run.current.name)
            self._end()
            run.current.end(error=TaskFailedError("fault", f"unexpected {type(error).__name__}"))
        finally:
            self._again(run.left)
            self.running = False

    def _again(self, tasks: list[Task]) -> None:
        """Puts those first in the queue that another one kept from being done."""
        with self._changed:
            for task in reversed(tasks):
                # Whichever of them ends a worker ends it alone.
                task.alone = True
                self._waiting.appendleft(task)

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
