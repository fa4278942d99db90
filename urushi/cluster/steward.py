"""The steward of a run: the one actor that hands out batches and knows what became of pictures.

Ray Data hands the batches to workers, and again where one died. Workers tell the steward of each
picture that they begin and end; so a batch that is handed out again goes on behind what is done,
and a picture that workers die at is known and given up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from urushi.cluster.luggage import Luggage
from urushi.cluster.plan import Ended, Pool
from urushi.inference.picture_files import FileOptions

__all__ = ["News", "Run", "Steward", "restoring", "start_steward"]

_ENDED = 255
# Blocks of Ray Data: each costs the steward some milliseconds, and is what is handed out at once.
_MOST_BLOCKS = 10_000


@dataclass(frozen=True)
class Run:
    """What is to be done.

    Attributes:
        batches: lists of `Work`, pickled.
        luggage: the restorer, see `urushi.cluster.luggage`.
        options: how pictures are read and written.
        pool: the workers.
    """

    batches: Sequence[bytes]
    luggage: Luggage
    options: FileOptions
    pool: Pool


class News(NamedTuple):
    """What has happened since the steward was asked last.

    Attributes:
        ended: pictures that ended.
        failure: why no picture can be restored; empty where they can.
        deaths: batches that were handed out again, since a worker had died at them.
        restorer: what restores, as it describes itself; None before one is ready.
    """

    ended: list[Ended]
    failure: str
    deaths: int
    restorer: dict[str, Any] | None


class Steward:
    """Runs as an actor: `run` on one thread, everything else one after another on the other.

    Args:
        count: pictures of the run.
    """

    def __init__(self, count: int) -> None:
        # Of each picture how many workers have begun with it, or that it has ended.
        self._states = bytearray(count)
        self._news: list[Ended] = []
        self._failure = ""
        self._deaths = 0
        self._restorer: dict[str, Any] | None = None

    def open(self, indices: Sequence[int]) -> list[int | None]:
        """How often each picture of a batch was begun; None for those that have ended."""
        states = [self._states[index] for index in indices]
        self._deaths += any(states)
        return [None if state == _ENDED else state for state in states]

    def begin(self, index: int) -> None:
        """A worker begins with a picture."""
        if self._states[index] < _ENDED - 1:
            self._states[index] += 1

    def end(self, ended: Ended) -> None:
        """A picture has ended."""
        if self._states[ended.index] != _ENDED:
            self._states[ended.index] = _ENDED
            self._news.append(ended)

    def ready(self, restorer: dict[str, Any]) -> None:
        """A worker has its restorer ready."""
        self._restorer = self._restorer or restorer

    def fail(self, sentence: str) -> None:
        """No picture can be restored."""
        self._failure = self._failure or sentence

    def take(self) -> News:
        """What has happened since the last call."""
        news = News(self._news, self._failure, self._deaths, self._restorer)
        self._news, self._deaths = [], 0
        return news

    def run(self, run: Run) -> None:
        """Does all batches."""
        import ray

        for _ in restoring(run, ray.get_runtime_context().current_actor).iter_batches(
            batch_size=None, prefetch_batches=0
        ):
            pass


def restoring(run: Run, steward: Any) -> Any:
    """The batches of a run as a data set of Ray, which restores them where it is iterated over."""
    from ray.data import ActorPoolStrategy, DataContext, from_items

    from urushi.cluster.worker import Worker

    DataContext.get_current().enable_progress_bars = False
    pool = run.pool
    engine: dict[str, Any] = {"device": pool.device}
    engine["threads"] = pool.cpus if pool.device == "cpu" else None
    # One block for a batch: a worker has few of them waiting, and the rest go to whoever is free.
    blocks = min(len(run.batches), _MOST_BLOCKS)
    batches = from_items([{"works": batch} for batch in run.batches], override_num_blocks=blocks)
    workers = ActorPoolStrategy(min_size=1, max_size=pool.workers, initial_size=pool.workers)
    return batches.map_batches(
        Worker,
        batch_size=1,
        compute=workers,
        num_cpus=pool.cpus,
        num_gpus=pool.accelerators or None,
        fn_constructor_kwargs={
            "steward": steward,
            "luggage": run.luggage,
            "options": run.options,
            "engine": engine,
        },
    )


def start_steward(count: int) -> Any:
    """A steward as an actor, for so many pictures; it takes no core."""
    import ray

    decorated: Any = ray.remote
    # One thread runs, the other one takes all other calls in turn.
    return decorated(num_cpus=0, max_concurrency=2)(Steward).remote(count)
