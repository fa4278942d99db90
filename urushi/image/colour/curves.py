"""Tone curves: what ICC profiles say about them, and functions of float32 that cost little.

A tone curve takes encoded values to linear light. All here are odd-symmetric, so colours outside a
gamut, which have negative components, keep their sign.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["LINEAR", "SRGB", "Tabulated", "ToneCurve", "parametric_tag", "read_curve"]

_Function = Callable[[np.ndarray], np.ndarray]

# Leaves sign, exponent and ten bits of mantissa, which is as exact as float32 sums are.
_SHIFT = 13
_LARGEST = 1e30
_BLOCK = 3 * 2**12
# How a curve that is given by samples goes on beyond full intensity; ours, the usual gamma.
_BEYOND = 2.2


@dataclass(frozen=True)
class ToneCurve:
    """Encoded -> linear and back, for float64 values of at least 0.

    Attributes:
        linear: encoded -> linear.
        encoded: linear -> encoded.
    """

    linear: _Function
    encoded: _Function


class Tabulated:
    """A function of one number, odd-symmetric, as 1024 straight pieces to every octave.

    The upper bits of a float32 number the piece, so neither sign nor size needs a case of its own.
    For a power with an exponent between 0.3 and 3 the relative error is below 1e-6.

    Args:
        function: of float64 values of at least 0.
    """

    def __init__(self, function: _Function) -> None:
        bits = np.arange((1 << (31 - _SHIFT)) + 1, dtype=np.uint32) << np.uint32(_SHIFT)
        # Infinity and what is no number lie beyond the last edge.
        last = np.float32(_LARGEST).view(np.uint32)
        edges = np.minimum(bits, last).view(np.float32).astype(np.float64)
        values = np.clip(function(edges), 0.0, _LARGEST)
        step = np.diff(edges)
        slope = np.divide(np.diff(values), step, out=np.ones_like(step), where=step > 0)
        slope = np.minimum(slope, _LARGEST)
        pieces = np.stack([values[:-1] - slope * edges[:-1], slope], axis=-1)
        pieces = np.concatenate([pieces, pieces * (-1.0, 1.0)]).astype(np.float32)
        # One gather fetches both numbers of a piece.
        self._pieces = np.ascontiguousarray(pieces).view(np.float64)[:, 0]

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Float32 of any shape -> a new array of that shape."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        result = np.empty_like(flat)
        number = np.empty(min(_BLOCK, flat.size), np.int64)
        found = np.empty(number.size, np.float64)
        # Small blocks stay in the processor's cache from one step to the next.
        for start in range(0, flat.size, _BLOCK):
            x, y = flat[start : start + _BLOCK], result[start : start + _BLOCK]
            n = x.size
            np.right_shift(x.view(np.uint32), _SHIFT, out=number[:n], casting="unsafe")
            self._pieces.take(number[:n], out=found[:n], mode="clip")
            pieces = found[:n].view(np.float32).reshape(n, 2)
            np.multiply(x, pieces[:, 1], out=y)
            y += pieces[:, 0]
        return result.reshape(values.shape)


def _parametric(
    g: float, a: float, b: float, c: float, d: float, e: float, f: float
) -> ToneCurve | None:
    """`(a x + b)^g + e` from `d` on, `c x + f` below (ICC.1:2022, 10.18)."""
    if not (g > 0 and a > 0 and c >= 0):
        return None

    def linear(x: np.ndarray) -> np.ndarray:
        return np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f)

    knee = float(linear(np.array(max(d, 0.0))))

    def encoded(y: np.ndarray) -> np.ndarray:
        upper = (np.maximum(y - e, 0.0) ** (1.0 / g) - b) / a
        lower = np.minimum((y - f) / c, d) if c > 0 else d
        return np.maximum(np.where(y >= knee, upper, lower), 0.0)

    return ToneCurve(linear, encoded)


def _sampled(values: np.ndarray) -> ToneCurve | None:
    """Straight lines between equidistant samples; None where the curve runs downhill."""
    if values[-1] <= 0 or values[-1] <= values[0] or (np.diff(values) < 0).any():
        return None
    grid = np.linspace(0.0, 1.0, values.size)
    top = float(values[-1])

    def linear(x: np.ndarray) -> np.ndarray:
        beyond = top * np.maximum(x, 1.0) ** _BEYOND
        return np.where(x <= 1.0, np.interp(x, grid, values), beyond)

    def encoded(y: np.ndarray) -> np.ndarray:
        within = np.where(y <= values[0], 0.0, np.interp(y, values, grid))
        return np.where(y <= top, within, (np.maximum(y, top) / top) ** (1.0 / _BEYOND))

    return ToneCurve(linear, encoded)


def read_curve(tag: bytes) -> ToneCurve | None:
    """A 'curv' or 'para' tag of an ICC profile (ICC.1:2022, 10.6 and 10.18).

    Returns:
        The curve, or None for anything that is none, or that cannot be undone.
    """
    try:
        if tag[:4] == b"curv":
            (count,) = struct.unpack_from(">I", tag, 8)
            if count == 0:
                return _parametric(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            samples = np.frombuffer(tag, ">u2", count, 12).astype(np.float64)
            if count == 1:
                return _parametric(samples[0] / 256.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
            return _sampled(samples / 65535.0)
        if tag[:4] == b"para":
            (kind,) = struct.unpack_from(">H", tag, 8)
            count = {0: 1, 1: 3, 2: 4, 3: 5, 4: 7}.get(kind, 0)
            given = [v / 65536.0 for v in struct.unpack_from(f">{count}i", tag, 12)]
            return _of_kind(kind, given) if given else None
    except (struct.error, ValueError):
        return None
    return None


def parametric_tag(numbers: tuple[float, ...]) -> bytes:
    """A 'para' tag of kind 0 (a power) or 3 (a power with a straight toe)."""
    kind = {1: 0, 5: 3}[len(numbers)]
    values = struct.pack(f">{len(numbers)}i", *(round(value * 65536) for value in numbers))
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + values


def _of_kind(kind: int, given: list[float]) -> ToneCurve | None:
    """The five shapes of 'para' as one."""
    g, a, b, c, d, e, f = (given + [0.0] * 7)[:7]
    if kind == 0:
        return _parametric(g, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    if kind >= 3:
        return _parametric(g, a, b, c, d, e, f)
    if a <= 0:
        return None
    # Constant below -b/a: zero, or in kind 2 the offset that stands where c does elsewhere.
    return _parametric(g, a, b, 0.0, -b / a, c, c)


def _srgb() -> ToneCurve:
    """IEC 61966-2-1."""
    curve = _parametric(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0)
    assert curve is not None
    return curve


def _straight() -> ToneCurve:
    curve = _parametric(1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    assert curve is not None
    return curve


SRGB = _srgb()
LINEAR = _straight()
