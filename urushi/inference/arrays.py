"""Pictures held in memory: what can be restored of them, and whether a result can be right."""

import math

import numpy as np
from jaxtyping import Float

from urushi.errors import PictureError
from urushi.image.enlarge import enlarge
from urushi.inference.engines.base import Engine, smallest_side

__all__ = [
    "LEAST_PSNR",
    "WHITE",
    "as_array",
    "as_layers",
    "colours_of",
    "enlarged_alpha",
    "problem_in_int8",
    "problem_of",
    "telling_windows",
]

# Noise may leave [0, 1]; values beyond this are of another range, most likely 0..255.
PLAUSIBLE = 8.0
WHITE = {"uint8": 255.0, "uint16": 65535.0, "float32": 1.0, "float64": 1.0}


def enlarged_alpha(alpha: np.ndarray, scale: int) -> np.ndarray:
    """`(H, W, 1)` -> the same dtype and range, both sides `scale` times as long."""
    if scale == 1:
        return alpha
    white = WHITE[alpha.dtype.name]
    values = np.clip(enlarge(alpha.astype(np.float32), scale), 0.0, white)
    return np.rint(values) if alpha.dtype.kind == "u" else values


def as_array(image: object) -> np.ndarray:
    """A picture as a plain array: of subclasses such as `np.matrix` the pixels alone.

    Raises:
        PictureError: it cannot be one.
    """
    try:
        array = np.asarray(image)
    except (TypeError, ValueError, RuntimeError) as error:
        # RuntimeError: a tensor of torch that is being trained.
        message = f"a picture must be a numpy array, not {type(image).__name__}"
        raise PictureError(f"{message}: {error!s:.200}") from error
    if array.ndim == 0 or array.dtype == object:
        what = type(image).__name__
        if isinstance(image, np.ndarray):
            what = "one of objects" if array.dtype == object else "a single number"
        raise PictureError(f"a picture must be a numpy array, not {what}")
    return array


def colours_of(image: object) -> np.ndarray:
    """The colours of a picture in floats, 1 for white, without its alpha.

    Raises:
        PictureError: it cannot be one.
    """
    array = as_array(image)
    if array.ndim not in (2, 3):
        return array
    colours = array[..., :3] if array.ndim == 3 and array.shape[2] == 4 else array
    if colours.dtype.kind == "u" and colours.dtype.name in WHITE:
        return colours.astype(np.float32) / np.float32(WHITE[colours.dtype.name])
    return colours


def as_layers(image: np.ndarray) -> np.ndarray:
    """A picture that can be restored, as `(H, W, 1 | 3 | 4)`."""
    if not isinstance(image, np.ndarray):
        raise PictureError(f"a picture must be a numpy array, not {type(image).__name__}")
    if image.dtype.name not in WHITE:
        raise PictureError(
            f"the picture's values are {image.dtype.name}, expected {', '.join(WHITE)}: "
            "convert it first"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise PictureError(
            f"the picture has the shape {image.shape}, expected (height, width) or "
            "(height, width, channels) with 1, 3 or 4 channels: reorder its axes"
        )
    if image.size == 0:
        raise PictureError(f"the picture is empty, its shape is {image.shape}")
    layers = image[:, :, None] if image.ndim == 2 else image
    if image.dtype.kind == "f":
        low, high = float(layers[:, :, :3].min()), float(layers[:, :, :3].max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise PictureError(
                "the picture holds NaN or infinite values, expected numbers in [0, 1]: "
                "replace them first"
            )
        if max(-low, high) > PLAUSIBLE:
            raise PictureError(
                f"the picture's values go from {low:g} to {high:g}, expected [0, 1]: "
                "divide them by the value of white, such as 255"
            )
    return layers


# Of int8 to float32, in dB. Rounding alone leaves 47 and more, even at noise of sigma 50 (of 255);
# where ranges are left it is 35 and less.
LEAST_PSNR = 40.0
# Two windows of 64 for each so many pixels of side: a tenth of the time of float32.
_CELL = 384
_AT_ONCE = 8


def problem_of(tile: np.ndarray, restored: np.ndarray) -> str:
    """What is wrong with a result, as the end of a sentence; empty if nothing is."""
    low, high = restored.min(axis=(1, 2)), restored.max(axis=(1, 2))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return "NaN or infinite values"
    if (low == high).all() and np.ptp(tile, axis=(1, 2)).any():
        return "a single flat colour"
    return ""


def problem_in_int8(engine: Engine, tile: Float[np.ndarray, "3 h w"]) -> str:
    """Say what is wrong with int8 on a tile, as the end of a sentence; empty if nothing is.

    Args:
        engine: in int8.
        tile: as the engine takes it, in [0, 1].

    Raises:
        EngineError: the engine fails in float32.
    """
    side = min(smallest_side(engine), *tile.shape[1:])
    windows = telling_windows(tile, side)
    exact = engine.in_float32()
    for start in range(0, len(windows), _AT_ONCE):
        part = windows[start : start + _AT_ONCE]
        rounded, expected = (np.clip(one.run(part), 0, 1) for one in (engine, exact))
        errors = np.square(rounded - expected, dtype=np.float64).mean(axis=(1, 2, 3))
        if errors.max() > 10 ** (-LEAST_PSNR / 10):
            return "something else than float32, as outside of what its ranges were measured on"
    return ""


def telling_windows(tile: Float[np.ndarray, "3 h w"], side: int) -> Float[np.ndarray, "n 3 s s"]:
    """Cut out where ranges are likeliest left: the most change between neighbours, and contrast.

    Args:
        tile: height and width are at least `side`.
        side: of a window, in pixels.

    Returns:
        Two windows, or one where that is all there is, for each part of the tile of 384 pixels.
    """
    height, width = tile.shape[1:]
    rows, columns = height // side, width // side
    grey = tile.mean(axis=0)[: rows * side, : columns * side]
    blocks = grey.reshape(rows, side, columns, side).transpose(0, 2, 1, 3)
    change = sum(np.abs(np.diff(blocks, axis=axis)).mean(axis=(2, 3)) for axis in (2, 3))
    contrast = blocks.std(axis=(2, 3))
    chosen: dict[tuple[int, int], None] = {}
    step = max(_CELL // side, 1)
    for top in range(0, rows, step):
        for left in range(0, columns, step):
            cell = np.s_[top : top + step, left : left + step]
            for measure in (np.asarray(change)[cell].copy(), contrast[cell].copy()):
                for row, column in chosen:
                    if top <= row < top + step and left <= column < left + step:
                        measure[row - top, column - left] = -1.0
                if measure.max() >= 0:
                    row, column = np.unravel_index(measure.argmax(), measure.shape)
                    chosen[top + int(row), left + int(column)] = None
    cut = [
        tile[:, row * side : (row + 1) * side, column * side : (column + 1) * side]
        for row, column in chosen
    ]
    return np.ascontiguousarray(np.stack(cut), dtype=np.float32)
