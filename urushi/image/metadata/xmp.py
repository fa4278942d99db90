"""XMP that stays true: what it says of things that are no longer in the file is taken out.

Phones announce in XMP what stands elsewhere in their files: gain maps, videos, depth maps, a second
packet (Adobe's XMP specification, part 3; Google's formats of motion photos, depth maps and
containers; Adobe's and Android's of gain maps). None of these survives a picture that is made anew.
"""

import hashlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.dom import minidom
from xml.parsers.expat import ExpatError

__all__ = ["Xmp", "split_xmp", "true_xmp"]

_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
_NOTE = "http://ns.adobe.com/xmp/note/"
_GOOGLE = "http://ns.google.com/photos"
_CONTAINER = f"{_GOOGLE}/1.0/container/"
_CAMERA = f"{_GOOGLE}/1.0/camera/"
_GAIN_MAP, _VIDEO, _DEPTH, _SECOND = "gain map", "video", "depth map", "second picture"
# Namespace -> what its properties announce; empty for what is dropped without a word, since it
# never holds for a new file.
_ANNOUNCED = {
    "http://ns.adobe.com/hdr-gain-map/1.0/": _GAIN_MAP,
    "http://ns.apple.com/HDRGainMap/1.0/": _GAIN_MAP,
    "http://ns.apple.com/pixeldatainfo/1.0/": "",
    _CONTAINER: _SECOND,
    f"{_CONTAINER}item/": "",
    f"{_GOOGLE}/1.0/depthmap/": _DEPTH,
    f"{_GOOGLE}/1.0/image/": _SECOND,
    f"{_GOOGLE}/dd/1.0/device/": _DEPTH,
    _NOTE: "",
}
# Namespace -> beginnings of names -> what those announce.
_ANNOUNCED_BY_NAME = {
    _CAMERA: {"Motion": _VIDEO, "MicroVideo": _VIDEO},
    # What OPPO, OnePlus, vivo and Xiaomi say of what they put behind the picture.
    "http://ns.oplus.com/photos/1.0/camera/": {
        "MotionPhoto": _VIDEO,
        "OLivePhoto": _VIDEO,
        "VideoLength": _VIDEO,
    },
    "http://ns.vivo.com/photos/1.0/camera/": {"VMotionPhoto": _VIDEO},
    "http://ns.xiaomi.com/photos/1.0/camera/": {"XMPMeta": _SECOND},
    "http://ns.adobe.com/xap/1.0/": {"Thumbnails": ""},
    "http://purl.org/dc/terms/": {"provenance": "content credentials"},
}
_SEMANTICS = {"GainMap": _GAIN_MAP, "MotionPhoto": _VIDEO, "Depth": _DEPTH, "Primary": ""}
_SUSPICIOUS = tuple(
    word.encode()
    for word in (
        *_ANNOUNCED,
        *(space for space in _ANNOUNCED_BY_NAME if "/photos/" in space),
        "xapGImg",
        "xmpGImg",
        "Thumbnails",
        "dcterms:provenance",
    )
)
_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"']|>)\s*)[2-8]")
_WIDTH = re.compile(rb"((?:tiff:ImageWidth|exif:PixelXDimension)(?:=[\"']|>)\s*)\d{1,12}\b")
_HEIGHT = re.compile(rb"((?:tiff:ImageLength|exif:PixelYDimension)(?:=[\"']|>)\s*)\d{1,12}\b")
_GROWING = re.compile(
    rb"((?:tiff:[XY]Resolution|GPano:(?:FullPano|CroppedArea)\w*Pixels)"
    rb"(?:=[\"']|>)\s*)(\d{1,12})\b"
)
# What a segment of a JPEG holds, less what stands before a packet.
LONGEST_PACKET = 65502
_PIECE = 65000


@dataclass(frozen=True)
class Xmp:
    """A packet made true, and the names of what it announced and is gone."""

    packet: bytes | None
    lost: tuple[str, ...]


