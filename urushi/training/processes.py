"""Several processes that train together, as `torchrun` and `accelerate launch` start them.

They hold the same network, share every batch, and see the same folder of the training. What is
read, decided or written once is done by the first of them, the main process. A single process is
its own main process, and nothing here costs it anything.
"""

import atexit
import datetime
import os
from collections.abc import Callable
from typing import TypeVar

from urushi.errors import RecipeError, UrushiError

__all__ = ["begin", "check_same", "is_main", "rows_of", "several", "shared"]

Made = TypeVar("Made")

# The others wait while the main process packs pictures, validates, or judges an expert. Whoever
# dies meanwhile is noticed by the launcher, which ends all.
_PATIENCE = datetime.timedelta(days=1)


def several() -> bool:
    """Whether a launcher has started more than one process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def begin(device: str) -> bool:
    """Lets the processes find one another, once; has no effect on a single one.

    Args:
        device: `auto` (the best there is) or `cpu`.

    Returns:
        Whether the CPU is trained on by the user's choice, or by several for want of anything else.
    """
    from accelerate import PartialState

    from urushi.inference.hardware import choose_device

    cpu = device == "cpu"
    if several():
        # Left to itself, accelerate lets each process train alone where there is no accelerator.
        cpu = cpu or choose_device(device) == "cpu"
        if not PartialState._shared_state:
            PartialState(cpu=cpu, timeout=_PATIENCE)
            atexit.register(PartialState().destroy_process_group)
    return cpu


def is_main() -> bool:
    """Whether this is the process that writes and tells."""
    return int(os.environ.get("RANK", "0")) == 0 or not several()


def rows_of(batch: int) -> slice:
    """Which rows of a batch are this process's; all, where they cannot be divided among all."""
    rank, processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if batch % processes:
        return slice(0, batch)
    return slice(rank * batch // processes, (rank + 1) * batch // processes)


def shared(make: Callable[[], Made]) -> Made:
    """What the main process makes, for all: the others wait for it and get a copy.

    Raises:
        UrushiError: what `make` raises, in the main process; the others end without a word.
    """
    if not several():
        return make()
    from accelerate.utils import broadcast_object_list

    found: list[tuple[bool, Made | None]] = [(False, None)]
    if is_main():
        try:
            found = [(True, make())]
        except (UrushiError, OSError):
            broadcast_object_list(found)
            raise
    broadcast_object_list(found)
    well, made = found[0]
    if not well:
        raise SystemExit(1)
    return made  # pyright: ignore[reportReturnType]


def check_same(step: int, place: object) -> None:
    """Looks whether all processes go on from the same step.

    Raises:
        RecipeError: they do not, as where each node has a folder of its own.
    """
    if not several():
        return
    from accelerate.utils import gather_object

    steps = gather_object([step])
    if len(set(steps)) > 1:
        raise RecipeError(
            f"{place} holds the checkpoint of step {max(steps)} for some processes and of step "
            f"{min(steps)} for others: put it where all nodes see the same folder"
        )
