"""Putting restored colours back into a source's own samples."""

from collections.abc import Iterator

import numpy as np

from urushi.image.alpha import survey
from urushi.image.colour.conversion import (
    Colours,
    ScaledColours,
    UnscaledColours,
    colours_of,
    profile_colours,
    scaled,
)
from urushi.image.colour.levels import levels_of
from urushi.image.colour.profiles import MatrixColours, converted
from urushi.image.enlarge import enlarge_rows
from urushi.image.info import Header, PictureInfo, read_again
from urushi.image.source import NativeRows
from urushi.image.target import Layout

__all__ = ["Blend"]

# A CMYK picture is led to its restored colours in its own separation; measured on noisy pages.
_CORRECTIONS, _DAMPING = 2, 0.7
_NEAR, _TOLERATED = 1.0 / 255.0, 12.0 / 255.0


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
        needed = layout.extra or self._by_change
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
            extra = self._alpha.take(len(restored))
            if (band := self._layout.alpha) is not None:
                # Interpolation reaches a little beyond; other channels may mean it.
                extra[..., band] = np.clip(extra[..., band], 0.0, 1.0)
            samples = self._samples(self._colours.from_working(restored), extra)
            return np.concatenate([samples, self._layout.quantise(extra)], axis=2)
        native = self._source.read(restored.shape[0])
        channels = self._info.channels
        if self._by_change:
            values = self._change(native[..., :channels], restored)
            if self._info.alpha_band is not None and self._transparency.hollow:
                hidden = native[..., self._info.alpha_band] == 0
                if hidden.any():
                    values[hidden] = self._colours.from_working(restored)[hidden]
        else:
            values = self._colours.from_working(restored)
        self._row += restored.shape[0]
        if not self._layout.extra:
            return self._layout.quantise(values)
        extra = native[..., list(self._layout.bands_taken)]
        samples = self._samples(values, scaled(extra))
        return np.concatenate([samples, self._layout.convert(extra)], axis=2)

    def _samples(self, values: np.ndarray, extra: np.ndarray) -> np.ndarray:
        """Colours, full intensity 1, as the target holds them beside these further channels."""
        layout = self._layout
        if not layout.premultiplied:
            return layout.quantise(values)
        assert layout.alpha is not None
        alpha = extra[..., layout.alpha : layout.alpha + 1]
        if layout.bits == 32:
            return layout.quantise(values * alpha)
        # libvips rounds down where it divides by the transparency: half a step puts that right.
        values = np.clip(values, 0.0, 1.0) + np.float32(0.5 / np.iinfo(layout.dtype).max)
        return layout.quantise(np.minimum(values * alpha, alpha))

    def _read_alpha(self, rows: int) -> np.ndarray:
        """The next rows of what stands beside the source's colours, full intensity 1."""
        assert self._source is not None
        extra = scaled(self._source.read(rows)[..., list(self._layout.bands_taken)])
        return extra.astype(np.float32, copy=False)

    def _change(self, native: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """The source's samples plus the change, full intensity 1."""
        if isinstance(self._own, ScaledColours) and not isinstance(self._colours, ScaledColours):
            native = self._own.unscaled(native)
        colours = self._colours
        if isinstance(colours, MatrixColours):
            before = colours.returned(native)
        else:
            before = colours.from_working(colours.to_working(native))
        after = self._colours.from_working(restored)
        values = scaled(native) + (after - before)
        if self._info.kind != "cmyk":
            return values
        return self._separated(np.clip(values, 0.0, 1.0), after, restored)

    def _separated(self, values: np.ndarray, after: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """Inks of the source's separation that give the restored colours.

        What a change of ink does depends on the inks that are there, so what is amiss is corrected
        a few times. A separation unlike the profile's may still lack the room for a large change;
        then the profile's own gives the colour. Both of them, pixel beside pixel, would be noise in
        the black plate, so the source's is kept as long as its colour is near.

        Args:
            values: `(n, W, 4)`, a first guess.
            after: the profile's own separation of `restored`.
            restored: `(n, W, 3)` in the working space.
        """
        convert, back = self._colours.to_working, self._colours.from_working
        best = values
        error = np.abs(convert(best) - restored).max(axis=2, keepdims=True)
        for _ in range(_CORRECTIONS):
            if error.max() <= _NEAR:
                return best
            values = np.clip(values + _DAMPING * (after - back(convert(values))), 0.0, 1.0)
            now = np.abs(convert(values) - restored).max(axis=2, keepdims=True)
            better = (now < error) & (error > _NEAR)
            best, error = np.where(better, values, best), np.where(better, now, error)
        fresh = np.abs(convert(after) - restored).max(axis=2, keepdims=True)
        return np.where(error <= fresh + _TOLERATED, best, after)

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
    type and in one format. Samples of other types and other formats, which could not say such a
    white, and what was stated by a format that is left, become usual ones; but a white that was
    only found never makes the picture brighter.
    """
    info = header.info
    if layout.kind != info.kind:
        return layout.plain()
    if info.stated is not None:
        if layout.stated is None:
            return layout.plain()
        return profile_colours(info.kind, layout.stated.profile(info.kind), own=own)
    if (layout.bits, layout.format) == (info.bits, info.format):
        return source
    levels = levels_of(header)
    usual = layout.plain() if levels.linear else _inner(source)
    found = not levels.told and levels.white != info.full
    return ScaledColours(usual, levels.white, info.full) if found else usual


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
