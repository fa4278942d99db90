"""libvips as this library uses it: loaded when first needed, with small caches, and never noisy."""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from urushi.image.formats.known import FORMATS
from urushi.image.opened import OpenFile

__all__ = [
    "can_write",
    "fields_of",
    "from_array",
    "open_image",
    "own_errors",
    "reason",
    "to_array",
    "vips",
]

_FORMAT_OF_DTYPE = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}
_INTERPRETATIONS = {
    ("grey", "uint8"): "b-w",
    ("grey", "uint16"): "grey16",
    ("grey", "float32"): "b-w",
    ("rgb", "uint8"): "srgb",
    ("rgb", "uint16"): "rgb16",
    ("rgb", "float32"): "scrgb",
    ("cmyk", "uint8"): "cmyk",
    ("cmyk", "uint16"): "cmyk",
    ("cmyk", "float32"): "cmyk",
}


_FAILING = threading.RLock()


@functools.cache
def vips() -> ModuleType:
    """The `pyvips` module, set up for streaming.

    Nothing is computed twice here, so the operation cache would only hold memory and open files.
    More than four threads cost memory and do not decode one picture faster.
    """
    import pyvips

    pyvips.cache_set_max(0)
    pyvips.cache_set_max_mem(0)
    pyvips.cache_set_max_files(0)
    pyvips.concurrency_set(min(4, os.cpu_count() or 1))  # pyright: ignore[reportAttributeAccessIssue]
    return pyvips


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """Lets no other thread in, so that what fails here says why, and nothing of another file.

    libvips has one buffer of errors for all threads: of two that fail at once, one says why the
    other did, and that one says nothing. What often fails belongs here, such as reading headers;
    decoding does not, which takes long and seldom fails.
    """
    with _FAILING:
        vips().vips_lib.vips_error_clear()
        yield


def open_image(
    source: Path | OpenFile,
    format: str,
    *,
    broken: bool = False,
    place: Mapping[str, int] = MappingProxyType({}),
) -> Any:
    """Opens a file for one pass from top to bottom; only its header is read now.

    The loader is named outright: libvips' own search could choose a loader for something that is
    no picture.

    Args:
        source: the file.
        format: a name in `FORMATS`.
        broken: take whatever pixels can be decoded. Otherwise errors stop the decoding, and in a
            JPEG warnings do: libjpeg has no more than those for corrupt data.
        place: which of the file's pictures: libvips' `page` and `subifd`.

    Raises:
        pyvips.Error: what libvips says when the header is damaged.
        OSError: the file cannot be opened.
    """
    file = source if isinstance(source, OpenFile) else OpenFile(source)
    stream = vips().SourceCustom()
    stream.on_read(file.read)
    stream.on_seek(file.seek)
    loader = getattr(vips().Image, FORMATS[format].loader + "_source")
    fail_on = "none" if broken else "warning" if format == "jpeg" else "error"
    with own_errors():
        image = loader(stream, access="sequential", fail_on=fail_on, **place)
    # Lives as long as the image, and what is made of it: pyvips hands its references on.
    image._references.append(stream)
    return image


def fields_of(image: Any) -> set[str]:
    """The names of what is known of an image; those that are not UTF-8 are left out.

    libvips makes names of what stands in files, such as keywords of a PNG in Latin-1.
    """
    try:
        return set(image.get_fields())
    except UnicodeDecodeError:
        return {name for name in _raw_names(image) if name is not None}


def _raw_names(image: Any) -> list[str | None]:
    """All names; None for those that are not UTF-8."""
    library, names = vips(), []
    listed = library.vips_lib.vips_image_get_fields(image.pointer)
    index = 0
    while listed[index] != library.ffi.NULL:
        name = library.ffi.string(listed[index])
        library.glib_lib.g_free(listed[index])
        try:
            names.append(name.decode())
        except UnicodeDecodeError:
            names.append(None)
        index += 1
    library.glib_lib.g_free(listed)
    return names


def interpretation(kind: str, dtype: np.dtype) -> str:
    """What libvips calls pixels of this kind and depth."""
    return _INTERPRETATIONS[kind, dtype.name]


def vips_format(dtype: np.dtype) -> str:
    """What libvips calls this sample type."""
    return _FORMAT_OF_DTYPE[dtype.name]


def from_array(pixels: np.ndarray, meaning: str) -> Any:
    """A libvips image over a copy of `(H, W, C)` pixels; `meaning` is a libvips interpretation."""
    height, width, bands = pixels.shape
    data = np.ascontiguousarray(pixels)
    image = vips().Image.new_from_memory(data, width, height, bands, vips_format(data.dtype))
    return image.copy(interpretation=meaning)


def to_array(image: Any, dtype: np.dtype) -> np.ndarray:
    """The pixels of a libvips image, `(H, W, C)`."""
    pixels = np.frombuffer(image.write_to_memory(), dtype)
    return pixels.reshape(image.height, image.width, image.bands)


def reason(error: Exception) -> str:
    """One clause out of an exception's message, which for libvips may run over many lines."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    detail = str(getattr(error, "detail", "") or error)
    lines = [line.strip(" .\n") for line in detail.splitlines()]
    clauses = [line for line in lines if line and not line.startswith("unable to call ")]
    # libvips tells first what it met on the way, and the cause last.
    return clauses[-1] if clauses else "no reason is given"


@functools.cache
def can_write(format: str) -> bool:
    """Whether the libvips that is installed can write this format.

    HEIF containers need an encoder that builds of libvips often lack, so those are tried.
    """
    if not FORMATS[format].kinds:
        return False
    if format not in ("avif", "heif"):
        saver = FORMATS[format].loader.replace("load", "save")
        return vips().type_find("VipsOperation", saver) != 0
    try:
        tiny = vips().Image.black(16, 16, bands=3).copy(interpretation="srgb")
        tiny.heifsave_buffer(compression=compression(format), effort=0)
    except vips().Error:
        return False
    return True


def compression(format: str) -> str:
    """The codec inside a HEIF container."""
    return "av1" if format == "avif" else "hevc"
