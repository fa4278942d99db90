"""Data sets of papers, made up: a few tiny pictures laid out as each one's description has it."""

import re
from pathlib import Path

import numpy as np

from urushi.data.data_sets import DataSet, find_part
from urushi.image import write_picture

_FIELD = re.compile(r"\{(\w+)(\*|=\[[^\]]+\]|)\}")


def value_of(name: str, kind: str, index: int) -> str:
    """What stands for a name in the picture of that index."""
    if kind.startswith("="):
        return str(index + 1) if name == "id" else kind[2]
    return f"one/two{index}" if kind else f"{name}{index}"


def filled(rule: str, index: int) -> str:
    return _FIELD.sub(lambda field: value_of(field[1], field[2], index), rule)


def scene(index: int, height: int, width: int) -> np.ndarray:
    """Blocks of colours; another picture for every index."""
    coarse = np.random.default_rng(index).random((-(-height // 8), -(-width // 8), 3))
    pixels = np.kron(coarse.astype(np.float32), np.ones((8, 8, 1), np.float32))
    return np.clip(pixels[:height, :width], 0.1, 0.9)


def write(path: Path, pixels: np.ndarray, suffix: str = ".png") -> str:
    path = path.with_name(path.name + suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, pixels, overwrite=True)
    return path.as_posix()


def make_part(root: Path, name: str, count: int = 3, height: int = 24, width: int = 36) -> Path:
    """Writes pictures of `NAME/PART` below the place of the data; returns the set's folder.

    Inputs are smaller than these sizes where the part says so.
    """
    data_set, part = find_part(name)
    return make(root / data_set.folder, data_set, part, count, height, width)


def make(
    folder: Path, data_set: DataSet, name: str, count: int = 3, height: int = 24, width: int = 36
) -> Path:
    part = data_set.parts[name]
    # Other pictures in each part: none may be learned from and measured by.
    first = 100 * (1 + list(data_set.parts).index(name))
    listed = []
    for index in range(count):
        large = scene(first + index, height, width)
        small = large[:: part.scale, :: part.scale]
        if part.clean is not None:
            write(folder / filled(part.clean, index), large)
            continue
        assert part.input is not None
        assert part.target is not None
        # Of parts that share folders, names must differ, too.
        shift = first if part.listed else 0
        path = write(folder / filled(part.input, shift + index), small * np.float32(0.5))
        listed.append(Path(path).relative_to(folder).as_posix())
        write(folder / filled(part.target, shift + index), large)
    if part.listed is not None:
        (folder / part.listed).write_text("".join(f"{word} ignored\n" for word in listed))
    return folder
