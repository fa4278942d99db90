"""Which sample value means white, and whether samples are light or encoded.

Formats mostly leave no doubt: white is the greatest integer, or 1. But cameras store 12 bits in
TIFFs of 16, programs store 0..255 or metres as floating point, and floating point without a profile
is linear light by the custom of renderers, raw developers and libvips (scRGB). To take one for the
other would make a picture white, or have it brightened as if it were dark.
"""

import functools
from dataclasses import dataclass, replace

import numpy as np

from urushi.errors import UnreadableError
from urushi.image.info import Header, PictureInfo, read_again
from urushi.image.opened import Identity, identity_of
from urushi.image.source import NativeRows
from urushi.image.tiff.exif_directory import Tag, read_numbers, read_tags
from urushi.image.tiff.picture_directories import tiff_pages
from urushi.names import counted

__all__ = ["Levels", "levels_of", "tags_of_white"]

_MAX_SAMPLE, _SMAX_SAMPLE = 281, 341
# Bits that cameras have, stored in 16. Dark photographs end as low as 14 bits do, but hardly
# between half of that and all of it; and 8 bits that were made 16 are multiples of 257.
_IN_USE = (1023, 4095, 16383)
_HALF_OF_LARGEST = 8192
# Floating point beyond this is no light of a picture, except for a few lamps.
_BRIGHT, _LAMPS = 8.0, 0.01
_USUAL_WHITES = (255.0, 4095.0, 65535.0)
_STEP_BYTES = 6 * 2**20


@dataclass(frozen=True)
class Levels:
    """What the samples of a file mean.

    Attributes:
        white: the value that means white.
        told: whether the user or the file says so.
        linear: whether they are linear light in sRGB's primaries though no profile says so.
        note: a sentence for the user, or nothing.
    """

    white: float
    told: bool = True
    linear: bool = False
    note: str = ""


def levels_of(header: Header) -> Levels:
    """What the samples mean, by what the user says, the file says, or its samples show.

    A picture of 16 bits is looked through until it shows more than 14, one of floating point whole;
    asking again about an unchanged file costs nothing.

    Raises:
        UnreadableError: the samples are floating point of a range in which 1 cannot be white.
    """
    info = header.info
    white, linear = info.samples.white, info.samples.linear
    if info.bits == 8 or info.format in ("avif", "heif"):
        return Levels(info.full)
    plain = not (info.has_profile or info.stated or info.kind == "cmyk")
    if white is not None:
        return Levels(float(white), linear=bool(linear) and plain)
    found = _found(info, info.identity or identity_of(info.path))
    if not (found.told or info.samples.in_use):
        found = replace(found, white=info.full)
    if linear is None:
        return found
    note = "" if info.bits == 32 else found.note
    return replace(found, linear=linear and plain, note=note)


@functools.lru_cache(maxsize=8)
def _found(info: PictureInfo, identity: Identity) -> Levels:
    """See `levels_of`. `identity` tells one state of the file from another."""
    if info.bits == 32:
        return _of_floats(info)
    for values in _stated(info).values():
        # Some programs store the greatest sample there is instead, which says little.
        if values and 255 < max(values) <= info.full / 2:
            return Levels(max(values), note=f"Its white is {max(values):.0f}, as its tags say.")
    most, coarse = _greatest(info)
    white = next((value for value in _IN_USE if most <= value), None)
    if coarse or most <= 255 or white is None or (white == _IN_USE[-1] and most < _HALF_OF_LARGEST):
        return Levels(info.full)
    if info.has_profile or info.stated:
        # Whoever says how samples are encoded has developed them to the whole range.
        return Levels(
            info.full,
            note=f"Its samples end at {most} of {info.full:.0f}, and it is taken for a dark"
            f" picture, since it states its colours. If its white is {white}, say --white {white}.",
        )
    note = (
        f"Its samples end at {most} of {info.full:.0f}, and it stays as dark as it is. If its white"
        f" is {white}, say --white {white}."
    )
    return Levels(float(white), told=False, note=note)


def _of_floats(info: PictureInfo) -> Levels:
    """Whether 1 can be white, and what floating point means then."""
    least, most, bright, beyond = _range(info)
    if (most > _BRIGHT and (bright > _LAMPS or beyond > 0.5)) or least < -_BRIGHT:
        stated = _stated(info).get(_SMAX_SAMPLE, ())
        if stated and max(stated) >= most:
            return Levels(max(stated), note=f"Its white is {max(stated):g}, as its tags say.")
        usual = next((white for white in _USUAL_WHITES if white / 2 < most <= white), most)
        raise UnreadableError(
            f"'{info.path}' has floating-point samples from {least:.6g} to {most:.6g}, where 1"
            " should be white: divide them by their white, or name it where a command asks for it"
            f" (--white {usual:.6g})."
        )
    if info.has_profile or info.stated or info.kind == "cmyk":
        return Levels(1.0)
    return Levels(
        1.0,
        linear=True,
        note="Its floating-point samples are taken as linear light, since it has no profile:"
        " --no-linear takes them as sRGB.",
    )


def tags_of_white(header: Header) -> dict[int, Tag]:
    """Tags of a TIFF on its greatest sample that are true of a result with samples of its kind.

    What is restored reaches white at most, or as far as its source does: what leaves room for that
    stays true, and what is the greatest sample by chance need not.
    """
    info = header.info
    white, stated = levels_of(header).white, _stated(info)
    room = [tag for tag, values in stated.items() if values and min(values) >= white]
    found = read_tags(info.path, room, start=_start(info)) if room else {}
    return {tag: value for tag, value in found.items() if value is not None}


def _stated(info: PictureInfo) -> dict[int, tuple[float, ...]]:
    """The greatest samples that the tags of a TIFF name, by tag."""
    if info.format != "tiff":
        return {}
    return read_numbers(info.path, _SMAX_SAMPLE, _MAX_SAMPLE, start=_start(info))


def _start(info: PictureInfo) -> int | None:
    """Where the directory of this page begins; None for the first one."""
    pages = tiff_pages(info.path).pages
    return pages[info.page].offset if info.page < len(pages) else None


def _greatest(info: PictureInfo) -> tuple[int, bool]:
    """The greatest sample, as far as need be, and whether all are multiples of 257."""
    most, coarse = 0, True
    for rows in _stored_rows(info):
        most = max(most, int(rows.max()))
        if most > _IN_USE[-1]:
            break
        coarse = coarse and not (rows % 257).any()
    return most, coarse


def _range(info: PictureInfo) -> tuple[float, float, float, float]:
    """Least and greatest sample, and which parts of all lie beyond what is bright, and beyond 1."""
    least, most, bright, beyond, count, odd = np.inf, -np.inf, 0, 0, 0, 0
    for rows in _stored_rows(info):
        finite = rows[np.isfinite(rows)]
        odd += rows.size - finite.size
        if finite.size:
            least, most = min(least, float(finite.min())), max(most, float(finite.max()))
            bright += int((finite > _BRIGHT).sum())
            beyond += int((finite > 1.0).sum())
            count += finite.size
    if odd:
        raise UnreadableError(
            f"'{info.path}' has {counted(odd, 'sample that is', 'samples that are')} NaN or "
            f"infinite, of {count + odd}, where"
            " numbers were expected: replace them first."
        )
    return least, most, bright / max(count, 1), beyond / max(count, 1)


def _stored_rows(info: PictureInfo):  # noqa: ANN202
    """The colours of a picture as they lie in the file, a few rows at a time."""
    with NativeRows(read_again(info)) as source:
        yield from source.stored(_STEP_BYTES, info.channels)
