"""The machine: its devices, memory and allocator, and engines that a fork leaves behind."""

import ctypes
import functools
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from urushi.errors import EngineError, MissingExtraError

__all__ = [
    "DEVICES",
    "MadeAnew",
    "available_devices",
    "available_memory",
    "choose_device",
    "describes_processor",
    "host_memory",
    "in_use",
    "is_installed",
    "keep_freed_memory",
    "require",
]

# In the order of preference.
DEVICES = ("cuda", "xpu", "mps", "cpu")


def is_installed(package: str) -> bool:
    """Tell whether `package` can be imported, without importing it."""
    try:
        return find_spec(package) is not None
    except (ImportError, ValueError):
        # ValueError: the entry in sys.modules is None, which makes a module unimportable.
        return False


def require(packages: Sequence[str], what: str, extra: str) -> None:
    """Check that the packages are there that `what` needs.

    Args:
        packages: their names.
        what: as a message names it, such as `adapting`.
        extra: of Urushi, which brings them.

    Raises:
        MissingExtraError: one is missing.
    """
    for package in packages:
        if not is_installed(package):
            raise MissingExtraError(f"{package}, which {what} needs,", extra)


def available_devices() -> tuple[str, ...]:
    """Return the devices that can be used here, best first; `cpu` is always the last.

    Accelerators are torch's, so without torch, or with a build of it for the CPU alone, there are
    none; only otherwise is torch imported to look.
    """
    if not is_installed("torch"):
        return ("cpu",)
    try:
        if version("torch").endswith("+cpu"):
            return ("cpu",)
    except PackageNotFoundError:
        pass  # a torch that was not installed as a package: ask it
    import torch

    found = {
        "cuda": torch.cuda.is_available(),
        "xpu": torch.xpu.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    return tuple(name for name in DEVICES if found[name])


def choose_device(device: str) -> str:
    """Return the device to use: the best one for `auto`, else the one asked for.

    Args:
        device: `auto`, `cuda`, `xpu`, `mps`, `cpu`, or one of several as `cuda:1`.

    Raises:
        EngineError: there is no such device here.
    """
    if device == "cpu":
        return device
    available = available_devices()
    if device == "auto":
        return available[0]
    kind, _, index = device.partition(":")
    known = kind in DEVICES and (not index or (index.isdigit() and kind in ("cuda", "xpu")))
    if not known:
        raise EngineError(
            f"device {device!r} is unknown: expected auto, {', '.join(DEVICES)}, or one of "
            "several as cuda:1",
            usage=True,
        )
    if kind not in available:
        raise EngineError(f"device {device!r} is not available here: use {' or '.join(available)}")
    if index:
        import torch

        count = getattr(torch, kind).device_count()
        if int(index) >= count:
            raise EngineError(
                f"device {device!r} does not exist: there are {count}, {kind}:0 to "
                f"{kind}:{count - 1}"
            )
    return device


GIB = 1 << 30
# When nothing can be asked: what any computer of the last ten years can spare.
UNKNOWN = 2 * GIB


def available_memory(device: str = "cpu") -> int:
    """Bytes that can still be taken on `device` ("cpu", "cuda", "cuda:1", "mps", ...)."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(torch.device(device))
        return int(free)
    return host_memory()


def host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take of main memory.

    The least of what Linux calls available and of what every control group above this process
    (version 2 or 1: a container, a batch system) leaves; elsewhere half of what is installed.

    Args:
        root: where `proc` and `sys` lie.
    """
    found = [_meminfo(root), *_control_groups(root)]
    known = [amount for amount in found if amount is not None]
    if known:
        return max(min(known), 0)
    return _installed() // 2


def _meminfo(root: Path) -> int | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    return None


def _control_groups(root: Path) -> list[int]:
    """What each control group of this process has left, from its own up to the root's."""
    left = []
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = [*line.split(":", 2), "", ""][:3]
        if hierarchy == "0":
            base, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            base = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        group = base / path.lstrip("/")
        # Inside a container the path may be the host's, which is not visible there: its own
        # group then lies at the base, which ends the walk in either case.
        for folder in [group, *group.parents]:
            amount = _group_left(folder, *names)
            if amount is not None:
                left.append(amount)
            if folder == base:
                break
    return left


def _group_left(folder: Path, limit: str, used: str, cache: str) -> int | None:
    """Limit less use, where cached files count as free; None where there is no limit."""
    limit_text, used_text = _lines(folder / limit), _lines(folder / used)
    if not limit_text or not used_text or not limit_text[0].isdigit():
        return None
    cached = 0
    for line in _lines(folder / "memory.stat"):
        name, _, amount = line.partition(" ")
        if name == cache:
            cached = int(amount)
    return int(limit_text[0]) - int(used_text[0]) + cached


def _installed() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2 * UNKNOWN


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []


def describes_processor(root: Path = Path("/")) -> bool:
    """Tell whether Linux says here what processor this is; other systems are always believed.

    Args:
        root: where `proc` and `sys` lie.
    """
    places = (root / "sys/devices/system/cpu", root / "proc/cpuinfo")
    return not sys.platform.startswith("linux") or any(place.exists() for place in places)


# From glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_LARGEST = 2**31 - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed, for the rest of the process.

    A network's feature maps are tens of megabytes. By default glibc maps each anew and the kernel
    fills it with zeros page by page, which costs a CPU as much time as the convolutions.

    Returns:
        Whether it was done; False on systems without glibc, where nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _LARGEST))


# The package of an engine -> the process that used it first; a forked process inherits this.
_first_users: dict[str, int] = {}
_making = threading.RLock()


def in_use(package: str) -> None:
    """Note that an engine's package starts its threads in this process, if it has not yet.

    Raises:
        EngineError: this process was forked from one where it had started them.
    """
    if _first_users.setdefault(package, os.getpid()) != os.getpid():
        raise EngineError(
            f"{package} was used before this process was forked and does not work in it: start "
            'processes by multiprocessing.get_context("spawn"), or fork before the first use'
        )


class MadeAnew(ABC):
    """What is pickled and copied as that from which it was made.

    It is made again by its first use and not on arrival: an error there would end the worker of a
    pool, and the sentence would be lost. A class calls `_record` with the arguments of `_make`.
    """

    _made_from: dict[str, Any]

    def _record(self, **made_from: Any) -> None:
        self._made_from = made_from

    @abstractmethod
    def _make(self, *made: Any, **made_from: Any) -> None:
        """Makes it; given what `_record` was."""

    def run_with(self, **options: Any) -> None:
        """Changes options of the engine, such as its device, before what was pickled is used."""
        made_from = getattr(self, "_made_from", {})
        for inner in made_from.values():
            if isinstance(inner, MadeAnew):
                inner.run_with(**options)
        if "options" in made_from:
            made_from["options"] = {**made_from["options"], **options}

    def __getstate__(self) -> dict[str, Any]:
        return {"_made_from": self._made_from, "_waits": True}

    def __getattr__(self, name: str) -> Any:
        # Reached for what is not there, which is everything before the first use.
        own = vars(self)
        if name.startswith("__") or name in ("_made_from", "_waits") or "_waits" not in own:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        with _making:
            if own.get("_waits") is False:  # it is being made, by this very thread
                raise AttributeError(f"{type(self).__name__!r} object has no {name!r} yet")
            if own.get("_waits"):
                own["_waits"] = False
                try:
                    self._make(**self._made_from)
                except BaseException:
                    own["_waits"] = True  # the next use tells the same again
                    raise
                del own["_waits"]
        return getattr(self, name)
