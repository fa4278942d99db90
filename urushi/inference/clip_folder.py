"""The CLIP of a router as a folder beside the router's file, in the layout of `transformers`.

A router file names its CLIP and does not hold it: a gigabyte, which belongs to others. Beside it,
in a folder of that name, the CLIP is found without a network.
"""

import copy
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from urushi.errors import AdapterError, FileFormatError, TargetError
from urushi.files.router_file import ClipFacts, EncoderFacts

if TYPE_CHECKING:
    from urushi.routing.encoders import ClipEncoder, Encoder

__all__ = ["clip_beside", "clip_folder", "write_clip"]

_CONFIG = "config.json"


def clip_folder(router: Path, facts: EncoderFacts) -> Path | None:
    """Where the CLIP of a router file would lie; None for a router that has no CLIP.

    Args:
        router: the router's file.
        facts: what it says of its encoder.
    """
    if not isinstance(facts, ClipFacts):
        return None
    # The name is from a file of anybody: its last part never leads out of the folder.
    name = PurePosixPath(facts.name.replace("\\", "/")).name
    return router.parent / name if name not in ("", ".", "..") else None


def clip_beside(router: Path, facts: EncoderFacts) -> str | None:
    """The folder of a router's CLIP, if it is there; that it is the right one is not checked."""
    folder = clip_folder(router, facts)
    return str(folder) if folder is not None and (folder / _CONFIG).is_file() else None


def write_clip(encoder: "Encoder", folder: Path) -> list[Path]:
    """Write a CLIP whole or not at all, in 16 bits where that loses nothing.

    Args:
        encoder: a router's.
        folder: target; one that holds this CLIP already is left as it is.

    Returns:
        The files that were written; none where it was there before.

    Raises:
        TargetError: something else is there.
        FileFormatError: the disk refuses.
    """
    import torch

    from urushi.routing.encoders import ClipEncoder

    assert isinstance(encoder, ClipEncoder)
    if folder.exists():
        _check_same(encoder, folder)
        return []
    tower = encoder.tower
    short = all(torch.equal(p, p.bfloat16().to(p.dtype)) for p in tower.parameters())
    if short:
        tower = copy.deepcopy(tower).to(torch.bfloat16)
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        tower.save_pretrained(part)
        part.replace(folder)
    except OSError as error:
        raise FileFormatError(f"{folder} cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return sorted(folder.iterdir())


def _check_same(encoder: "ClipEncoder", folder: Path) -> None:
    from urushi.routing.encoders import ClipEncoder

    try:
        same = ClipEncoder(str(folder), download=False).facts
    except AdapterError:
        same = None
    if same is None or same.projection_hash != encoder.facts.projection_hash:
        raise TargetError(
            f"{folder} holds another CLIP than the router's: move it, or import into another folder"
        )
