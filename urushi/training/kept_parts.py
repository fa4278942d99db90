"""What takes long to read from pictures: calculated once in parts, which are kept in files.

Several processes may share the work: each calculates the parts that no other one is at.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from safetensors.numpy import load_file, save_file

__all__ = ["OnPictures", "Part", "gather"]

Part = dict[str, np.ndarray]
OnPictures = Callable[[int, int, float], None]
"""Told how many pictures there are, of how many, and the seconds that the others will take."""

_REPORT_SECONDS = 10.0
_WAIT_SECONDS = 1.0


def gather(
    place: Path,
    parts: Mapping[str, int],
    make: Callable[[int], Part],
    stopped: Callable[[], bool],
    on_pictures: OnPictures | None = None,
) -> list[Part] | None:
    """All parts in their order; those that are not there yet are calculated.

    Args:
        place: folder of the files; its name must tell what the parts hang on.
        parts: pictures of each part, by its name.
        make: calculates a part, by its number from 0.
        stopped: asked before each part.
        on_pictures: called about every ten seconds and at the end.

    Returns:
        The parts; None where it was stopped.
    """
    place.mkdir(parents=True, exist_ok=True)
    found: dict[int, Part] = {}
    done, total = 0, sum(parts.values())
    fresh, spent, told = 0, 0.0, time.monotonic()
    while len(found) < len(parts):
        before = len(found)
        for index, (name, pictures) in enumerate(parts.items()):
            if index in found:
                continue
            if stopped():
                return None
            path, begun = place / f"{name}.safetensors", time.monotonic()
            new = not path.exists()
            part = _part(path, make, index)
            if part is None:
                continue  # another process is at it
            found[index], done, now = part, done + pictures, time.monotonic()
            if new:
                fresh, spent = fresh + pictures, spent + now - begun
            if on_pictures is not None and (now - told >= _REPORT_SECONDS or done == total):
                on_pictures(done, total, (total - done) * spent / max(1, fresh))
                told = now
        if len(found) == before:
            time.sleep(_WAIT_SECONDS)
    return [found[index] for index in range(len(parts))]


def _part(path: Path, make: Callable[[int], Part], index: int) -> Part | None:
    """A part, from its file; None where another process calculates it."""
    if not path.exists():
        try:
            with FileLock(path.with_suffix(".lock"), blocking=False):
                if not path.exists():
                    unfinished = path.with_suffix(".part")
                    # safetensors 0.8 writes memory as it lies, in whatever order that is.
                    part = {name: np.asarray(a, order="C") for name, a in make(index).items()}
                    save_file(part, unfinished)
                    unfinished.replace(path)
        except Timeout:
            return None
    return load_file(path)
