"""The service without HTTP: takes pictures and wishes, and sees that workers do them."""

import asyncio
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urushi.inference.zoo import ZOO, zoo_experts
from urushi.names import counted
from urushi.serve.kept_work import Job, Picture, SentAdapter, Store
from urushi.serve.limits import Limits
from urushi.serve.problems import RefusedError, status_of
from urushi.serve.prometheus_metrics import Metrics
from urushi.serve.runs import QueueFullError, Task, TaskCancelledError, TaskFailedError
from urushi.serve.uploads import result_name, shown_name
from urushi.serve.workers import Lane

__all__ = ["Service", "Settings", "refused"]

logger = logging.getLogger(__name__)

_SWEEP = 15.0
_ADAPTATIONS = 4
# Of what is quick, so many may wait for each job that may.
_QUICK = 4


@dataclass(frozen=True)
class Settings:
    """What a service is made from.

    Attributes:
        engine: options of every restorer.
        router, model: files; None takes those that ship.
        work: where temporary files go; None takes the system's folder for them.
        limits: of the service.
        hosts: names that it is asked for by.
        token: that requests must bear; None for no token.
    """

    engine: Mapping[str, Any] = field(default_factory=dict)
    router: str | None = None
    model: str | None = None
    work: Path | None = None
    limits: Limits = field(default_factory=Limits)
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "::1")
    token: str | None = None


def refused(error: BaseException, names: Mapping[str, str] | None = None) -> RefusedError:
    """What a client is told of a task that failed.

    Args:
        error: of its future.
        names: paths in the sentence, and what stands for them.
    """
    if isinstance(error, TaskCancelledError):
        return RefusedError(410, "it was cancelled")
    if not isinstance(error, TaskFailedError):
        return RefusedError(500, f"unexpected {type(error).__name__}")
    sentence = error.sentence
    for path, name in sorted((names or {}).items(), key=lambda pair: -len(pair[0])):
        sentence = sentence.replace(path, name)
    own = {"died": 500, "time": 504, "stopped": 503}
    status = own.get(error.kind) or status_of(error.kind)
    return RefusedError(status, sentence, retry=5 if status == 503 else None)


