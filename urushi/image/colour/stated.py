"""Colours that a file states without an ICC profile.

In PNG by its chunks cICP, or gAMA and cHRM; in AVIF and HEIF by the numbers of an nclx box; by the
Adobe RGB of EXIF. What is stated is turned into an ICC profile, so that one way leads to all of it.
"""

import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from urushi.errors import UnreadableError
from urushi.image.colour.curves import parametric_tag
from urushi.image.colour.primaries import (
    ADOBE_RGB,
    PRIMARIES,
    SRGB_PRIMARIES,
    Chromaticities,
    xyz_of_primaries,
)
from urushi.image.colour.profiles import profile_tags
from urushi.image.formats.heif_boxes import nclx_of
from urushi.image.formats.png_chunks import short_chunks
from urushi.image.libvips import fields_of
from urushi.image.tiff.exif_directory import LONGEST_BLOCK, is_adobe_rgb, read_exif
from urushi.image.tiff.picture_directories import page_offset

__all__ = ["Stated", "stated_colours"]

_SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_LINEAR = (1.0,)
_PQ, _HLG = 16, 18
_UNSPECIFIED = (0, 2, 3)
# By the number of ITU-T H.273 (table 3). The curve of BT.709 and its kin is that of cameras;
# pictures with it are shown as sRGB.
_CURVES: dict[int, tuple[float, ...]] = {
    **dict.fromkeys((1, 6, 11, 12, 13, 14, 15), _SRGB),
    4: (2.2,),
    5: (2.8,),
    7: _SRGB,
    8: _LINEAR,
    17: (2.6,),
}
_USUAL_GAMMA = 1 / 2.2


@dataclass(frozen=True)
class Stated:
    """Primaries and a curve.

    Attributes:
        by: what states them: 'cICP', 'gAMA', 'cHRM', 'nclx' or 'EXIF'.
        primaries: red, green, blue and white.
        curve: encoded -> linear: the numbers of a 'para' tag of an ICC profile, of kind 0 or 3.
        chunks: those of a PNG, whole, as they stand.
    """

    by: str
    primaries: Chromaticities
    curve: tuple[float, ...]
    chunks: bytes = b""

    @property
    def linear(self) -> bool:
        """Whether the samples are light itself, or nearly."""
        return len(self.curve) == 1 and self.curve[0] < 1.25

    def portable(self) -> "Stated | None":
        """The same colours as other formats hold them: in few bits, with a curve; None for sRGB."""
        other = replace(self, curve=_SRGB if self.linear else self.curve, chunks=b"")
        return None if _is_srgb(other) else other

    def profile(self, kind: str) -> bytes | None:
        """An ICC profile (ICC.1:2022) that says the same of grey or RGB samples."""
        columns = xyz_of_primaries(self.primaries)
        if columns is None or kind not in ("grey", "rgb"):
            return None
        curve = parametric_tag(self.curve)
        tags = {
            b"desc": _text(f"Colours as stated by {self.by}"),
            b"cprt": _text("No copyright, use freely"),
            b"wtpt": _xyz(0.96420288, 1.0, 0.82490540),
        }
        if kind == "grey":
            return _assembled(b"GRAY", {**tags, b"kTRC": curve})
        for i, name in enumerate((b"r", b"g", b"b")):
            tags |= {name + b"XYZ": _xyz(*columns[:, i]), name + b"TRC": curve}
        return _assembled(b"RGB ", tags)


def stated_colours(path: Path, format: str, image: Any, *, page: int = 0) -> Stated | None:
    """What a file states of its colours beside an ICC profile, if that counts.

    Args:
        path: of the file.
        format: its name in `FORMATS`.
        image: libvips' image of it, whose profile comes before all but cICP.
        page: which of a TIFF's pages it is, from 0.

    Returns:
        What is stated, or None for nothing, for sRGB, and for what the profile overrules.

    Raises:
        UnreadableError: the tones are those of HDR (PQ, HLG), or otherwise unlike any picture here.
    """
    fields = fields_of(image)
    profile = image.get("icc-profile-data") if "icc-profile-data" in fields else None
    if profile is not None:
        _refuse_hdr(path, "an ICC profile", _cicp_of(profile))
    found = None
    if format == "png":
        found = _of_png(path, profile is not None)
    elif format in ("avif", "heif"):
        codes = nclx_of(path)
        _refuse_hdr(path, "nclx", codes)
        if codes is not None and profile is None:
            found = _of_codes("nclx", *codes)
    if found is None and profile is None:
        exif = image.get("exif-data") if "exif-data" in fields else None
        if format == "tiff":
            exif = read_exif(path, LONGEST_BLOCK, start=page_offset(path, page))
        if exif is not None and is_adobe_rgb(exif):
            # Adobe RGB (1998), 4.3.1.2: the gamma is 2 and 51/256.
            found = Stated("EXIF", ADOBE_RGB, (2.19921875,))
    if found is None or _is_srgb(found):
        return None
    return found


