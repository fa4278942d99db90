"""Putting restored colours back into a source's own samples."""

import numpy as np

from urushi.image.alpha import survey
from urushi.image.colour import colours_of, scaled
from urushi.image.info import PictureInfo, read_header
from urushi.image.source import NativeRows
from urushi.image.target import Layout

__all__ = ["Blend"]


class Blend:
    """Turns restored rows into samples of the target, reading the source alongside where needed.

    Going through a profile and back is not always exact: 16 bits of Lab, curves that are flat or
    steep near black, and in CMYK the many inks that look the same. Then only the *change* is taken
    through the profile: `native + back(restored) - back(source)`. Either way, what was not changed
    comes out bit for bit, and a CMYK picture keeps its separation.

    Args:
        like: the source.
        layout: of the samples to make.
    """

    def __init__(self, like: PictureInfo, layout: Layout) -> None:
        header = read_header(like.path, None)
        self._info, self._layout = header.info, layout
        same = layout.kind == header.info.kind
        self._own = colours_of(header)
        self._colours = self._own if same else layout.plain()
        self._by_change = not self._colours.exact_at(layout.bits)
        self._transparency = survey(header.info)
        needed = layout.alpha or self._by_change
        self._source = NativeRows(header) if needed else None
        self._row = 0

    def apply(self, restored: np.ndarray) -> np.ndarray:
        """`(n, W, 3)` in the working space -> `(n, W, bands)` samples of the target."""
        if self._source is None:
            return self._layout.quantise(self._colours.from_working(restored))
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

    def _change(self, native: np.ndarray, restored: np.ndarray) -> np.ndarray:
        """The source's samples plus the change, full intensity 1."""
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