class Service:
    """Pictures in, jobs done by workers, results out.

    Args:
        settings: what it is made from.

    Attributes:
        store: what is kept.
        metrics: what is counted.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, limits = settings, settings.limits
        options = {
            "engine": dict(settings.engine),
            "router": settings.router,
            "model": settings.model,
        }
        self.main = Lane("restore", {**options, "warm": True}, limits.queue)
        self.quick = Lane("quick", options, _QUICK * limits.queue)
        self.learning = Lane("adapt", {**options, "nice": True}, _ADAPTATIONS, lazily=True)
        self.experts = zoo_experts()
        self.metrics = Metrics(lambda: self.main.depth, limits.queue, self.experts)
        self.store = Store(settings.work, limits)
        self.stopping = False
        self._ended = threading.Event()

    @property
    def lanes(self) -> tuple[Lane, ...]:
        """All workers."""
        return (self.main, self.quick, self.learning)

    @property
    def ready(self) -> bool:
        """Whether pictures are restored now."""
        return self.main.ready and self.quick.ready and not self.stopping

    def start(self) -> None:
        """Starts the workers, which come up in the background."""
        for lane in self.lanes:
            lane.start()
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()

    def drain(self) -> None:
        """Takes no more pictures, and returns when what runs has come to its end.

        What waits fails. Results can still be fetched.
        """
        self.stopping = True
        for lane in (self.main, self.learning):
            lane.refuse()
        until = time.monotonic() + self.settings.limits.seconds
        while time.monotonic() < until and not (self.main.idle and self.quick.idle):
            time.sleep(0.05)

    def stop(self) -> None:
        """Lets what runs come to its end, and removes everything."""
        self.stopping = True
        self._ended.set()
        threads = [
            threading.Thread(target=lane.stop, args=(self._patience(lane),)) for lane in self.lanes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.store.close()

    def _patience(self, lane: Lane) -> float:
        # An adaptation takes minutes, and what it has learnt would go with this process anyway.
        return 0.0 if lane is self.learning else self.settings.limits.seconds

    def _sweep(self) -> None:
        while not self._ended.wait(_SWEEP):
            self.store.expire()

    def check_open(self) -> None:
        """Refuses what comes when the service ends.

        Raises:
            RefusedError: it does.
        """
        if self.stopping:
            raise RefusedError(503, "the service is being stopped: try again later", retry=10)

    # --- pictures ---

    async def inspect(self, picture: Picture) -> None:
        """Reads a picture's header, which tells whether it is taken at all.

        Raises:
            RefusedError: it is not.
        """
        most = self.settings.limits.pixels
        arguments = {"source": str(picture.source), "max_pixels": most}
        names = {str(picture.source): picture.name, picture.source.name: picture.name}
        picture.facts = await self.quickly("inspect", arguments, names)

    async def quickly(
        self, name: str, arguments: dict[str, Any], names: Mapping[str, str] | None = None
    ) -> Any:
        """What a worker says to something that takes a moment.

        Raises:
            RefusedError: it failed, or too many wait.
        """
        return await self.awaited(self._submitted(self.quick, name, arguments, 120.0), names)

    async def awaited(self, task: Task, names: Mapping[str, str] | None = None) -> Any:
        """What becomes of a task; whoever stops waiting does not end it.

        Raises:
            RefusedError: it failed.
        """
        try:
            return await asyncio.shield(asyncio.wrap_future(task.future))
        except (TaskFailedError, TaskCancelledError) as error:
            raise refused(error, names) from error

    def look(self, picture: Picture) -> Task:
        """What the router sees on a picture; asked for once."""
        arguments = {"source": str(picture.source), "max_pixels": self.settings.limits.pixels}
        return self._once(picture, "look", arguments)

    def levels(self, picture: Picture) -> Task:
        """The small versions of a picture; made once."""
        return self._once(
            picture, "levels", {"source": str(picture.source), "target": str(picture.levels)}
        )

    def _once(self, picture: Picture, name: str, arguments: dict[str, Any]) -> Task:
        task = picture.tasks.get(name)
        failed = task is not None and task.future.done() and task.future.exception() is not None
        if task is None or failed:
            task = self._submitted(self.quick, name, arguments, self.settings.limits.seconds)
            picture.tasks[name] = task
        return task

    def _submitted(
        self, lane: Lane, name: str, arguments: dict[str, Any], seconds: float, **told: Any
    ) -> Task:
        task = Task(name, arguments, seconds, **told)
        try:
            lane.submit(task)
        except QueueFullError:
            if self.stopping:
                raise RefusedError(503, "the service is being stopped", retry=10) from None
            wait = min(60.0, max(1.0, lane.seconds * (lane.depth + 1) / 2))
            waiting = counted(lane.depth, "job waits", "jobs wait")
            raise RefusedError(
                429, f"{waiting} already, as many as may: try later", retry=wait
            ) from None
        return task

    # --- wishes ---

    def resolved(self, wish: Mapping[str, Any], client: str) -> dict[str, Any]:
        """A wish whose adapters are files instead of names.

        Raises:
            RefusedError: one is not here.
        """
        files = []
        for name, strength in wish.get("adapters") or ():
            files.append((str(self.adapter_file(name, client)), strength))
        return {**wish, "adapters": files}

    def adapter_file(self, name: str, client: str) -> Path:
        """The file of an adapter that ships, or that a client has sent.

        Raises:
            RefusedError: there is none of that name.
        """
        if name in self.experts:
            return ZOO / f"{name}.safetensors"
        try:
            return self.store.get(SentAdapter, name, client).path
        except RefusedError as error:
            known = ", ".join(self.experts)
            raise RefusedError(
                422,
                f"adapter {shown_name(name)!r} is not here: those that ship are {known}; others "
                "are sent to /v1/adapters first",
            ) from error

    # --- jobs ---

    def restore(self, picture: Picture, wish: Mapping[str, Any], *, shown: bool = False) -> Job:
        """Begins to restore a picture.

        Args:
            picture: which one.
            wish: as `KeptRestorers.restorer` takes it, and `format`, `quality`, `strip_metadata`;
                adapters by their names.
            shown: make small versions of the result, too.

        Raises:
            RefusedError: it cannot be, or too many wait.
        """
        self.store.admit_job(picture.client)
        files = self.resolved(wish, picture.client)
        id, folder = self.store.place("job")
        job = Job(id, picture.client, folder, wish=dict(wish), picture=picture, name=picture.name)
        arguments = {
            "source": str(picture.source),
            "target": str(folder / "out"),
            "wish": files,
            "max_pixels": self.settings.limits.pixels,
            "levels": str(job.levels) if shown else None,
        }
        # Such as can be done one behind the other by the same restorer, and are not shown.
        group = json.dumps({**files, "format": None, "shown": shown}, sort_keys=True)
        seconds = self.settings.limits.seconds
        self._begin(job, self.main, "restore", arguments, seconds, group)
        return job

    def adapt(self, client: str, name: str, folder: Path, id: str, wish: Mapping[str, Any]) -> Job:
        """Begins to learn from pairs that lie in a folder.

        Raises:
            RefusedError: too many wait.
        """
        job = Job(id, client, folder, kind="adapt", wish=dict(wish), name=name)
        arguments = {"folder": str(folder), "name": name, **wish}
        seconds = 60 * self.settings.limits.adapt_minutes + self.settings.limits.seconds
        self._begin(job, self.learning, "adapt", arguments, seconds)
        return job

    def _begin(
        self,
        job: Job,
        lane: Lane,
        name: str,
        arguments: dict[str, Any],
        seconds: float | int,
        group: str | None = None,
    ) -> None:
        def start() -> None:
            job.state, job.begun = "running", time.monotonic()

        def progress(said: dict[str, Any]) -> None:
            job.facts.update(said)
            if said.get("pixels"):
                job.progress = said["done"] / said["pixels"]
            job.progress = said.get("share", job.progress)

        if job.picture is not None:
            job.picture.jobs += 1
        self.store.add(job)
        try:
            job.task = self._submitted(
                lane, name, arguments, seconds, on_start=start, on_progress=progress, group=group
            )
        except RefusedError:
            if job.picture is not None:
                job.picture.jobs -= 1
            self.store.remove(job)
            raise
        job.task.future.add_done_callback(lambda future: self._ended_with(job, future))

    def _ended_with(self, job: Job, future: Any) -> None:
        error = future.exception()
        picture = job.picture
        job.ended = job.used = time.monotonic()
        names = {str(job.folder): job.name}
        if picture is not None:
            picture.jobs -= 1
            picture.used = job.ended
            inside = {str(job.folder / "out") + os.sep: ""}
            names = {**inside, str(picture.source): job.name, picture.source.name: job.name}
        if error is not None:
            refusal = refused(error, names)
            job.problem = (refusal.status, refusal.detail)
            job.state = "cancelled" if isinstance(error, TaskCancelledError) else "failed"
            # A worker that was killed leaves what it was writing.
            shutil.rmtree(job.folder, ignore_errors=True)
            return
        found = future.result()
        job.result = Path(found.pop("target"))
        job.name = (
            f"{shown_name(job.name)}.safetensors"
            if picture is None
            else result_name(job.name, job.result.suffix)
        )
        found["notes"] = [_renamed(note, names) for note in found.get("notes", [])]
        job.facts = found
        if picture is None:
            job.sheet = Path(found.pop("sheet"))
            self._keep_learnt(job)
        else:
            route = (found.get("router") or {}).get("route", {})
            taken = [name for name, _ in job.wish.get("adapters") or ()]
            self.metrics.restored(found["pixels"], [*route, *taken])
        job.progress = 1.0
        job.state = "done"

    def _keep_learnt(self, job: Job) -> None:
        """Lets what was learnt be used at once."""
        assert job.result is not None
        id, folder = self.store.place("adapter")
        path = folder / "adapter.safetensors"
        path.write_bytes(job.result.read_bytes())
        facts = {"method": job.facts.get("method", ""), "description": "learnt here"}
        self.store.add(SentAdapter(id, job.client, folder, name=job.name, path=path, facts=facts))
        job.facts["adapter"] = id

    def cancel(self, job: Job) -> None:
        """Ends a job that waits or runs."""
        if job.task is not None:
            job.task.cancel()
            if job.state == "waiting":
                job.task.end(error=TaskCancelledError())


def _renamed(text: str, names: Mapping[str, str]) -> str:
    for path, name in sorted(names.items(), key=lambda pair: -len(pair[0])):
        text = text.replace(path, name)
    return text
