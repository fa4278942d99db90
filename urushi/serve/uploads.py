"""Files out of a request's body, put where they belong."""

import asyncio
import shutil
import unicodedata
from pathlib import Path, PurePosixPath

from fastapi import UploadFile

from urushi.image import FORMATS, READ_SUFFIXES, foreign_name
from urushi.image.formats.known import sniff
from urushi.serve.kept_work import Picture, Store
from urushi.serve.problems import RefusedError

__all__ = [
    "keep_file",
    "keep_picture",
    "result_name",
    "shown_name",
    "stem_of",
    "suffix_for",
]

_LONGEST = 120


def shown_name(name: str | None, otherwise: str = "picture") -> str:
    """A client's file name without folders, and without what could mislead or break a header.

    Args:
        name: as it was sent.
        otherwise: what it is called where nothing is left.
    """
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    kept = "".join(c for c in last if unicodedata.category(c)[0] != "C" and c not in '<>:"|?*')
    kept = " ".join(kept.split()).lstrip(".").strip()
    if len(kept) > _LONGEST:
        path = PurePosixPath(kept)
        ending = path.suffix if len(path.suffix) < 12 else ""
        kept = path.name[: _LONGEST - len(ending)] + ending
    return kept or otherwise


def stem_of(name: str) -> str:
    """A shown name without its suffix."""
    return PurePosixPath(name).stem or name


def result_name(name: str, suffix: str) -> str:
    """What a restored picture is called, as the command calls it beside its source."""
    return f"{stem_of(name)}_restored{suffix}"


def suffix_for(name: str, head: bytes) -> str:
    """The suffix of the file that a sent picture is kept in.

    Args:
        name: as it was sent; its suffix counts where it is one that Urushi knows, as the command
            goes by it.
        head: the first 64 bytes.
    """
    suffix = Path(shown_name(name)).suffix.lower()
    if suffix in READ_SUFFIXES or foreign_name(f"a{suffix}"):
        return suffix
    format = sniff(head)
    return FORMATS[format].suffixes[0] if format else ".bin"


async def keep_file(upload: UploadFile, target: Path, most: int | None = None) -> int:
    """Writes a file that was sent; returns its bytes.

    Raises:
        RefusedError: it is empty, or larger than `most`.
    """
    size = upload.size or 0
    if size == 0:
        raise RefusedError(422, f"'{shown_name(upload.filename)}' is empty: get a complete copy.")
    if most is not None and size > most:
        raise RefusedError(
            413, f"'{shown_name(upload.filename)}' has more than {most / 1e6:.0f} MB"
        )

    def copy() -> None:
        upload.file.seek(0)
        with target.open("xb") as file:
            shutil.copyfileobj(upload.file, file, 1 << 20)

    await asyncio.to_thread(copy)
    return size


async def keep_picture(store: Store, client: str, upload: UploadFile) -> Picture:
    """Keeps a picture that was sent; it is not looked at.

    Raises:
        RefusedError: it is empty, or the client has too much here.
    """
    store.admit(client, upload.size or 0)
    head = await upload.read(64)
    id, folder = store.place("picture")
    source = folder / f"picture{suffix_for(upload.filename or '', head)}"
    picture = Picture(id, client, folder, name=shown_name(upload.filename), source=source)
    try:
        await keep_file(upload, source)
    except BaseException:
        store.remove(picture)
        raise
    return store.add(picture)
