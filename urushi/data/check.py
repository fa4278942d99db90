"""Looks through a folder of pictures for what spoils a training or a score.

Found are pictures that cannot be read, are too small, have a name of another format, are there
twice or nearly, have no partner or one of another size, and pictures that also stand in a second
folder, such as test pictures among those for training.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, UInt8, UInt64
from pydantic import BaseModel, ConfigDict, computed_field

from urushi.data.pack import read_8bit
from urushi.data.pairs import (
    INPUT_FOLDERS,
    TARGET_FOLDERS,
    PairedFolder,
    find_left_out,
    find_pictures,
    whole_factor,
)
from urushi.errors import DataError, PictureError
from urushi.names import counted, plain_name

__all__ = [
    "CheckReport",
    "Fingerprint",
    "check_folder",
    "equal_groups",
    "fingerprint",
    "near_pairs",
]

_ROWS, _COLUMNS = 16, 17
# Ours. Copies of photographs halved in size or saved as JPEG of quality 10 differ in up to 44 bits,
# and correlate by 0.987 or more; the two most similar of 68 different ones by 81 bits and 0.885.
_MAX_BITS = 48
_MIN_CORRELATION = 0.97


@dataclass(frozen=True)
class Fingerprint:
    """What two pictures are compared by.

    Attributes:
        exact: hash of size and 8-bit pixels.
        bits: the 256 bits of the difference hash as 4 words.
        grey: the 272 grey values, mean 0 and length 1; None if the picture is too small or so flat
            that they say nothing.
    """

    exact: str
    bits: UInt64[np.ndarray, "4"]
    grey: Float32[np.ndarray, "272"] | None


def fingerprint(pixels: UInt8[np.ndarray, "h w 3"]) -> Fingerprint:
    """The fingerprint of an RGB picture of 8 bits."""
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{height}x{width}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    if height < _ROWS or width < _COLUMNS:
        return Fingerprint(digest.hexdigest(), np.zeros(4, np.uint64), None)
    luma = np.array([0.299, 0.587, 0.114], dtype=np.float32)
    grey = _averaged(_averaged(pixels @ luma, _ROWS, 0), _COLUMNS, 1)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1]).view(np.uint64)
    centred = (grey - grey.mean()).reshape(-1)
    length = float(np.linalg.norm(centred))
    # Less than one grey level of contrast: rounding, not content.
    flat = length < np.sqrt(grey.size)
    unit = None if flat else (centred / length).astype(np.float32)
    return Fingerprint(digest.hexdigest(), bits, unit)


def equal_groups(prints: Mapping[str, Fingerprint]) -> list[list[str]]:
    """Names of pictures whose size and pixels are equal, in groups of two and more."""
    groups: dict[str, list[str]] = {}
    for name, own in prints.items():
        groups.setdefault(own.exact, []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def near_pairs(
    prints: Mapping[str, Fingerprint], others: Mapping[str, Fingerprint] | None = None
) -> Iterator[tuple[str, str]]:
    """Pictures that look alike, each with the first it resembles; equal ones are left out.

    Args:
        prints: by name.
        others: what they are compared with; the ones before them in ``prints`` if not given.
    """
    names, words, greys = _table(prints)
    if others is None:
        other_names, other_words, other_greys = names, words, greys
    else:
        other_names, other_words, other_greys = _table(others)
    against = others if others is not None else prints
    for i, name in enumerate(names):
        end = i if others is None else len(other_names)
        if end == 0:
            continue
        distance = np.bitwise_count(other_words[:end] ^ words[i]).sum(axis=1)
        for j in np.flatnonzero(distance <= _MAX_BITS):
            other = other_names[j]
            if (
                against[other].exact != prints[name].exact
                and float(other_greys[j] @ greys[i]) >= _MIN_CORRELATION
            ):
                yield name, other
                break


def _table(
    prints: Mapping[str, Fingerprint],
) -> tuple[list[str], UInt64[np.ndarray, "n 4"], Float32[np.ndarray, "n 272"]]:
    """Names, words and grey values of all that have any."""
    names = [name for name, own in prints.items() if own.grey is not None]
    words = np.array([prints[name].bits for name in names], np.uint64).reshape(-1, 4)
    greys = np.array([prints[name].grey for name in names], np.float32)
    return names, words, greys.reshape(-1, _ROWS * _COLUMNS)


def _averaged(
    plane: Float32[np.ndarray, "_ _"], count: int, axis: int
) -> Float32[np.ndarray, "_ _"]:
    """Means over ``count`` parts of an axis, as equal as whole pixels allow."""
    edges = np.arange(count + 1) * plane.shape[axis] // count
    sums = np.add.reduceat(plane, edges[:-1], axis=axis)
    sizes = np.diff(edges).astype(np.float32)
    return sums / (sizes[:, None] if axis == 0 else sizes)


OnProgress = Callable[[int, int, str], None]


class CheckReport(BaseModel):
    """What was found; names are paths below the folder.

    Attributes:
        folder: what was looked through.
        pictures: readable pictures.
        pairs: matched pairs, None where the folder has no folders of inputs and targets.
        pixels: height times width, summed over all readable pictures.
        smallest, largest: width and height of the pictures with the fewest and the most pixels.
        unreadable: (name, reason).
        tiny: (name, width, height) with a side shorter than asked for.
        misnamed: (name, format of its content).
        duplicates: groups of pictures with equal pixels.
        near_duplicates: (name, an earlier one that looks the same).
        unmatched: one sentence for every picture without a partner.
        mismatched: (name, size of the input, size of the target) where the target's is neither that
            of the input nor a whole multiple of it.
        leaked: (name, the picture of the other folder that is or looks the same).
        left_out: pictures of formats that are not read; they do not count as findings.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    folder: str
    pictures: int
    pairs: int | None
    pixels: int
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    unreadable: tuple[tuple[str, str], ...]
    tiny: tuple[tuple[str, int, int], ...]
    misnamed: tuple[tuple[str, str], ...]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]
    unmatched: tuple[str, ...]
    mismatched: tuple[tuple[str, str, str], ...]
    leaked: tuple[tuple[str, str], ...]
    left_out: tuple[str, ...] = ()

    @computed_field
    @property
    def ok(self) -> bool:
        """Nothing was found; near duplicates alone do not count, they are a matter of judgement."""
        return not (
            self.unreadable
            or self.tiny
            or self.misnamed
            or self.duplicates
            or self.unmatched
            or self.mismatched
            or self.leaked
        )

    def to_json(self) -> str:
        """The report as a JSON text."""
        return self.model_dump_json(indent=2)

    def lines(self) -> list[str]:
        """The report as sentences: counts first, then one line for every finding."""
        head = f"{self.folder}: {counted(self.pictures, 'picture')}, "
        head += f"{self.pixels / 1e6:.1f} megapixels"
        if self.smallest is not None and self.largest is not None:
            head += ", from {}x{} to {}x{}".format(*self.smallest, *self.largest)
        if self.pairs is not None:
            head += f", {counted(self.pairs, 'pair')}"
        else:
            head += ", taken for single pictures: no folders tell inputs from targets"
        found = [f"unreadable: {reason}" for _, reason in self.unreadable]
        found += [f"too small: {name} is {w}x{h} pixels" for name, w, h in self.tiny]
        found += [f"misnamed: the content of {name} is {kind}" for name, kind in self.misnamed]
        found += [f"equal: {', '.join(names)}" for names in self.duplicates]
        found += [f"nearly equal: {name} and {other}" for name, other in self.near_duplicates]
        found += [f"unmatched: {sentence}" for sentence in self.unmatched]
        found += [f"sizes differ: {name}, {a} and {b}" for name, a, b in self.mismatched]
        found += [f"in both folders: {name} and {other}" for name, other in self.leaked]
        notes = [f"note: {_left_out_sentence(self.left_out)}"] if self.left_out else []
        return [head, *notes, *(found or ["nothing found"])]