def true_xmp(
    packet: bytes, width: int, height: int, *, scale: int = 1, more: bytes | None = None
) -> Xmp:
    """What of a packet holds for a picture that was made anew from its file.

    Args:
        packet: as it stands.
        width, height: of the new picture.
        scale: by which both sides were enlarged.
        more: the extended packet, whose properties join the main one's.

    Returns:
        The packet with orientation and sizes corrected; None where nothing can be kept.
    """
    lost: dict[str, None] = {}
    if more is not None or any(word in packet for word in _SUSPICIOUS):
        try:
            kept = _without_announcements(packet, more, lost)
        except (ExpatError, ValueError, RecursionError):
            return Xmp(None, ("XMP (it is damaged)",))
    else:
        kept = packet
    kept = _ORIENTATION.sub(rb"\g<1>1", kept)
    kept = _WIDTH.sub(rb"\g<1>%d" % width, kept)
    kept = _HEIGHT.sub(rb"\g<1>%d" % height, kept)
    if scale > 1:
        kept = _GROWING.sub(lambda found: found[1] + b"%d" % (scale * int(found[2])), kept)
    return Xmp(kept, tuple(lost))


def split_xmp(packet: bytes) -> tuple[bytes, list[bytes]] | None:
    """A packet as a JPEG holds it: one that fits a segment, and the contents of further segments.

    The longest properties move to an extended packet, whose MD5 the main one names (XMP part 3,
    1.1.3.1).

    Returns:
        None where the packet is damaged or cannot be cut to size.
    """
    if len(packet) <= LONGEST_PACKET:
        return packet, []
    try:
        document = _parse(packet)
        descriptions = list(_descriptions(document))
        first = descriptions[0]
    except (ExpatError, ValueError, RecursionError, IndexError):
        return None
    other = _parse(
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="%s"><rdf:Description '
        b'rdf:about=""/></rdf:RDF></x:xmpmeta>' % _RDF.encode()
    )
    goal = next(_descriptions(other))
    for description in descriptions:
        _declare(goal, description)
    first.setAttributeNS(_NOTE, "xmpNote:HasExtendedXMP", "0" * 32)
    first.setAttributeNS(_XMLNS, "xmlns:xmpNote", _NOTE)
    properties = [
        (len(_text(p).encode()), n, owner, p)
        for n, (owner, p) in enumerate((d, p) for d in descriptions for p in _properties(d))
        if p.namespaceURI != _NOTE
    ]
    room = len(_written(document)) - LONGEST_PACKET
    for size, _, owner, item in sorted(properties, key=lambda entry: (-entry[0], entry[1])):
        if room <= 0:
            break
        _move(owner, item, goal)
        room -= size
    extended = _written(other)
    digest = hashlib.md5(extended, usedforsecurity=False).hexdigest().upper()
    first.setAttributeNS(_NOTE, "xmpNote:HasExtendedXMP", digest)
    main = _written(document)
    if len(main) > LONGEST_PACKET:
        return None
    head = b"http://ns.adobe.com/xmp/extension/\0" + digest.encode()
    pieces = [
        head + struct.pack(">II", len(extended), at) + extended[at : at + _PIECE]
        for at in range(0, len(extended), _PIECE)
    ]
    return main, pieces


def _without_announcements(packet: bytes, more: bytes | None, lost: dict[str, None]) -> bytes:
    """The packet, joined by what the extended one says, less what is gone."""
    document = _parse(packet)
    descriptions = list(_descriptions(document))
    if more is not None:
        try:
            _join(descriptions, more)
        except (ExpatError, ValueError, RecursionError):
            lost["extended XMP (it is damaged)"] = None
    elif any(_named(d, _NOTE, "HasExtendedXMP") for d in descriptions):
        lost["extended XMP"] = None
    for description in descriptions:
        for item in list(_properties(description)):
            announced = _announces(item)
            if announced is not None:
                lost.update(dict.fromkeys(announced))
                _remove(description, item)
    _forget_names(document)
    # A word for the container says less than one for what was in it.
    if len(lost) > 1:
        lost.pop(_SECOND, None)
    return _written(document)


def _join(descriptions: list[Any], more: bytes) -> None:
    """Gives the first description the properties of an extended packet."""
    # One packet writes several descriptions: they are about one thing.
    other = _parse(more)
    found = list(_descriptions(other))
    if not found or not descriptions:
        raise ValueError("no RDF")
    goal = descriptions[0]
    for description in found:
        _declare(goal, description)
        for item in list(_properties(description)):
            if not any(_named(d, item.namespaceURI, item.localName) for d in descriptions):
                _move(description, item, goal)


