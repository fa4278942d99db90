"""The resolution that EXIF states, for formats that have no other place for it."""

import struct
from typing import Any

from urushi.image.libvips import fields_of, vips

__all__ = ["with_exif_resolution"]

_X, _Y, _UNIT = 282, 283, 296
# ResolutionUnit -> millimetres; without one, EXIF means inches.
_MILLIMETRES = {None: 25.4, 2: 25.4, 3: 10.0}
_DAMAGE = (SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error)


def with_exif_resolution(image: Any) -> Any:
    """Gives an image of WebP, AVIF or HEIF the resolution of its EXIF, which libvips reads only
    in JPEG and PNG.

    Args:
        image: from libvips' loader.

    Returns:
        The image, or a copy with `xres` and `yres` in pixels per millimetre.
    """
    if "exif-data" not in fields_of(image):
        return image
    found = _resolution(bytes(image.get("exif-data")))
    if found is None:
        return image
    image = image.copy(xres=found[0], yres=found[1])
    image.set_type(vips().GValue.gstr_type, "resolution-unit", "cm" if found[2] == 3 else "in")
    return image


def _resolution(exif: bytes) -> tuple[float, float, int | None] | None:
    """Pixels per millimetre, across and down, and EXIF's unit; None where nothing is stated."""
    from PIL import Image

    tags = Image.Exif()
    try:
        tags.load(exif)
        unit = tags.get(_UNIT)
        millimetres = _MILLIMETRES.get(unit)
        if millimetres is None or _X not in tags:
            return None
        across = float(tags[_X]) / millimetres
        down = float(tags.get(_Y, tags[_X])) / millimetres
    except (*_DAMAGE, ZeroDivisionError):
        return None
    if not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    return across, down, unit
