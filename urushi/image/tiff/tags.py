"""Tags of a TIFF that libvips does not carry: where on Earth it lies, and what programs add.

Numbers after TIFF 6.0, GeoTIFF 1.1 (OGC 19-008), GDAL's and Adobe's lists, and libtiff's tags.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from urushi.image.tiff.exif_directory import Tag

__all__ = ["RESOLUTION", "PrivateTags", "colour_tags", "private_tags"]

RESOLUTION = (282, 283, 296)
"""Columns and rows to a unit of length, and that unit."""

# The curve, the white and the primaries of the samples.
_COLOURS = (301, 318, 319)
# Names of a document, its page and the printer it is meant for.
_PLAIN = frozenset((269, 285, 337))
_GEO = frozenset((33550, 33920, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844, 50909))
_FIRST_PRIVATE = 32768
# How samples are stored, or what is carried by other means: sizes of volumes, mosaics, copyright,
# XMP, IPTC, Photoshop's resources, profile, EXIF, fax, Windows' texts.
_ELSEWHERE = frozenset(
    (*range(32995, 32999), 33421, 33422, 33432, 33723, 34377, 34665, 34675, 34853, 34908, 34909)
) | {34910, 34929, 40965, *range(40091, 40096)}
# A stack that is described and not written; directories; and what a raw file says of its sensor.
_ELSEWHERE |= {33424, 50838, 50839, 65024, *range(50706, 50835), *range(50879, 50909)}
_ELSEWHERE |= {*range(50910, 51023), *range(51041, 51115)}
# What points to other places of its file, or holds the pixels themselves.
_LOST = {
    37724: "Photoshop's layers",
    34412: "the facts of a Zeiss microscope",
    **dict.fromkeys(range(33628, 33632), "the facts of MetaMorph"),
    **dict.fromkeys(range(65420, 65500), "the facts of a Hamamatsu slide scanner"),
}


@dataclass(frozen=True)
class PrivateTags:
    """What can be carried over, and the names of what has to stay behind."""

    kept: Mapping[int, Tag]
    lost: tuple[str, ...]


def colour_tags(tags: Mapping[int, Tag | None]) -> dict[int, Tag]:
    """What a TIFF says of its colours without a profile; it holds for samples of the same kind."""
    return {tag: value for tag in _COLOURS if (value := tags.get(tag)) is not None}


def private_tags(tags: Mapping[int, Tag | None], *, same: bool, to_tiff: bool) -> PrivateTags:
    """Sorts the tags of a source.

    Args:
        tags: of its main directory.
        same: whether each pixel is where it was: neither turned nor enlarged.
        to_tiff: whether the target is a TIFF.
    """
    lost = [name for tag, name in _LOST.items() if tag in tags]
    private = {
        tag
        for tag in tags
        if tag in _PLAIN or (tag >= _FIRST_PRIVATE and tag not in _ELSEWHERE and tag not in _LOST)
    }
    kept: dict[int, Tag] = {}
    for tag in private if to_tiff else ():
        value = tags[tag]
        if value is not None and (same or tag in _PLAIN):
            kept[tag] = value
    return PrivateTags(kept, tuple(dict.fromkeys([*_names(private - set(kept)), *lost])))


def _names(tags: Iterable[int]) -> list[str]:
    """What people call them."""
    tags = sorted(tags)
    names = ["the place on Earth (GeoTIFF)"] if not _GEO.isdisjoint(tags) else []
    others = [str(tag) for tag in tags if tag not in _GEO]
    if len(others) > 6:
        others = [*others[:5], f"{len(others) - 5} more"]
    if others:
        names.append(f"TIFF tag{'s' if len(others) > 1 else ''} {', '.join(others)}")
    return names