def _of_png(path: Path, profiled: bool) -> Stated | None:
    """The chunks before the pixels, in the order in which they count (PNG, third edition, 4.3)."""
    chunks = short_chunks(path)
    if b"cICP" in chunks and len(chunks[b"cICP"][8:-4]) == 4:
        primaries, transfer, matrix, full = chunks[b"cICP"][8:-4]
        _refuse_hdr(path, "cICP", (primaries, transfer))
        if matrix != 0 or full != 1:
            raise UnreadableError(
                f"'{path}' has samples that are not RGB over their full range (cICP {primaries},"
                f" {transfer}, {matrix}, {full}), which is not supported: convert it to sRGB first."
            )
        found = _of_codes("cICP", primaries, transfer)
        if found is not None:
            return replace(found, chunks=chunks[b"cICP"])
    if profiled or b"sRGB" in chunks:
        return None
    by, primaries, curve, kept = "", SRGB_PRIMARIES, _SRGB, b""
    if len(chunk := chunks.get(b"cHRM", b"")) == 44:
        numbers = [value / 100000 for value in struct.unpack(">8I", chunk[8:-4])]
        given: Chromaticities = (*numbers[2:], *numbers[:2])  # pyright: ignore[reportAssignmentType]
        if xyz_of_primaries(given) is not None:
            by, primaries, kept = "cHRM", given, chunk
    if len(chunk := chunks.get(b"gAMA", b"")) == 16:
        gamma = struct.unpack(">I", chunk[8:-4])[0] / 100000
        if 0.1 <= gamma <= 3.0:
            by, kept = "gAMA", chunk + kept
            usual = abs(gamma - _USUAL_GAMMA) < 0.005 and _near(primaries, SRGB_PRIMARIES)
            curve = _SRGB if usual else (1.0 / gamma,)
    return Stated(by, primaries, curve, kept) if by else None


def _of_codes(by: str, primaries: int, transfer: int) -> Stated | None:
    """The numbers of H.273; what is left unspecified is sRGB."""
    known = PRIMARIES.get(primaries)
    curve = _CURVES.get(transfer)
    if primaries in _UNSPECIFIED and transfer in _UNSPECIFIED:
        return None
    if primaries in _UNSPECIFIED:
        known = SRGB_PRIMARIES
    if transfer in _UNSPECIFIED:
        curve = _SRGB
    return None if known is None or curve is None else Stated(by, known, curve)


def _refuse_hdr(path: Path, by: str, codes: tuple[int, int] | None) -> None:
    name = {_PQ: "PQ", _HLG: "HLG"}.get(codes[1] if codes is not None else 0)
    if name is not None:
        raise UnreadableError(
            f"'{path}' is an HDR picture ({name}, as {by} says), whose tones would be lost: "
            "export it as SDR, or as floating-point TIFF, first."
        )


def _cicp_of(profile: bytes) -> tuple[int, int] | None:
    """The numbers of a profile's 'cicp' tag (ICC.1:2022, 9.2.17)."""
    tag = profile_tags(profile).get(b"cicp", b"")
    return (tag[8], tag[9]) if len(tag) >= 12 and tag[:4] == b"cicp" else None


def _is_srgb(found: Stated) -> bool:
    return _near(found.primaries, SRGB_PRIMARIES) and found.curve == _SRGB


def _near(one: Chromaticities, other: Chromaticities) -> bool:
    return max(abs(a - b) for a, b in zip(one, other, strict=True)) < 0.002


def _text(text: str) -> bytes:
    data = text.encode("utf-16be")
    return b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(data), 28) + data


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _assembled(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Header, table and values of a display profile of version 4.3; equal values stand once."""
    places: dict[bytes, int] = {}
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        if value not in places:
            places[value] = start + len(body)
            body += value + bytes(-len(value) % 4)
        table += struct.pack(">4sII", name, places[value], len(value))
    head = struct.pack(">I4xI4s4s4s", start + len(body), 0x04300000, b"mntr", space, b"XYZ ")
    head += (
        struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
        + bytes(28)
        + _xyz(0.96420288, 1.0, 0.82490540)[8:]
    )
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
