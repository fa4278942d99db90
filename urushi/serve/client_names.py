"""Names that clients give their files: shown again, never used as a path."""

import unicodedata
from pathlib import Path, PurePosixPath

from urushi.image import FORMATS, READ_SUFFIXES, foreign_name
from urushi.image.formats.known import sniff

__all__ = ["result_name", "shown_name", "stem_of", "suffix_for"]

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
