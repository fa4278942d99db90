"""Which files a command takes and passes over, and what their results are called."""

import glob
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from urushi.errors import UrushiError
from urushi.image import SUPPORTED_SUFFIXES, foreign_name, inspect_picture, is_picture_name
from urushi.image.formats.known import sniff

__all__ = [
    "LOOK_NAME",
    "Found",
    "passed_over",
    "real",
    "results_among",
    "target_names",
    "with_suffix",
]

LOOK_NAME = "urushi_look.jpg"
"""Of the sheet of `--look` where nobody gives it one."""

# Seconds within which files of a folder that is copied get their times in any order.
_COPYING = 2.0
# For a source whose name tells no format: loses nothing.
_FALLBACK_SUFFIX = ".png"


@dataclass(frozen=True)
class Found:
    """A source, where it goes inside the output folder, and whether it was named itself."""

    source: Path
    inside: Path
    named: bool
    problem: str = ""


def real(path: Path) -> Path:
    """The path without links; of one that leads in a circle, as far as it can be followed."""
    return Path(os.path.realpath(path))


def with_suffix(path: Path, suffix: str | None) -> Path:
    """The name with a suffix of a format; its own where that says the same format already.

    Args:
        path: of a source, or its name.
        suffix: of `SUPPORTED_SUFFIXES`; None keeps the source's format, as far as its name tells.
    """
    own = path.suffix.lower()
    if suffix is None:
        suffix = own if own in SUPPORTED_SUFFIXES else _FALLBACK_SUFFIX
    same = SUPPORTED_SUFFIXES.get(own) == SUPPORTED_SUFFIXES[suffix]
    return path if same else path.with_suffix(suffix)


def target_names(folder: Path, items: Sequence[Found], suffix: str | None) -> list[Path]:
    """Names below `folder`, in the order of `items`.

    Where two would differ by their former suffix alone, they keep it: `a_jpg.png`, or `a.jpg.png`
    where that is taken, too. Those of one name and one suffix get one target, which the caller
    refuses.
    """
    plain = [folder / with_suffix(item.inside, suffix) for item in items]
    shared = _sharing(plain, items)
    taken = {
        os.path.normcase(path) for path, shares in zip(plain, shared, strict=True) if not shares
    }
    targets = []
    for path, item, shares in zip(plain, items, shared, strict=True):
        if shares:
            path = next(name for name in _longer(path, item) if os.path.normcase(name) not in taken)
            taken.add(os.path.normcase(path))
        targets.append(path)
    return targets


def results_among(folder: Path, items: Sequence[Found], suffix: str | None) -> dict[Path, Path]:
    """Sources that seem to be results of others, each with the one it was made from.

    They are where the output is the folder of the sources, in another format: `1.png` is what
    `1.jpg` becomes, and `1_jpg.png` where there is a `1.gif` as well. What was named itself is
    never taken for a result, nor is what cannot be one: a picture that is older, or of another
    shape.
    """
    plain = [_key(folder / with_suffix(item.inside, suffix)) for item in items]
    key_of = dict(zip((item.source for item in items), plain, strict=True))
    places = {_key(item.source): item for item in items}
    # Results have the format asked for; they are those that are hit by the names of the others.
    doubtful = {
        item.source for item in items if not item.named and places.get(key_of[item.source]) is item
    }
    possible: dict[tuple[Path, Path], bool] = {}
    while doubtful:
        sure = [item for item in items if item.source not in doubtful]
        hit: dict[Path, Path] = {}
        for target, item in zip(target_names(folder, sure, suffix), sure, strict=True):
            found = places.get(_key(target))
            if found is not None and found.source in doubtful:
                hit[found.source] = item.source
        for pair in hit.items() - possible.keys():
            possible[pair] = _can_be_made_from(*pair)
        own = {one for one, other in hit.items() if not possible[one, other]}
        if not own:
            # One that shares its plain name with others has another name as a result.
            shared = {key_of[item.source] for item in sure}
            own = {one for one in doubtful if one not in hit and key_of[one] in shared}
        if not own:
            return hit
        doubtful -= own
    return {}


