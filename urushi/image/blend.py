"""Putting restored colours back into a source's own samples."""

from collections.abc import Iterator

import numpy as np

from urushi.image.alpha import survey
from urushi.image.colour import (
    Colours,
    ScaledColours,
    UnscaledColours,
    colours_of,
    profile_colours,
    scaled,
)
from urushi.image.enlarge import enlarge_rows
from urushi.image.info import Header, PictureInfo, read_again
from urushi.image.levels import levels_of
from urushi.image.matrix_profile import converted
from urushi.image.source import NativeRows
from urushi.image.target import Layout

__all__ = ["Blend"]


class Blend:
    """Turns restored rows into samples of the target, reading the source alongside where needed.

    Going through a profile and back is not always exact: 16 bits of Lab, curves that are flat or
    steep near black, and in CMYK the many inks that look the same. Then only the *change* is taken
    through the profile: `native + back(restored) - back(source)`. Either way, what was not changed
    comes out bit for bit, and a CMYK picture keeps its separation. An enlarged picture has no
    pixels of its source left, and is taken through the profile as it is.

    Args:
        like: the source.
        layout: of the samples to make.
        scale: by which both sides of the source were enlarged.
        own: the restored rows are in primaries of the source's own; see `PictureReader`.
    """

    def __init__(
        self, like: PictureInfo, layout: Layout, scale: int = 1, *, own: bool = False
    ) -> None:
        header = read_again(like)
        self._info, self._layout = header.info, layout
        self._own = colours_of(header, own=own)
        self._colours = _colours_of_target(header, layout, self._own, own)
        # From the rows' primaries to sRGB's, where the target has no others.
        self._to_srgb = None if self._colours.to_srgb is not None else self._own.to_srgb
        # Where the samples come to mean something else, there is nothing to add a change to.
        alike = _inner(self._colours) is _inner(self._own)
        self._by_change = alike and scale == 1 and not self._colours.exact_at(layout.bits)
        self._transparency = survey(header.info)
        needed = layout.alpha or self._by_change
        self._source = NativeRows(header) if needed else None
        self._alpha = None
        if self._source is not None and scale > 1:
            self._alpha = _Queue(enlarge_rows(self._read_alpha, scale))
        self._row = 0

    def apply(self, restored: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` restored rows -> `(n, W, bands)` samples of the target."""
        if self._to_srgb is not None:
            restored = converted(restored, self._to_srgb)
        if self._source is None:
            return self._layout.quantise(self._colours.from_working(restored))
        if self._alpha is not None:
            samples = self._layout.quantise(self._colours.from_working(restored))
            alpha = self._layout.quantise(np.clip(self._alpha.take(len(restored)), 0.0, 1.0))
            return np.concatenate([samples, alpha], axis=2)
        native = self._source.read(restored.shape[0])
        channels = self._info.channels
        if self._by_change:
            values = self._change(native[..., :channels], restored)
            if self._info.has_alpha and self._transparency.hollow:
                hidden = native[..., channels] == 0
                if hidden.any():
                    values[hidden] = self._colours.from_working(restored)[hidden]
        else:
            values = self._colours.from_working(restored)
        samples = self._layout.quantise(values)
        self._row += restored.shape[0]
        if not self._layout.alpha:
            return samples
        alpha = self._layout.convert(native[..., channels:])
        return np.concatenate([samples, alpha], axis=2)

    def _read_alpha(self, rows: int) -> np.ndarray:
        """The next rows of the source's transparency, full intensity 1."""
        assert self._source is not None
        alpha = scaled(self._source.read(rows)[..., self._info.channels :])
        return alpha.astype(np.float32, copy=False)

    def _change(self, native: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """The source's samples plus the change, full intensity 1."""
        if isinstance(self._own, ScaledColours) and not isinstance(self._colours, ScaledColours):
            native = self._own.unscaled(native)
        before = self._colours.from_working(self._colours.to_working(native))
        after = self._colours.from_working(restored)
        values = scaled(native) + (after - before)
        if self._info.kind != "cmyk":
            return values
        # A separation unlike the profile's may lack the room for a large change; then the
        # profile's own separation gives the colour.
        values = np.clip(values, 0.0, 1.0)
        kept = np.abs(self._colours.to_working(values) - restored).max(axis=2, keepdims=True)
        fresh = np.abs(self._colours.to_working(after) - restored).max(axis=2, keepdims=True)
        return np.where(kept <= fresh + 1.0 / 255.0, values, after)

    def close(self) -> None:
        """Lets go of the source."""
        if self._source is not None:
            self._source.close()
            self._source = None


def _inner(colours: Colours) -> UnscaledColours:
    return colours.inner if isinstance(colours, ScaledColours) else colours


def _colours_of_target(header: Header, layout: Layout, source: Colours, own: bool) -> Colours:
    """What the samples of the target mean.

    Its own white, and light that is not encoded, a picture keeps where its samples stay of one
    type. Samples of other types, and what was stated by a format that is left, become usual ones;
    but a white that was only found never makes the picture brighter.
    """
    info = header.info
    if layout.kind != info.kind:
        return layout.plain()
    if info.stated is not None:
        if layout.stated is None:
            return layout.plain()
        return profile_colours(info.kind, layout.stated.profile(info.kind), own=own)
    if layout.bits == info.bits:
        return source
    levels = levels_of(header)
    usual = layout.plain() if levels.linear else _inner(source)
    return usual if levels.told else ScaledColours(usual, levels.white, info.full)


class _Queue:
    """Rows that come in pieces of any size, taken in others."""

    def __init__(self, pieces: Iterator[np.ndarray]) -> None:
        self._pieces = pieces
        self._held: list[np.ndarray] = []

    def take(self, count: int) -> np.ndarray:
        """The next rows, exactly so many; there must be that many."""
        while sum(map(len, self._held)) < count:
            self._held.append(next(self._pieces))
        rows = np.concatenate(self._held)
        self._held = [rows[count:]]
        return rows[:count]
