"""Files out of a request's body, put where they belong."""

import asyncio
import shutil
from pathlib import Path

from fastapi import UploadFile

from urushi.serve.client_names import shown_name, suffix_for
from urushi.serve.problems import RefusedError
from urushi.serve.store import Picture, Store

__all__ = ["keep_file", "keep_picture"]


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
