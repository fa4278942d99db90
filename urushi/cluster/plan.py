"""What is done on a cluster, cut into batches by size; and by how many workers."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from urushi.cluster.connection import Node
from urushi.errors import ClusterError
from urushi.inference.batch import FileResult

__all__ = ["Ended", "Pool", "Work", "batches_of", "pool_of"]

# Of a batch: so that what Ray does for one is little beside what a worker does, and few pictures
# are looked at again when a worker dies.
MOST_PICTURES, MOST_BYTES = 32, 4 << 20
# Batches for each worker at least, where there are pictures for so many: none waits long for the
# last of the others.
_ROUNDS = 8
# What a worker takes with its libraries and a picture, about; see `urushi.inference.estimate`.
_MEMORY = 1 << 30


@dataclass(frozen=True)
class Work:
    """One picture to restore.

    Attributes:
        index: of the job, from 0.
        source, target: absolute paths; those of stores' files are stand-ins.
        overwrite: whether a target that is there is replaced.
        bytes: of the source; 0 where that is not known.
    """

    index: int
    source: Path
    target: Path
    overwrite: bool
    bytes: int = 0


@dataclass(frozen=True)
class Ended:
    """What became of one picture.

    Attributes:
        index: see `Work`.
        result: as the command has it.
        source_bytes: of the source; 0 where that is not known.
        bytes: of the target; None where there is none.
        sha256: of the target.
        restorer: what restored it; see `Restorer.describe`.
        worker: `HOST:PID` of the process that was at it.
    """

    index: int
    result: FileResult
    source_bytes: int = 0
    bytes: int | None = None
    sha256: str | None = None
    restorer: dict[str, Any] | None = None
    worker: str = ""


@dataclass(frozen=True)
class Pool:
    """Workers of a run.

    Attributes:
        device: `cpu` or `cuda`.
        workers: how many.
        cpus: of each.
        accelerators: of each, maybe a fraction.
    """

    device: str
    workers: int
    cpus: int
    accelerators: float | int


def batches_of(works: Sequence[Work], workers: int) -> Iterator[list[Work]]:
    """Cuts work into batches, in order: many small pictures, or a large one alone.

    Args:
        works: what is to be done.
        workers: that share it.
    """
    most = min(MOST_PICTURES, -(-len(works) // (_ROUNDS * workers)))
    batch: list[Work] = []
    size = 0
    for work in works:
        if batch and (len(batch) >= most or size + work.bytes > MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(work)
        size += work.bytes
    if batch:
        yield batch


def pool_of(
    nodes: Sequence[Node],
    *,
    device: str = "auto",
    cpus: int = 1,
    accelerators: float | int | None = None,
    workers: int | None = None,
) -> Pool:
    """As many workers as the nodes have room for; on accelerators, where there are some.

    Args:
        nodes: of the cluster.
        device: `auto`, `cpu` or `cuda`.
        cpus: cores of each worker.
        accelerators: of each worker; None is one. A fraction lets workers share one.
        workers: how many at most.

    Raises:
        ClusterError: there is no room for any.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ClusterError(
            f"device {device!r} is none of a cluster: expected auto, cpu or cuda", usage=True
        )
    share = 1.0 if accelerators is None else accelerators
    if not (0 < share <= 1 or (share > 1 and share % 1 == 0)):
        raise ClusterError(
            f"--accelerators is {share:g}: expected a fraction such as 0.25, or a whole number",
            usage=True,
        )
    rooms = {"cuda": [_room(node, cpus, share) for node in nodes]}
    rooms["cpu"] = [_room(node, cpus, 0.0) for node in nodes]
    wanted = device
    if device == "auto":
        wanted = "cuda" if sum(rooms["cuda"]) else "cpu"
    if wanted == "cpu" and accelerators is not None:
        raise ClusterError(
            f"--accelerators {accelerators:g} is for nodes that have some: leave it out, or "
            "choose another cluster"
        )
    room = sum(rooms[wanted])
    if not room:
        what = f"{cpus} cores and 1 GB" if wanted == "cpu" else f"{share:g} accelerators"
        raise ClusterError(
            f"no node of the cluster has {what} for a worker: give fewer --threads, or choose "
            "another cluster or --device"
        )
    count = room if workers is None else min(workers, room)
    return Pool(wanted, count, cpus, share if wanted == "cuda" else 0.0)


def _room(node: Node, cpus: int, accelerators: float) -> int:
    """How many workers a node has room for."""
    room = int(node.cpus // cpus)
    if accelerators:
        return min(room, int(node.accelerators / accelerators + 1e-6))
    return min(room, max(node.memory // _MEMORY, 1)) if node.memory else room
