"""How much memory there is: what the machine, the container or the accelerator still gives."""

import os
from pathlib import Path

__all__ = ["available_memory", "host_memory"]

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
