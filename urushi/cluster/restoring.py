"""Restoring on a cluster: what the process does that asks for it.

It plans, hands the work to a steward on the cluster (`urushi.cluster.steward`), and writes a row of
the manifest for each picture as it ends. Pictures never pass through it, nor through Ray.
"""

import contextlib
import pickle
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from urushi.cluster.luggage import packed
from urushi.cluster.manifest import Manifest, row_of
from urushi.cluster.plan import Ended, Pool, Work, batches_of
from urushi.cluster.steward import News, Run, start_steward
from urushi.errors import ClusterError, brief
from urushi.inference.batch import BatchReport, Event, FileResult, Job, fate_of
from urushi.inference.choice import PictureRestorer
from urushi.inference.picture_files import FileOptions
from urushi.inference.staged import Staged
from urushi.writing import remove_leftovers

__all__ = ["ClusterReport", "restore_on_cluster"]

_POLL_SECONDS = 0.25
_LAST_NEWS_SECONDS = 5.0


@dataclass(frozen=True)
class ClusterReport(BatchReport):
    """What became of a batch on a cluster.

    Attributes:
        deaths: how often a batch was handed out again, since a worker had died at it.
    """

    deaths: int = 0


def restore_on_cluster(
    restorer: PictureRestorer,
    jobs: Sequence[Job],
    pool: Pool,
    manifest: Manifest,
    *,
    options: FileOptions,
    on_event: Callable[[Event], None] | None = None,
    staged: Staged | None = None,
) -> ClusterReport:
    """Restore files on the cluster that this process is connected to.

    Workers restore as `urushi.inference.batch.run_batch` does, and give the same pictures. What
    was finished before is not done again. An interruption ends the run early and is told by the
    report; run again, the same jobs go on where they were stopped.

    Args:
        restorer: what restores; it is made ready anew by each worker.
        jobs: from `plan_batch`; of paths that all nodes see, or of stores.
        pool: the workers.
        manifest: of the output folder.
        options: how pictures are read and written.
        on_event: told of each picture that ends, in the order in which they do.
        staged: what stands in for stores among the jobs.

    Raises:
        ClusterError: the cluster was lost, or has no room.
        TargetError: the manifest cannot be written.
        UrushiError: nothing can be restored as asked.
    """
    begin = time.perf_counter()
    staged = staged or Staged((), None)
    driver = _Driver(jobs, manifest, on_event or (lambda event: None), staged)
    works = driver.plan()
    interrupted = False
    if works:
        cut = batches_of(works, pool.workers)
        batches = [pickle.dumps((one, staged.part(w.source for w in one))) for one in cut]
        run = Run(batches, packed(restorer), options, pool)
        try:
            interrupted = _follow(run, len(jobs), driver.hear)
        finally:
            manifest.finish()
            # Of workers that died at pictures which nobody began again.
            for folder in {job.target.parent for job in jobs}:
                remove_leftovers(folder)
    seconds = time.perf_counter() - begin
    return ClusterReport(
        driver.ordered(), seconds, interrupted, driver.restorer, deaths=driver.deaths
    )


class _Driver:
    """Keeps results and manifest.

    Args:
        jobs, manifest, staged: as `restore_on_cluster` takes them.
        tell: told of each picture that ends.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        manifest: Manifest,
        tell: Callable[[Event], None],
        staged: Staged,
    ) -> None:
        self._jobs, self._manifest, self._tell, self._staged = jobs, manifest, tell, staged
        self._results: dict[int, FileResult] = {}
        self.restorer: dict[str, Any] | None = None
        self.deaths = 0

    def plan(self) -> list[Work]:
        """What is left to do; what is known beforehand is told and noted."""
        rows = self._manifest.rows()
        works, known, unknown = [], [], []
        for index, job in enumerate(self._jobs):
            status, message = fate_of(job, self._staged)
            row = rows.get(self._name(job))
            noted = row is not None and row["status"] != "failed"
            if status == "restored" or (status == "skipped" and not noted and not job.left):
                size = self._staged.bytes_of(job.source)
                paths = job.source.absolute(), job.target.absolute()
                works.append(Work(index, *paths, job.overwrite, size))
                continue
            ended = Ended(index, FileResult(job.source, job.target, status, message))
            known.append(ended)
            unknown += [] if noted else [ended]
        self._note(known, unknown)
        return works

    def hear(self, news: News) -> None:
        """Takes what the steward tells."""
        ended = [self._as_planned(one) for one in news.ended]
        self.deaths += news.deaths
        self.restorer = self.restorer or news.restorer
        self._note(ended, ended)

    def _note(self, ended: Sequence[Ended], unknown: Sequence[Ended]) -> None:
        self._manifest.add([self._row(one) for one in unknown])
        for one in ended:
            pixels = one.result.pixels
            event = Event(
                len(self._results),
                len(self._jobs),
                self._jobs[one.index],
                pixels,
                pixels,
                one.result,
            )
            self._results[one.index] = one.result
            self._tell(event)

    def _as_planned(self, ended: Ended) -> Ended:
        """With files called as they were asked for: workers know absolute paths."""
        job = self._jobs[ended.index]

        def told(text: str) -> str:
            text = text.replace(str(job.target.absolute()), str(job.target))
            return text.replace(str(job.source.absolute()), str(job.source))

        result = ended.result
        notes = tuple(told(note) for note in result.notes)
        result = replace(
            result, source=job.source, target=job.target, message=told(result.message), notes=notes
        )
        return replace(ended, result=result)

    def _row(self, ended: Ended) -> dict[str, Any]:
        job = self._jobs[ended.index]
        return row_of(
            ended, str(self._staged.shown(job.source)), self._name(job), self._staged.told
        )

    def _name(self, job: Job) -> str:
        return self._manifest.name_of(job.target)

    def ordered(self) -> list[FileResult]:
        """Results in the order of the jobs."""
        return [self._results[index] for index in sorted(self._results)]


def _reason(error: Exception) -> str:
    """The last line of what Ray says, which for an error on a node is that error."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return brief(RuntimeError(re.sub(r"\x1b\[\d*m", "", lines[-1]))) if lines else brief(error)


def _follow(run: Run, count: int, hear: Callable[[News], None]) -> bool:
    """Has a run done; tells whether it was interrupted."""
    import ray
    from ray.exceptions import RayError

    steward = start_steward(count)
    try:
        running = steward.run.remote(run)
        done: list[Any] = []
        while not done:
            done, _ = ray.wait([running], timeout=_POLL_SECONDS)
            news: Any = ray.get(steward.take.remote())
            hear(news)
            if news.failure:
                raise ClusterError(news.failure)
        ray.get(running)
        hear(ray.get(steward.take.remote()))
    except KeyboardInterrupt:
        # What has ended meanwhile is told, if that is quickly done.
        with contextlib.suppress(RayError, TimeoutError, KeyboardInterrupt):
            hear(ray.get(steward.take.remote(), timeout=_LAST_NEWS_SECONDS))
        return True
    except (RayError, ConnectionError) as error:
        raise ClusterError(
            f"the cluster does not go on ({_reason(error)}): see that its nodes run, and run the "
            "same command again, which goes on where it was"
        ) from error
    finally:
        with contextlib.suppress(Exception):
            ray.kill(steward)
    return False
