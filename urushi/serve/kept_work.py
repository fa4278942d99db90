"""What clients have sent and what became of it: pictures, jobs and adapters, each for a while.

Everything lies in folders below one of this process's own, under names that are made here.
"""

import contextlib
import ipaddress
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeVar

from urushi.names import counted
from urushi.serve.limits import Limits
from urushi.serve.problems import RefusedError
from urushi.serve.runs import Task

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed anyway
    fcntl = None

__all__ = ["Item", "Job", "Picture", "SentAdapter", "State", "Store", "client_of"]

State = Literal["waiting", "running", "done", "failed", "cancelled"]

# Sizes of folders are measured anew after so many seconds.
_STALE = 5.0
_PREFIX, _LOCK = "urushi-serve-", "lock"
_GONE = "nothing of that name is here: it never was, or its time is over"


def client_of(address: str | None) -> str:
    """Who a request is from: its address; for IPv6 the network of 64 bits that a household has."""
    try:
        found = ipaddress.ip_address(address or "")
    except ValueError:
        return address or "unknown"
    if found.version == 6:
        return str(ipaddress.ip_network((found, 64), strict=False))
    return str(found)


@dataclass(eq=False)
class Item:
    """Something that is kept for a client.

    Attributes:
        id: what clients call it; nobody guesses it.
        client: whose it is.
        folder: its own.
        used: when it was last asked for, on the monotonic clock.
        keep: seconds that it is kept from then on; None for as long as all are.
    """

    id: str
    client: str
    folder: Path
    used: float = field(default_factory=time.monotonic)
    keep: float | int | None = None
    _measured: tuple[float, int] = field(default=(-_STALE, 0), init=False, repr=False)

    @property
    def size(self) -> int:
        """Bytes that it takes, or took a few seconds ago."""
        now = time.monotonic()
        if now - self._measured[0] > _STALE:
            self._measured = (now, self._size())
        return self._measured[1]

    def _size(self) -> int:
        total = 0
        with contextlib.suppress(OSError):
            for path in self.folder.rglob("*"):
                with contextlib.suppress(OSError):
                    total += path.stat().st_size
        return total

    @property
    def busy(self) -> bool:
        """Whether somebody works with it, so that it stays."""
        return False


@dataclass(eq=False)
class Picture(Item):
    """A picture that was sent.

    Attributes:
        name: as it is shown.
        source: the file.
        facts: what its header says.
        tasks: what is, or was, made of it: `look`, `levels`.
        jobs: how many work with it.
    """

    name: str = ""
    source: Path = Path()
    facts: dict[str, Any] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    jobs: int = 0

    @property
    def levels(self) -> Path:
        """The file of its small versions."""
        return self.folder / "levels"

    @property
    def busy(self) -> bool:
        return self.jobs > 0 or any(not task.future.done() for task in self.tasks.values())


