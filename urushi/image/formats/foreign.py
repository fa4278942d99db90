"""Formats of pictures that are known and not read, so that people learn what became of their files.

Told by suffix in folders, where nothing is opened, and by the first bytes of a file that is named.
"""

import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["CAMERA_RAW", "foreign_name", "foreign_title", "left_out_sentence", "way_out"]

CAMERA_RAW = frozenset(
    (
        *(".3fr", ".arw", ".bay", ".cap", ".cr2", ".cr3", ".crw", ".cs1", ".dc2", ".dcr", ".dcs"),
        *(".dng", ".drf", ".eip", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kc2", ".kdc", ".mdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".ori", ".pef", ".ptx", ".pxn", ".qtk"),
        *(".raf", ".raw", ".rw2", ".rwl", ".rwz", ".sr2", ".srf", ".srw", ".sti", ".x3f"),
    )
)
"""Suffixes of photographs as sensors see them, many of them TIFF inside with a small preview."""

_RAW = "camera raw"
_TITLES = {
    **dict.fromkeys(CAMERA_RAW, _RAW),
    ".gif": "GIF",
    **dict.fromkeys((".jxl",), "JPEG XL"),
    **dict.fromkeys((".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm"), "JPEG 2000"),
    **dict.fromkeys((".jxr", ".hdp", ".wdp"), "JPEG XR"),
    ".jls": "JPEG-LS",
    **dict.fromkeys((".mpo", ".jps", ".pns"), "stereo picture"),
    **dict.fromkeys((".apng", ".mng", ".jng"), "animated PNG"),
    **dict.fromkeys((".avifs", ".heics"), "sequence of AVIF or HEIF"),
    **dict.fromkeys((".psd", ".psb"), "Photoshop"),
    ".xcf": "GIMP",
    ".kra": "Krita",
    ".ora": "OpenRaster",
    **dict.fromkeys((".clip", ".procreate", ".afphoto", ".pdn"), "painting program"),
    ".exr": "OpenEXR",
    ".hdr": "Radiance HDR",
    **dict.fromkeys((".pfm", ".pam"), "PFM or PAM"),
    **dict.fromkeys((".dpx", ".cin"), "film scan (DPX, Cineon)"),
    **dict.fromkeys((".tga", ".targa", ".icb", ".vda"), "TGA"),
    **dict.fromkeys((".pcx", ".dcx"), "PCX"),
    **dict.fromkeys((".ico", ".cur", ".icns"), "icon"),
    ".dds": "DDS",
    **dict.fromkeys((".sgi", ".rgb", ".ras", ".sun", ".xbm", ".xpm", ".pct"), "old raster"),
    **dict.fromkeys((".svg", ".svgz", ".wmf", ".emf"), "vector drawing"),
    **dict.fromkeys((".fits", ".fit", ".fts"), "FITS"),
    **dict.fromkeys((".dcm", ".dicom"), "DICOM"),
    **dict.fromkeys((".djvu", ".djv"), "DjVu"),
    **dict.fromkeys((".qoi", ".ff", ".flif", ".bpg"), "QOI, farbfeld, FLIF or BPG"),
    **dict.fromkeys((".svs", ".ndpi", ".scn", ".mrxs", ".vsi", ".bif", ".czi"), "slide scan"),
}  # fmt: skip
_MAGIC = (
    (rb"GIF8[79]a", "GIF"),
    (rb"\xff\x0a|\x00\x00\x00\x0cJXL ", "JPEG XL"),
    (rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51", "JPEG 2000"),
    (rb"II\xbc", "JPEG XR"),
    (rb"\x8aMNG|\x8bJNG", "MNG"),
    (rb"8BPS", "Photoshop"),
    (rb"gimp xcf", "GIMP"),
    (rb"\x76\x2f\x31\x01", "OpenEXR"),
    (rb"#\?RADIANCE|#\?RGBE", "Radiance HDR"),
    (rb"P[F7][\s#]", "PFM or PAM"),
    (rb"SDPX|XPDS|\x80\x2a\x5f\xd7", "film scan (DPX, Cineon)"),
    (rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]", "PCX"),
    (rb"\x00\x00[\x01\x02]\x00[\x01-\x20]\x00|icns", "icon"),
    (rb"DDS ", "DDS"),
    (rb"\x01\xda[\x00\x01][\x01\x02]|\x59\xa6\x6a\x95", "old raster"),
    (rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml.*)?<svg|\xd7\xcd\xc6\x9a", "vector drawing"),
    (rb"%PDF", "PDF"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript"),
    (rb"SIMPLE  =", "FITS"),
    (rb".{128}DICM", "DICOM"),
    (rb"AT&TFORM", "DjVu"),
    (rb"qoif|farbfeld|FLIF|BPG\xfb", "QOI, farbfeld, FLIF or BPG"),
    (rb"II\*\x00.{4}CR|.{4}ftypcrx|FUJIFILMCCD-RAW|II(?:RO|RS|U\x00)|MMOR|FOVb|\x00MRM", _RAW),
    (rb".{4}ftyp(?:iso\w|mp4\d|qt  |M4V |avc1|3gp)|\x1a\x45\xdf\xa3|RIFF.{4}AVI ", "video"),
)
_COMPILED = tuple((re.compile(pattern, re.DOTALL), title) for pattern, title in _MAGIC)


def foreign_name(path: str | Path) -> str | None:
    """What a file that is not read would be by its name; None for other files and hidden ones."""
    path = Path(path)
    return None if path.name.startswith(".") else _TITLES.get(path.suffix.lower())


def foreign_title(head: bytes, suffix: str = "") -> str | None:
    """What a file that is not read is by its first bytes, or for TIFF inside by its suffix."""
    for pattern, title in _COMPILED:
        if pattern.match(head):
            return title
    if head[:2] in (b"II", b"MM") and suffix.lower() in CAMERA_RAW:
        return _RAW
    return _TITLES.get(suffix.lower()) if suffix.lower() in (".tga", ".targa") else None


def way_out(title: str) -> str:
    """What to do with a file of such a format."""
    if title == _RAW:
        return "develop it to a TIFF first"
    if title == "video":
        return "take single pictures out of it first"
    return "convert it to PNG or TIFF first"


def left_out_sentence(files: Iterable[Path]) -> str:
    """What of a folder is passed over, in a sentence for each reason; empty if nothing is.

    Args:
        files: of formats that are not read, without a suffix, or folders that are links.
    """
    given = list(files)
    links = [path for path in given if path.is_dir()]
    nameless = [path for path in given if not path.suffix and path not in links]
    files = [path for path in given if path.suffix and path not in links]
    sentences = [_unread_sentence(files)]
    if nameless:
        sentences.append(
            f"Pictures without a suffix are left out ({_some_names(nameless)}): name such a file"
            " itself, or give it its suffix."
        )
    if links:
        sentences.append(
            f"Folders that are links are not followed ({_some_names(links)}): name them themselves."
        )
    return " ".join(sentence for sentence in sentences if sentence)


def _some_names(paths: list[Path]) -> str:
    names = ", ".join(path.name for path in paths[:3])
    return f"{names} and {len(paths) - 3} more" if len(paths) > 3 else names


def _unread_sentence(files: list[Path]) -> str:
    counts = Counter(foreign_name(path) or "other" for path in files)
    if not counts:
        return ""
    kinds = ", ".join(f"{number} {title}" for title, number in counts.most_common())
    one = len(files) == 1
    raw = " (develop raw files to TIFF)" if _RAW in counts else ""
    return (
        f"{len(files)} picture{'' if one else 's'} left out, of a format that is not read: {kinds}"
        f" ({_some_names(files)}). Convert {'it' if one else 'them'} to PNG or TIFF first{raw}."
    )
