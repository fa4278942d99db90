"""Before/after sheets: a picture file and the one restored from it, side by side."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from urushi.errors import PictureError, TargetError
from urushi.image import AS_FOUND, Samples, inspect_picture, open_picture
from urushi.image.enlarge import enlarge
from urushi.image.preview import preview_factor, read_part, read_rows, shrink
from urushi.inference.jobs import Job
from urushi.sheet import contact_sheet, write_sheet
from urushi.writing import refuse_taken

__all__ = ["SHEET_FOLDER", "before_after", "sheet_paths", "write_before_after"]

SHEET_FOLDER = "compare"
_SUFFIX = ".jpg"
# Change is summed over squares of this side, and the part that is shown is a whole number of them.
_GRID = 16

Picture = Float32[np.ndarray, "_ _ 3"]


@dataclass(frozen=True)
class _Look:
    """What one pass over both files gives.

    Attributes:
        width, height: in pixels, of the restored picture.
        scale: how much that was enlarged.
        before, after: both files, reduced to at most twice the size of a cell.
        change: squared difference, summed over squares of `_GRID` pixels.
    """

    width: int
    height: int
    scale: int
    before: Picture
    after: Picture
    change: Float32[np.ndarray, "rows columns"]


def sheet_paths(jobs: Sequence[Job], output: Path | None) -> list[Path]:
    """Where the sheet of each job goes: `compare/NAME_compare.jpg`, folders kept.

    Args:
        jobs: of one batch.
        output: the folder of the batch; None, or the target itself, where that is a single file.
    """
    paths: list[Path] = []
    for job in jobs:
        single = output is None or os.path.abspath(output) == os.path.abspath(job.target)
        folder = job.target.parent if single or output is None else output
        inside = job.target.relative_to(folder)
        name = f"{inside.stem}_compare{_SUFFIX}"
        path = folder / SHEET_FOLDER / inside.parent / name
        if path in paths:
            # Two targets that differ by their suffix alone.
            name = f"{inside.stem}_{inside.suffix[1:]}_compare{_SUFFIX}"
        paths.append(path.with_name(name))
    return paths


def write_before_after(
    before: Path,
    after: Path,
    sheet: Path,
    *,
    max_pixels: int | None = None,
    page: int | None = None,
    samples: Samples = AS_FOUND,
    overwrite: bool = False,
) -> None:
    """Makes the sheet of two picture files and writes it.

    Args:
        before, after, max_pixels, samples: as for `before_after`.
        sheet: `NAME.jpg`.
        page: of `before`, from 0, that became the first of `after`; None for the first.
        overwrite: replace a sheet that is there; anything else of that name stays.

    Raises:
        PictureError: a picture cannot be read, or the sheet not be written.
    """
    refuse_taken([sheet], overwrite)
    pixels = before_after(before, after, max_pixels=max_pixels, page=page, samples=samples)
    try:
        sheet.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TargetError(
            f"{sheet.parent} cannot be created ({error.strerror or error}): choose another folder"
        ) from error
    write_sheet(sheet, pixels, overwrite=overwrite)


def before_after(
    before: Path,
    after: Path,
    *,
    cell_size: tuple[int, int] = (512, 384),
    max_pixels: int | None = None,
    page: int | None = None,
    samples: Samples = AS_FOUND,
) -> Picture:
    """Draws both pictures whole, and below them the part that changed most, pixel for pixel.

    Both files are read in bands, so memory does not grow with their size. What was enlarged is
    shown beside what plain interpolation makes of the original.

    Args:
        before: a picture file.
        after: one of the same size, or enlarged by a whole factor.
        cell_size: width and height in pixels in which a picture is fitted.
        max_pixels: refuse pictures with more; None for no limit.
        page: of `before`, from 0; None for the first.
        samples: what is known about those of the first, and of the second if it has such samples.

    Raises:
        PictureError: a file cannot be read, or their sizes differ.
    """
    other = _samples_of_result(before, after, page, samples)
    look = _look(before, after, cell_size, max_pixels, page, samples, other)
    name = before.name
    size = f"{look.width} x {look.height}"
    original = f"{look.width // look.scale} x {look.height // look.scale}"
    rows = [[(look.before, f"before, {original}"), (look.after, f"after, {size}")]]
    if look.width > cell_size[0] or look.height > cell_size[1]:
        top, left, height, width = _most_changed(look, cell_size)
        where = f"pixel for pixel, at {left}, {top}"
        window = (top, left, height, width)
        part = _read_enlarged(before, look, window, max_pixels, page, samples)
        how = where if look.scale == 1 else f"interpolated, {where}"
        mended = read_part(after, *window, max_pixels=None, samples=other)
        rows.append([(part, f"before, {how}"), (mended, f"after, {where}")])
    return contact_sheet(rows, cell_size, title=name)


def _samples_of_result(before: Path, after: Path, page: int | None, samples: Samples) -> Samples:
    """What is known about the samples of a restored file: a white goes with their type."""
    first = inspect_picture(before, max_pixels=None, page=page)
    second = inspect_picture(after, max_pixels=None)
    return samples if first.bits == second.bits else AS_FOUND


def _look(
    before: Path,
    after: Path,
    cell_size: tuple[int, int],
    max_pixels: int | None,
    page: int | None,
    samples: Samples,
    other_samples: Samples,
) -> _Look:
    with (
        open_picture(before, max_pixels=max_pixels, page=page, samples=samples) as first,
        # Made from the first, and allowed as that is.
        open_picture(after, max_pixels=None, samples=other_samples) as second,
    ):
        width, height = first.info.width, first.info.height
        other = (second.info.width, second.info.height)
        scale = max(other[0] // width, 1)
        if (scale * width, scale * height) != other:
            raise PictureError(
                f"'{after}' has {other[0]} x {other[1]} pixels and '{before}' {width} x {height}: "
                "expected pictures of one size, or one a whole multiple of the other"
            )
        width, height = other
        # Twice a cell, so that the sheet reduces the rest smoothly.
        factor = preview_factor(width, height, (2 * cell_size[0], 2 * cell_size[1]))
        factor = min(factor, width, height)
        small: tuple[list[Picture], list[Picture]] = ([], [])
        change = []
        for others in read_rows(second, math.lcm(factor * _GRID, scale)):
            rows = first.read(len(others) // scale)
            rows = rows.repeat(scale, axis=0).repeat(scale, axis=1)
            change.append(_squares(np.square(rows - others).sum(axis=2)))
            small[0].append(shrink(rows, factor))
            small[1].append(shrink(others, factor))
    return _Look(
        width,
        height,
        scale,
        np.concatenate(small[0]),
        np.concatenate(small[1]),
        np.concatenate(change),
    )


def _read_enlarged(
    path: Path,
    look: _Look,
    window: tuple[int, int, int, int],
    max_pixels: int | None,
    page: int | None,
    samples: Samples,
) -> Picture:
    """Top, left, height and width of the enlarged picture, from a file that is not enlarged."""
    scale = look.scale
    top, left, height, width = window
    first = (top // scale, left // scale)
    last = (-(-(top + height) // scale), -(-(left + width) // scale))
    size = (last[0] - first[0], last[1] - first[1])
    part = read_part(path, *first, *size, max_pixels=max_pixels, page=page, samples=samples)
    top, left = top - scale * first[0], left - scale * first[1]
    return enlarge(part, scale)[top : top + height, left : left + width].clip(0.0, 1.0)


def _squares(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "rows columns"]:
    """Sums over squares of `_GRID` pixels; those at the right and lower edge may be cut."""
    rows = np.add.reduceat(values, np.arange(0, values.shape[0], _GRID), axis=0)
    return np.add.reduceat(rows, np.arange(0, values.shape[1], _GRID), axis=1)


def _most_changed(look: _Look, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the part of at most that size that changed most."""
    height, width = min(size[1], look.height), min(size[0], look.width)
    change = look.change.astype(np.float64)
    rows = min(max(1, height // _GRID), change.shape[0])
    columns = min(max(1, width // _GRID), change.shape[1])
    sums = np.zeros((change.shape[0] + 1, change.shape[1] + 1))
    sums[1:, 1:] = change.cumsum(0).cumsum(1)
    bands = sums[rows:] - sums[:-rows]
    windows = bands[:, columns:] - bands[:, :-columns]
    row, column = (int(i) for i in np.unravel_index(np.argmax(windows), windows.shape))
    top = min(row * _GRID, look.height - height)
    left = min(column * _GRID, look.width - width)
    return top, left, height, width
