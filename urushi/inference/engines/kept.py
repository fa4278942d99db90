"""Compiled networks on disk: what was compiled once is there for the next process.

Nothing here ever fails: a file that is damaged, cut short, of somebody else or not to be had is as
good as none, and what cannot be written is compiled again the next time. A file is written whole
under a name that says all that it depends on, so processes that start at once do not disturb each
other. See docs/decisions/0026.
"""

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

from urushi.inference.cache_folder import cache_folder
from urushi.version import __version__

__all__ = ["KEEP_VARIABLE", "MOST_BYTES", "MOST_WRITTEN", "find", "keep", "keeps", "key_of"]

KEEP_VARIABLE = "URUSHI_KEEP_COMPILED"
"""`0` in this variable of the environment: nothing is kept, and nothing that was kept is used."""

MOST_BYTES = 256 << 20
"""Of all files together; the ones that were not used for longest go first."""

MOST_WRITTEN = 6
"""By one process: a folder of pictures of many sizes does not rewrite the disk."""

_FOLDER = "compiled"
_SUFFIX = ".network"
_MAGIC = b"urushi compiled network 1\n"
_DIGEST = hashlib.sha256().digest_size
_STALE = 3600.0  # seconds; what a process that was ended has left is older
# Limits of the instruction set: of OpenVINO and of the oneDNN in it.
_LIMITS = ("OV_CPU_MAX_ISA", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_written = 0


def keeps() -> bool:
    """Whether compiled networks are kept, and used again."""
    return os.environ.get(KEEP_VARIABLE, "1") != "0"


def key_of(*parts: object) -> str:
    """The name of what depends on these plain values, on this processor and on this version."""
    limits = [os.environ.get(name, "") for name in _LIMITS]
    said = json.dumps([__version__, _processor(), limits, *parts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def find(key: str) -> bytes | None:
    """What was kept under this name, as it was written; None where there is nothing sound."""
    if not keeps():
        return None
    path = _path(key)
    try:
        with path.open("rb") as file:
            if not _is_own(os.fstat(file.fileno())):
                return None
            head = file.read(len(_MAGIC) + _DIGEST)
            content = file.read()
    except OSError:
        return None
    if head != _MAGIC + hashlib.sha256(content).digest():
        forget(key)
        return None
    with contextlib.suppress(OSError):
        os.utime(path)  # the latest use, by which the oldest are told
    return content


def keep(key: str, content: bytes) -> None:
    """Keep this under this name, if there is room; the ones that were not used for longest go."""
    global _written
    if not keeps() or len(content) > MOST_BYTES or _written >= MOST_WRITTEN:
        return
    path = _path(key)
    part = path.with_name(f".{path.name}.{os.getpid()}.{time.monotonic_ns()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with part.open("xb") as file:
            file.write(_MAGIC + hashlib.sha256(content).digest())
            file.write(content)
        part.replace(path)
        _written += 1
        _make_room(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def forget(key: str) -> None:
    """Remove what was kept under this name."""
    with contextlib.suppress(OSError):
        _path(key).unlink(missing_ok=True)


def _path(key: str) -> Path:
    return cache_folder() / _FOLDER / f"{key}{_SUFFIX}"


def _make_room(newest: Path) -> None:
    """Remove the files that were not used for longest until all fit, but never the newest."""
    found = sorted(_files(newest.parent), key=lambda item: item[1].st_mtime, reverse=True)
    total, now = 0, time.time()
    for path, facts in found:
        left = path.suffix != _SUFFIX and now - facts.st_mtime > _STALE
        total += facts.st_size
        if left or (total > MOST_BYTES and path != newest):
            total -= facts.st_size
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.iterdir():
        # Another process may have removed it meanwhile.
        with contextlib.suppress(OSError):
            if _SUFFIX in path.name:
                yield path, path.lstat()


def _is_own(facts: os.stat_result) -> bool:
    """Whether a file is of the user who runs this, or of the system's administrator."""
    return not hasattr(os, "getuid") or facts.st_uid in (os.getuid(), 0)


@functools.cache
def _processor() -> str:
    """What tells processors apart that need other code: a home may be shared by machines."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            lines = file.read().split("\n\n", 1)[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    told = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *(line for line in lines if line.startswith(told))])
