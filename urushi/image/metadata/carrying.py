"""What a picture carries besides its pixels, from a source to a target.

libvips writes most of it. What it does not know, or would not write as it stands, is put into the
finished file: comments and long XMP of a JPEG, texts of a PNG, tags of a TIFF. It also gives every
PNG and TIFF a resolution, which is taken out again where the source has none.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from urushi.errors import TargetError
from urushi.image.formats.heif_boxes import heif_extras
from urushi.image.formats.jpeg_parts import (
    APP1,
    APP13,
    COMMENT,
    PHOTOSHOP,
    JpegParts,
    insert_segments,
    read_jpeg_parts,
    segment,
)
from urushi.image.formats.png_chunks import (
    PngParts,
    read_png_parts,
    rewrite_png,
    text_chunk,
    xmp_chunk,
)
from urushi.image.info import Header
from urushi.image.libvips import fields_of, vips
from urushi.image.metadata.companions import companions
from urushi.image.metadata.exif import COLOUR_SPACE, tags_of, take_out, without_thumbnail
from urushi.image.metadata.photoshop import converted_iptc, true_resources
from urushi.image.metadata.xmp import split_xmp, true_xmp
from urushi.image.tiff.exif_directory import LONGEST_BLOCK, Tag, append_exif, read_exif, read_tags
from urushi.image.tiff.picture_directories import page_offset
from urushi.image.tiff.tags import RESOLUTION, colour_tags, private_tags

__all__ = ["Luggage", "with_profile"]

# libvips' VipsForeignKeep.
_EXIF, _XMP, _IPTC, _ICC, _OTHER = 1, 2, 4, 8, 16
# Pixels per millimetre; libvips gives it to pictures without any, or 1, by format.
_USUAL_RESOLUTION = 72 / 25.4
_NO_RESOLUTION = 1.0
_EXIF_RESOLUTION = {f"exif-ifd0-{name}Resolution" for name in "XY"}
_TEXT_FIELDS = ("exif-ifd0-", "exif-ifd2-", "exif-ifd3-")
_FORMATS_WITH_RESOURCES = ("jpeg", "tiff")
# What of libvips' block of IPTC fits one segment of a JPEG.
_LONGEST_RESOURCES = 65500
_MOST_KEYWORDS = 5
# What an ICC profile begins with: its length.
_SIZE_OF_PROFILE = struct.Struct(">I")


@dataclass
class Luggage:
    """What goes from one source into one target.

    `attach` gives an image what libvips writes, `finish` the written file what it does not.

    Args:
        header: of the source.
        format: of the target.
        strip: leave EXIF, XMP, IPTC, texts and comments behind.
        scale: by which both sides were enlarged; the resolution grows with them.
        notes: takes one sentence if anything is lost.
        description: in place of what a TIFF's ImageDescription says; empty for none.
    """

    header: Header
    format: str
    strip: bool
    scale: int
    notes: list[str]
    description: bytes | None = None
    _jpeg: JpegParts = field(default_factory=JpegParts)
    _png: PngParts = field(default_factory=PngParts)
    _tags: dict[int, Tag | None] = field(default_factory=dict)
    _lost: dict[str, None] = field(default_factory=dict)
    # Contents of segments of a JPEG, with their numbers, for `finish`.
    _segments: list[tuple[int, bytes]] = field(default_factory=list)
    _chunks: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        path = self.header.info.path
        if self._from == "jpeg":
            self._jpeg = read_jpeg_parts(path)
        elif self._from == "png":
            self._png = read_png_parts(path)
        elif self._from == "tiff":
            self._tags = read_tags(path, start=self._start)

    @property
    def _from(self) -> str:
        return self.header.info.format

    @property
    def _start(self) -> int | None:
        """Where a TIFF tells of this page."""
        return page_offset(self.header.info.path, self.header.info.page)

    @property
    def _turned(self) -> bool:
        return self.header.info.orientation > 1

    @property
    def _size(self) -> tuple[int, int]:
        return self.scale * self.header.info.width, self.scale * self.header.info.height

    def attach(self, image: Any, *, profile: bool) -> tuple[Any, int]:
        """Gives an image its source's resolution, profile and metadata.

        Orientation is reset, since the pixels are turned already; thumbnails stay behind, since
        they show the picture as it was, and so does what announces things that are gone.

        Args:
            image: to be written.
            profile: whether the source's ICC profile describes this image.

        Returns:
            The image, and the flags of what libvips is to write. Without EXIF in the source,
            libvips would make some up, so that is named only where there is any.
        """
        source = self.header.image
        fields = fields_of(source)
        states = self._states_resolution(fields)
        # libvips writes a pixel per millimetre where it knows nothing; that is no size to keep.
        grown = self.scale if abs(source.xres - _NO_RESOLUTION) > 1e-6 else 1
        if states:
            image = image.copy(xres=grown * source.xres, yres=grown * source.yres)
        else:
            image = image.copy(xres=_USUAL_RESOLUTION, yres=_USUAL_RESOLUTION)
        text, blob = vips().GValue.gstr_type, vips().GValue.blob_type
        if "resolution-unit" in fields:
            image.set_type(text, "resolution-unit", source.get("resolution-unit"))
        keep = _OTHER
        if profile and self.header.profile is not None:
            image.set_type(blob, "icc-profile-data", self._profile(self.header.profile))
            keep |= _ICC
        # Without EXIF, libvips writes no resolution into these; with it, little besides that.
        if self.format not in ("png", "tiff") and states:
            keep |= _EXIF
        if self.strip:
            return image, keep
        keep |= self._attach_blocks(image, fields)
        for name in fields:
            if name.startswith(_TEXT_FIELDS):
                image.set_type(text, name, source.get(name))
        image.set_type(vips().GValue.gint_type, "orientation", 1)
        if grown > 1 and states:
            # Taking EXIF over has taken over what it says of the resolution, too.
            image = image.copy(xres=grown * source.xres, yres=grown * source.yres)
            for name in _EXIF_RESOLUTION & fields_of(image):
                image.remove(name)
        return image, keep

    def _profile(self, profile: bytes) -> bytes:
        """The source's ICC profile as the target takes it.

        Raises:
            TargetError: libpng refuses it.
        """
        if self.format != "png" or len(profile) < _SIZE_OF_PROFILE.size:
            return profile
        # libpng wants as many bytes as the profile says it has; others do not look.
        (said,) = _SIZE_OF_PROFILE.unpack_from(profile)
        if said < len(profile):
            profile = profile[:said]
        else:
            profile = _SIZE_OF_PROFILE.pack(len(profile)) + profile[_SIZE_OF_PROFILE.size :]
        tiny = vips().Image.black(1, 1, bands=self.header.info.channels)
        tiny = tiny.copy(interpretation="b-w" if tiny.bands == 1 else "srgb")
        tiny.set_type(vips().GValue.blob_type, "icc-profile-data", profile)
        try:
            tiny.pngsave_buffer(keep=_ICC)
        except vips().Error as error:
            raise TargetError(
                f"PNG cannot hold the colour profile of '{self.header.info.path}', which libpng"
                " refuses: choose TIFF or JPEG."
            ) from error
        return profile

    def _attach_blocks(self, image: Any, fields: set[str]) -> int:
        """EXIF, XMP, and what IPTC and Photoshop have; gives the flags of what is there."""
        source, keep = self.header.image, 0
        blob = vips().GValue.blob_type
        exif = self._exif(fields)
        if exif is not None and (self._from, self.format) != ("tiff", "tiff"):
            image.set_type(blob, "exif-data", without_thumbnail(exif))
            keep |= _EXIF
            whole = self._exif(fields, longest=None)
            if whole is not None and len(whole) > LONGEST_BLOCK and self.format != "tiff":
                # libvips leaves them out, as `read_exif` does.
                self._lost["the notes of the camera's maker (too long)"] = None
        given = source.get("xmp-data") if "xmp-data" in fields else self._png.hidden.get("xmp")
        packet = self._packet(given)
        if packet is not None and self.format == "png":
            # libvips would write it as `zTXt`, which is Latin-1.
            self._chunks.append(xmp_chunk(packet))
        elif packet is not None:
            image.set_type(blob, "xmp-data", packet)
            keep |= _XMP
        iptc = source.get("iptc-data") if "iptc-data" in fields else self._png.hidden.get("iptc")
        if self._from in _FORMATS_WITH_RESOURCES:
            iptc = self._resources(image, fields, iptc)
        elif iptc is not None:
            iptc = converted_iptc(iptc, self.header.info.path, self._from, self.format)
        if iptc and self.format in _FORMATS_WITH_RESOURCES:
            image.set_type(blob, "iptc-data", iptc)
            keep |= _IPTC
        elif iptc:
            self._lost["IPTC"] = None
        return keep

    def _exif(self, fields: set[str], longest: int | None = LONGEST_BLOCK) -> bytes | None:
        """The source's EXIF as a block; of a TIFF, at most so many bytes."""
        if self._from == "tiff":
            path, description = self.header.info.path, self.description
            return read_exif(path, longest, start=self._start, description=description)
        if "exif-data" in fields:
            return bytes(self.header.image.get("exif-data"))
        return self._png.hidden.get("exif")

    def _packet(self, given: bytes | None) -> bytes | None:
        """The XMP that libvips is to write."""
        packet = self._jpeg.xmp if self._from == "jpeg" else given
        if packet is None:
            return None
        told = true_xmp(packet, *self._size, scale=self.scale, more=self._jpeg.more_xmp)
        self._lost.update(dict.fromkeys(told.lost))
        if told.packet is None or self.format != "jpeg":
            return told.packet
        cut = split_xmp(told.packet)
        if cut is None:
            self._lost["XMP (too long for a JPEG)"] = None
            return None
        self._segments += [(APP1, piece) for piece in cut[1]]
        return cut[0]

    def _resources(self, image: Any, fields: set[str], iptc: bytes | None) -> bytes | None:
        """Takes Photoshop's resources over; gives the block of IPTC that libvips is to write."""
        block = self._jpeg.photoshop
        if self._from == "tiff" and "photoshop-data" in fields:
            block = self.header.image.get("photoshop-data")
        inside = self._from == "jpeg" and self.format == "jpeg"
        kept = true_resources(block, turned=self._turned, grown=self.scale > 1, iptc=inside)
        self._lost.update(dict.fromkeys(kept.lost))
        if iptc is not None and not inside:
            iptc = converted_iptc(iptc, self.header.info.path, self._from, self.format)
        if self.format == "tiff":
            if kept.block:
                image.set_type(vips().GValue.blob_type, "photoshop-data", kept.block)
            return iptc
        if self.format != "jpeg":
            if kept.has_paths:
                self._lost["Photoshop's paths"] = None
            return iptc
        head = PHOTOSHOP
        whole = (b"" if inside else (iptc or b"").removeprefix(head)) + kept.block
        if len(whole) <= _LONGEST_RESOURCES:
            return head + whole if whole else None
        # Readers put the contents of several segments together.
        for at in range(0, len(whole), _LONGEST_RESOURCES):
            piece = head + whole[at : at + _LONGEST_RESOURCES]
            self._segments.append((APP13, piece))
        return None

    def _states_resolution(self, fields: set[str]) -> bool:
        """Whether the source says how large it is to be printed."""
        image = self.header.image
        if self._from == "png":
            # The fields of EXIF hold what libvips makes up, too.
            exif = bytes(image.get("exif-data")) if "exif-data" in fields else b""
            return self._png.states_size or RESOLUTION[0] in tags_of(exif)
        if self._from == "tiff":
            # So many pixels for each of something are no length that other formats could state.
            measured = self.format == "tiff" or "resolution-unit" in fields
            return RESOLUTION[0] in self._tags and measured
        if abs(image.xres - _NO_RESOLUTION) < 1e-6:
            return False
        return "resolution-unit" in fields or abs(image.xres - _USUAL_RESOLUTION) > 0.01

    def finish(
        self, path: Path, chunks: bytes = b"", tags: Mapping[int, Tag] | None = None
    ) -> None:
        """Gives the written file what libvips does not write, and says what is lost.

        Args:
            path: of the file.
            chunks: whole ones that a PNG is to have, whatever else is left behind.
            tags: the same for a TIFF, where its samples mean what the source's do; None elsewhere.

        Raises:
            OSError: there is no room.
        """
        states = self._states_resolution(fields_of(self.header.image))
        colours = colour_tags(self._tags)
        if tags is not None and self.format == "tiff":
            tags = {**colours, **tags}
        elif colours:
            self._lost["the colours that tags of the TIFF state"] = None
        if self.format == "tiff":
            self._finish_tiff(path, states, tags or {})
        elif self.format == "png":
            texts = [] if self.strip else self._chunks + self._texts()
            if chunks or texts or not states:
                rewrite_png(path, add=[chunks, *texts], drop=() if states else (b"pHYs",))
        elif self.format == "jpeg" and not self.strip:
            self._segments += [(COMMENT, text) for text in self._jpeg.comments]
            insert_segments(path, [segment(*s) for s in self._segments])
        if self.format != "tiff":
            take_out(path, self.format, self._made_up(states))
        if not self.strip:
            self._tell()

    def _made_up(self, states: bool) -> set[int]:
        """Tags of EXIF that libvips and libexif write of their own accord."""
        exif = self._exif(fields_of(self.header.image))
        known = set() if exif is None or self.strip else tags_of(exif)
        return ({COLOUR_SPACE} - known) | (set() if states else set(RESOLUTION))

    def _finish_tiff(self, path: Path, states: bool, tags: Mapping[int, Tag]) -> None:
        exif = None
        if not self.strip:
            tags = {**self._private(), **tags}
            exif = self._exif(fields_of(self.header.image), longest=None)
        append_exif(path, exif, *self._size, more=tags, drop=() if states else RESOLUTION)

    def _private(self) -> dict[int, Tag]:
        """Tags of a TIFF that libvips does not know."""
        same = self.scale == 1 and not self._turned
        sorted_out = private_tags(self._tags, same=same, to_tiff=self.format == "tiff")
        self._lost.update(dict.fromkeys(sorted_out.lost))
        return dict(sorted_out.kept)

    def _texts(self) -> list[bytes]:
        """Chunks of text for a PNG."""
        if self._from == "png":
            return [*self._png.texts, *self._png.others]
        return [text_chunk("Comment", _decoded(comment)) for comment in self._jpeg.comments]

    def _tell(self) -> None:
        """Adds the sentence on what is lost."""
        if self.format != "tiff":
            self._private()
        if self._jpeg.gain_map or companions(self.header.info.path, self._from).gain_map:
            self._lost["gain map"] = None
        if self._jpeg.credentials or self._png.credentials:
            # They vouch for the pixels that were.
            self._lost["content credentials"] = None
        if self._jpeg.private:
            names = _some(self._jpeg.private)
            self._lost[f"segments that only their maker reads ({names})"] = None
        if self._png.keywords and self.format != "png":
            self._lost[f"texts of the PNG ({_some(self._png.keywords)})"] = None
        chunks = self._png.lost
        if self.format != "png":
            chunks += tuple(chunk[4:8].decode("latin-1") for chunk in self._png.others)
        if chunks:
            self._lost[f"chunks of the PNG ({_some(chunks)})"] = None
        if self._from in ("avif", "heif"):
            self._lost.update(dict.fromkeys(heif_extras(self.header.info.path)))
        if self._jpeg.comments and self.format not in ("jpeg", "png"):
            self._lost["the comment of the JPEG"] = None
        # What was named with the source already.
        for word in ("video", "picture"):
            if any(word in beside for beside in self.header.info.beside):
                self._lost.pop({"video": "video", "picture": "second picture"}[word], None)
        if self._lost:
            self.notes.append(f"Not in the result: {', '.join(self._lost)}.")


def with_profile(image: Any, profile: bytes, keep: int) -> tuple[Any, int]:
    """Gives an image an ICC profile; see `Luggage.attach`."""
    image = image.copy()
    image.set_type(vips().GValue.blob_type, "icc-profile-data", profile)
    return image, keep | _ICC


def _some(names: Sequence[str]) -> str:
    names = list(dict.fromkeys(names))
    more = len(names) - _MOST_KEYWORDS
    return ", ".join(names[:_MOST_KEYWORDS]) + (f" and {more} more" if more > 0 else "")


def _decoded(text: bytes) -> str:
    """A comment of unknown encoding: UTF-8 if it can be, else Latin-1."""
    try:
        return text.decode().rstrip("\0")
    except UnicodeDecodeError:
        return text.decode("latin-1").rstrip("\0")