@dataclass(eq=False)
class Job(Item):
    """Something that takes time.

    Attributes:
        kind: `restore` or `adapt`.
        name: of its result.
        wish: what was asked for.
        picture: which one; None for `adapt`.
        state: where it stands.
        facts: what it says of itself while it runs, and in the end.
        problem: the status and sentence of its failure.
        task: the worker's.
        begun, ended: on the monotonic clock.
        result: the file that it gives.
        sheet: before and after, of `adapt`.
    """

    kind: str = "restore"
    name: str = ""
    wish: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    state: State = "waiting"
    progress: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)
    problem: tuple[int, str] | None = None
    task: Task | None = None
    begun: float | None = None
    ended: float | None = None
    result: Path | None = None
    sheet: Path | None = None

    @property
    def levels(self) -> Path:
        """The file of its result's small versions."""
        return self.folder / "levels"

    @property
    def finished(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state not in ("waiting", "running")

    @property
    def busy(self) -> bool:
        return not self.finished

    @property
    def seconds_left(self) -> float | None:
        """How long it will take at the speed it had so far; None where that is not known."""
        if self.state != "running" or self.begun is None or self.progress <= 0.02:
            return None
        return (time.monotonic() - self.begun) * (1 - self.progress) / self.progress


@dataclass(eq=False)
class SentAdapter(Item):
    """An adapter that was sent, or learnt here.

    Attributes:
        name: as it is shown.
        path: the file.
        facts: what it says of itself.
    """

    name: str = ""
    path: Path = Path()
    facts: dict[str, Any] = field(default_factory=dict)


Kept = TypeVar("Kept", bound=Item)


class Store:
    """Keeps items until nobody has asked for them for a while.

    Args:
        work: the folder in which this process makes its own; None takes the system's for
            temporary files.
        limits: of the service.

    Attributes:
        root: the folder of this process.
        spool: where bodies of requests are kept while they are read.

    Raises:
        OSError: the folder cannot be made.
    """

    def __init__(self, work: Path | None, limits: Limits) -> None:
        if work is not None:
            work.mkdir(parents=True, exist_ok=True)
            _remove_left(work)
        self.root = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=work))
        self._held = (self.root / _LOCK).open("wb")
        _lock(self._held)
        self.spool = self.root / "spool"
        self.spool.mkdir()
        self._limits = limits
        self._items: dict[str, Item] = {}
        self._lock = threading.RLock()

    def close(self) -> None:
        """Removes everything."""
        self._held.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def admit(self, client: str, coming: int = 0) -> None:
        """Whether a client may leave something here.

        Args:
            client: who.
            coming: bytes of it, as far as they are known.

        Raises:
            RefusedError: what is here of the client is as much as may be.
        """
        with self._lock:
            own = [item for item in self._items.values() if item.client == client]
            count, size = len(own), sum(item.size for item in own)
        most = self._limits
        if count < most.client_items and size + coming <= most.client_disk:
            return
        kept = counted(count, "thing of yours is", "things of yours are")
        sentence = (
            f"{kept} kept here, {size / 1e6:.0f} MB, at most "
            f"{most.client_items} and {most.client_disk / 1e6:.0f} MB may be: delete some, or wait "
            f"until they expire ({most.keep / 60:g} minutes after they were last asked for)"
        )
        raise RefusedError(507, sentence, retry=60)

    def admit_job(self, client: str) -> None:
        """Whether a client may have one more job.

        Raises:
            RefusedError: so many wait or run already.
        """
        with self._lock:
            count = sum(
                isinstance(item, Job) and item.client == client and not item.finished
                for item in self._items.values()
            )
        if count >= self._limits.client_jobs:
            own = counted(count, "job of yours waits or runs", "jobs of yours wait or run")
            raise RefusedError(429, f"{own}, as many as may be: try later", retry=5)

    def place(self, kind: str) -> tuple[str, Path]:
        """An identity, and a folder for it."""
        while True:
            name = f"{kind}-{secrets.token_urlsafe(18)}"
            folder = self.root / name
            with contextlib.suppress(FileExistsError):
                folder.mkdir(mode=0o700)
                return name, folder

    def add(self, item: Kept) -> Kept:
        """Keeps it."""
        with self._lock:
            self._items[item.id] = item
        return item

    def get(self, kind: type[Kept], id: str, client: str | None = None) -> Kept:
        """What has that name, and is asked for now.

        Args:
            kind: what it has to be.
            id: its name.
            client: whose it has to be; None for whoever knows its name.

        Raises:
            RefusedError: there is nothing.
        """
        with self._lock:
            item = self._items.get(id)
            if not isinstance(item, kind) or client not in (None, item.client):
                raise RefusedError(404, _GONE)
            item.used = time.monotonic()
            return item

    def all(self, kind: type[Kept], client: str | None = None) -> list[Kept]:
        """All of a kind, of a client or of everybody."""
        with self._lock:
            return [
                item
                for item in self._items.values()
                if isinstance(item, kind) and client in (None, item.client)
            ]

    def remove(self, item: Item) -> None:
        """Removes it and its files."""
        with self._lock:
            self._items.pop(item.id, None)
        shutil.rmtree(item.folder, ignore_errors=True)

    def expire(self) -> int:
        """Removes what nobody has asked for; returns how much."""
        now = time.monotonic()
        with self._lock:
            over = [
                item
                for item in self._items.values()
                if not item.busy
                and now - item.used > (self._limits.keep if item.keep is None else item.keep)
            ]
        for item in over:
            self.remove(item)
        return len(over)


def _remove_left(work: Path) -> None:
    """Removes the folders of services that were killed; those of living ones are locked."""
    for folder in work.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+b") as file:
            if _lock(file):
                shutil.rmtree(folder, ignore_errors=True)


def _lock(file: BinaryIO) -> bool:
    """Takes a lock; False where another process has it, or none can be had."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