@dataclass(frozen=True)
class _Look:
    """One picture as it was found: a reason, or its size, format if misnamed, and fingerprint."""

    reason: str | None = None
    size: tuple[int, int] = (0, 0)
    other_format: str | None = None
    print: Fingerprint | None = None


def check_folder(
    folder: str | Path | PairedFolder,
    *,
    min_side: int = 64,
    against: str | Path | None = None,
    on_progress: OnProgress | None = None,
) -> CheckReport:
    """Looks at every picture below a folder, decoding each once.

    A folder that holds one of inputs and one of targets, as for
    :class:`~urushi.data.pairs.PairedFolder`, is checked for its pairs too; duplicates are then
    looked for among the targets alone.

    Args:
        folder: of pictures, or of pairs; or the pairs of two folders.
        min_side: sides shorter than this, in pixels, are reported; the patch of a training.
        against: a second folder no picture should be in; of pairs, its targets.
        on_progress: called after every picture with (done, total, name).

    Raises:
        DataError: a folder does not exist or holds no pictures.
    """
    if isinstance(folder, PairedFolder):
        paired = folder
        sides = dict.fromkeys((paired.input_folder.absolute(), paired.target_folder.absolute()))
        folder = Path(os.path.commonpath(sides))
        files = sorted({path for side in sides for path in find_pictures(side)})
        foreign = sorted({path for side in sides for path in find_left_out(side)})
    else:
        folder = Path(folder)
        files, foreign = find_pictures(folder), find_left_out(folder)
        paired = _as_pairs(folder)
    left_out = tuple(path.relative_to(folder).as_posix() for path in foreign)
    if not files:
        if left_out:
            raise DataError(f"{folder}: no picture can be read. {_left_out_sentence(left_out)}")
        raise DataError(f"{folder} holds no pictures: name a folder of pictures")
    looks = _look_at(folder, files, on_progress)
    good = {name: look for name, look in looks.items() if look.reason is None}
    prints = _comparable(good, paired, folder)
    sizes = sorted((look.size for look in good.values()), key=lambda size: size[0] * size[1])
    return CheckReport(
        folder=str(folder),
        pictures=len(good),
        pairs=None if paired is None else len(paired),
        pixels=sum(width * height for width, height in sizes),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        unreadable=tuple((n, look.reason) for n, look in looks.items() if look.reason),
        tiny=tuple((n, *look.size) for n, look in good.items() if min(look.size) < min_side),
        misnamed=tuple((n, look.other_format) for n, look in good.items() if look.other_format),
        duplicates=tuple(tuple(names) for names in equal_groups(prints)),
        near_duplicates=tuple(near_pairs(prints)),
        unmatched=() if paired is None else paired.problems,
        mismatched=() if paired is None else _mismatched(paired, good, folder),
        leaked=() if against is None else _leaked(prints, Path(against)),
        left_out=left_out,
    )


