"""Independent works as tasks of a Ray cluster, with cores and shares of accelerators for each."""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from urushi.errors import ClusterError, brief

__all__ = ["Room", "run_tasks"]

Item = TypeVar("Item")

_POLL_SECONDS = 1.0
# Until work that another process is at is asked for again.
_PATIENCE_SECONDS = 2.0
# What is cancelled has so long to write where it is.
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Room:
    """What each task takes.

    Attributes:
        cpus: cores.
        accelerators: how many, maybe a fraction of one.
    """

    cpus: int = 1
    accelerators: float | int = 0.0


def run_tasks(
    function: Callable[[Item], Any],
    items: Sequence[Item],
    room: Room,
    on_done: Callable[[Item, Any], None],
) -> None:
    """Calls a function with each item, on the cluster that this process is connected to.

    Args:
        function: of a module that nodes have as well. What it returns tells what became of an
            item; None has it called again, after a while.
        items: in the order in which they are begun.
        room: what each takes.
        on_done: told of each item what the function returned, or the `ClusterError` for which it
            could not.

    Raises:
        KeyboardInterrupt: a signal arrived; what runs was told to end.
    """
    import ray
    from ray.exceptions import RayError

    task: Any = ray.remote(num_cpus=room.cpus, num_gpus=room.accelerators)(_call)
    running = {task.remote(function, item): item for item in items}
    try:
        while running:
            done, _ = ray.wait(list(running), timeout=_POLL_SECONDS)
            for reference in done:
                item = running.pop(reference)
                try:
                    told = ray.get(reference)
                except RayError as error:
                    told = ClusterError(f"its worker failed ({brief(error)})")
                if told is None:
                    time.sleep(_PATIENCE_SECONDS)
                    running[task.remote(function, item)] = item
                else:
                    on_done(item, told)
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt, RayError):
            for reference in running:
                ray.cancel(reference)
            ray.wait(list(running), num_returns=len(running), timeout=_GRACE_SECONDS)
        raise


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    return function(item)
