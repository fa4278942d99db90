"""Pictures that folders and patterns pass over: not read, without a suffix, or behind a link."""

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from urushi.image import foreign_name, is_picture_name
from urushi.image.formats import sniff

__all__ = ["passed_over"]


def passed_over(sources: Sequence[str | Path], output: str | Path | None = None) -> list[Path]:
    """What `plan_batch` makes no job of although it is, or holds, a picture.

    That are pictures of formats that are not read, by their names; files without a suffix, by their
    first bytes; and folders with pictures that are links, which are not followed.

    Args:
        sources: files, folders and patterns; a file that is named itself is never passed over.
        output: the output folder, which is not looked into where it lies within the sources.

    Returns:
        Sorted within each source, and each file once.
    """
    inside = None if output is None else os.path.realpath(output)
    found: dict[str, Path] = {}
    for source in sources:
        for path in _of(source, inside):
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