def _left_out_sentence(names: tuple[str, ...]) -> str:
    from urushi.image import left_out_sentence

    return left_out_sentence(map(Path, names))


def _as_pairs(folder: Path) -> PairedFolder | None:
    names = {path.name.lower() for path in folder.iterdir() if path.is_dir()}
    if not (names.isdisjoint(INPUT_FOLDERS) or names.isdisjoint(TARGET_FOLDERS)):
        return PairedFolder(folder)
    try:
        found = PairedFolder(folder)
    except DataError:
        return None
    # Pictures on their own may have such a word in their names, too, but hardly all of them.
    return found if found.pairs and not found.problems else None


def _look_at(
    folder: Path, files: list[Path], on_progress: OnProgress | None = None
) -> dict[str, _Look]:
    """Decodes all files in threads; by path below the folder."""
    looks = {}
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for done, (path, look) in enumerate(
            zip(files, pool.map(_look, files), strict=True), start=1
        ):
            name = plain_name(path.relative_to(folder))
            looks[name] = look
            if on_progress is not None:
                on_progress(done, len(files), name)
    return looks


def _look(path: Path) -> _Look:
    from urushi.image import FORMATS, inspect_picture

    try:
        info = inspect_picture(path)
        pixels = read_8bit(path)
    except PictureError as error:
        return _Look(reason=str(error))
    named_so = path.suffix.lower() in FORMATS[info.format].suffixes
    size = (pixels.shape[1], pixels.shape[0])
    return _Look(None, size, None if named_so else info.format, fingerprint(pixels))


def _comparable(
    good: Mapping[str, _Look], paired: PairedFolder | None, folder: Path
) -> dict[str, Fingerprint]:
    """Fingerprints of the pictures that must be distinct: of pairs, the targets."""
    wanted = set(good)
    if paired is not None and paired.input_folder == paired.target_folder:
        wanted = {_below(pair.target, folder) for pair in paired}
    elif paired is not None:
        start = _below(paired.target_folder, folder) + "/"
        wanted = {name for name in good if name.startswith(start)}
    return {n: look.print for n, look in good.items() if look.print is not None and n in wanted}


def _below(path: Path, folder: Path) -> str:
    return plain_name(path.absolute().relative_to(folder.absolute()))


def _mismatched(
    paired: PairedFolder, good: Mapping[str, _Look], folder: Path
) -> tuple[tuple[str, str, str], ...]:
    found = []
    for pair in paired:
        looks = [good.get(_below(p, folder)) for p in (pair.input, pair.target)]
        sizes = [look.size for look in looks if look is not None]
        if len(sizes) == 2 and whole_factor(sizes[0], sizes[1]) is None:
            found.append((pair.name, *("{}x{}".format(*size) for size in sizes)))
    return tuple(found)


def _leaked(prints: Mapping[str, Fingerprint], other: Path) -> tuple[tuple[str, str], ...]:
    files = find_pictures(other)
    if not files:
        raise DataError(f"{other} holds no pictures: name a folder of pictures to compare with")
    looks = {n: look for n, look in _look_at(other, files).items() if look.reason is None}
    others = _comparable(looks, _as_pairs(other), other)
    by_hash = {own.exact: name for name, own in others.items()}
    equal = [(name, by_hash[own.exact]) for name, own in prints.items() if own.exact in by_hash]
    known = {name for name, _ in equal}
    near = [pair for pair in near_pairs(prints, others) if pair[0] not in known]
    return tuple(equal + near)