def _announces(item: Any) -> set[str] | None:
    """What a property announces that is gone; None if it may stay."""
    space, name = item.namespaceURI, item.localName
    if space == _CONTAINER and item.nodeType == item.ELEMENT_NODE:
        words = _semantics(item)
        known = {_SEMANTICS.get(word, _SECOND) for word in words} - {""}
        return known or {_SECOND}
    if space in _ANNOUNCED:
        return {_ANNOUNCED[space]} - {""}
    for start, announced in _ANNOUNCED_BY_NAME.get(space, {}).items():
        if name.startswith(start):
            return {announced} - {""}
    return None


def _semantics(directory: Any) -> set[str]:
    """What the items of a container are said to be."""
    words = set()
    for element in directory.getElementsByTagName("*"):
        if element.localName == "Semantic":
            words.add(_text_of(element))
        for attribute in _attributes(element):
            if attribute.localName == "Semantic":
                words.add(attribute.value)
    return words


def _parse(packet: bytes) -> Any:
    # No XMP declares entities; whoever does means to fill the memory.
    if b"<!" in packet.replace(b"<![CDATA[", b"").replace(b"<!--", b""):
        raise ValueError("a document type")
    return minidom.parseString(packet.strip(b"\0 \t\r\n"))


def _written(document: Any) -> bytes:
    """The document as bytes, without an XML declaration, which XMP does not have."""
    return "".join(node.toxml() for node in document.childNodes).encode()


def _descriptions(document: Any) -> Iterator[Any]:
    """Top-level descriptions."""
    for rdf in document.getElementsByTagNameNS(_RDF, "RDF"):
        for node in rdf.childNodes:
            if (node.namespaceURI, getattr(node, "localName", "")) == (_RDF, "Description"):
                yield node


def _attributes(element: Any) -> list[Any]:
    return [element.attributes.item(i) for i in range(element.attributes.length)]


def _properties(description: Any) -> Iterator[Any]:
    """Attributes and elements that say something of the picture."""
    for attribute in _attributes(description):
        if attribute.namespaceURI not in (None, _RDF, _XMLNS):
            yield attribute
    for node in list(description.childNodes):
        if node.nodeType == node.ELEMENT_NODE and node.namespaceURI:
            yield node


def _named(description: Any, space: str, name: str) -> bool:
    return any((p.namespaceURI, p.localName) == (space, name) for p in _properties(description))


def _remove(description: Any, item: Any) -> None:
    if item.nodeType == item.ATTRIBUTE_NODE:
        description.removeAttributeNode(item)
    else:
        description.removeChild(item)


def _move(description: Any, item: Any, goal: Any) -> None:
    _remove(description, item)
    if item.nodeType == item.ATTRIBUTE_NODE:
        goal.setAttributeNS(item.namespaceURI, item.name, item.value)
    else:
        goal.appendChild(goal.ownerDocument.importNode(item, True))


def _declare(goal: Any, description: Any) -> None:
    """Gives an element the names of namespaces that are known where a description stands."""
    node = description
    while node is not None and node.nodeType == node.ELEMENT_NODE:
        for attribute in _attributes(node):
            if attribute.namespaceURI == _XMLNS and not goal.hasAttribute(attribute.name):
                goal.setAttributeNS(_XMLNS, attribute.name, attribute.value)
        node = node.parentNode


def _forget_names(document: Any) -> None:
    """Drops declarations of namespaces that announced something and are not used any more."""
    elements = document.getElementsByTagName("*")
    used = {element.namespaceURI for element in elements}
    used |= {a.namespaceURI for element in elements for a in _attributes(element)}
    for element in elements:
        for attribute in _attributes(element):
            gone = attribute.value in (*_ANNOUNCED, *_ANNOUNCED_BY_NAME)
            if attribute.namespaceURI == _XMLNS and gone and attribute.value not in used:
                element.removeAttributeNode(attribute)


def _text(item: Any) -> str:
    if item.nodeType == item.ATTRIBUTE_NODE:
        return f'{item.name}="{item.value}"'
    return item.toxml()


def _text_of(element: Any) -> str:
    return "".join(node.data for node in element.childNodes if node.nodeType == node.TEXT_NODE)