def _key(path: Path) -> str:
    """The same for all names of one file."""
    return os.path.normcase(real(path))


def _can_be_made_from(result: Path, source: Path) -> bool:
    """Whether a file can be what a picture has become; only headers are read.

    What cannot be read is no reason against it, nor is a difference in time that copying makes.
    """
    try:
        if result.stat().st_mtime < source.stat().st_mtime - _COPYING:
            return False
        made, of = (inspect_picture(path, max_pixels=None) for path in (result, source))
    except (OSError, UrushiError):
        return True
    scale = max(made.width // of.width, 1)
    return (made.width, made.height) == (scale * of.width, scale * of.height)


def _sharing(plain: Sequence[Path], items: Sequence[Found]) -> list[bool]:
    """Whether each name is that of another item, too, whose former suffix is another one."""
    former: dict[str, list[str]] = {}
    for path, item in zip(plain, items, strict=True):
        former.setdefault(os.path.normcase(path), []).append(item.source.suffix)
    counts = {name: Counter(suffixes) for name, suffixes in former.items()}
    return [
        len(former[key]) > 1 and max(counts[key].values()) == 1
        for key in (os.path.normcase(path) for path in plain)
    ]


def _longer(path: Path, item: Found) -> Iterator[Path]:
    """Names that keep the former suffix, the first choice first."""
    former = item.source.suffix[1:] or "plain"
    yield path.with_name(f"{path.stem}_{former}{path.suffix}")
    yield path.with_name(f"{path.stem}.{former}{path.suffix}")
    number = 2
    while True:
        yield path.with_name(f"{path.stem}_{former}_{number}{path.suffix}")
        number += 1


def passed_over(
    sources: Sequence[str | Path],
    output: str | Path | None = None,
    of_store: Callable[[str | Path], list[Path] | None] | None = None,
) -> list[Path]:
    """What `plan_batch` makes no job of although it is, or holds, a picture.

    That are pictures of formats that are not read, by their names; files without a suffix, by their
    first bytes; and folders with pictures that are links, which are not followed.

    Args:
        sources: files, folders and patterns; a file that is named itself is never passed over.
        output: the output folder, which is not looked into where it lies within the sources.
        of_store: gives what of a source that is a store is passed over; None for other sources.

    Returns:
        Sorted within each source, and each file once.
    """
    inside = None if output is None else os.path.realpath(output)
    found: dict[str, Path] = {}
    for source in sources:
        foreign = None if of_store is None else of_store(source)
        for path in _of(source, inside) if foreign is None else foreign:
            found.setdefault(os.path.abspath(path), path)
    return list(found.values())


def _of(source: str | Path, output: str | None) -> Iterator[Path]:
    if os.path.isdir(source):
        yield from _below(Path(source), output)
    elif not os.path.lexists(source) and glob.has_magic(str(source)):
        for hit in sorted(glob.glob(str(source), recursive=True)):
            if os.path.isdir(hit):
                # `**` lists every folder on its way, and their files on their own.
                if "**" not in str(source):
                    yield from _below(Path(hit), output)
            elif foreign_name(hit):
                yield Path(hit)


def _below(folder: Path, output: str | None) -> Iterator[Path]:
    root = os.path.realpath(folder)
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and (output == root or os.path.realpath(os.path.join(here, name)) != output)
        )
        yield from (Path(here, name) for name in folders if _linked_pictures(Path(here, name)))
        yield from (
            Path(here, name)
            for name in sorted(files)
            if foreign_name(name) or _nameless_picture(Path(here, name))
        )


def _linked_pictures(folder: Path) -> bool:
    try:
        return folder.is_symlink() and any(is_picture_name(path) for path in folder.iterdir())
    except OSError:
        return False


def _nameless_picture(path: Path) -> bool:
    if path.suffix or path.name.startswith(".") or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return sniff(file.read(64), "") is not None
    except OSError:
        return False
