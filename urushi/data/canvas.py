"""A sheet to draw made pages on: Pillow's drawing with edges that are smooth where wished."""

import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from urushi.data.packed import Pixels
from urushi.errors import DataError

__all__ = ["Canvas", "Colour", "Number", "Point"]

Colour = tuple[int, int, int]
Number = float | int
Point = tuple[Number, Number]

_LETTERS = "eeeeeetttaaaooiiinnnsssrrrhhlldddcuumwfgypbvkjxqz"
_SIGNS = ".,,;:!?-()/&%+=#@*\"'"


@lru_cache(maxsize=256)
def _font(path: Path | None, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if path is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(path), size)
    except OSError as error:
        raise DataError(
            f"{path} cannot be used as a font ({error}): name TrueType or OpenType files"
        ) from error


class Canvas:
    """What is drawn on; all places and widths are in pixels of the finished page.

    Args:
        width: of the page.
        height: of the page.
        rng: the only source of chance.
        fonts: font files beside Pillow's own font.
        smooth: draw at three times the size and reduce: smooth edges. Otherwise lines have steps,
            as on a screen; letters are smooth in both cases.
        paper: colour of the ground.
    """

    def __init__(
        self,
        width: int,
        height: int,
        rng: random.Random,
        fonts: Sequence[Path] = (),
        smooth: bool = True,
        paper: Colour = (255, 255, 255),
    ) -> None:
        self.width, self.height, self.rng, self.paper = width, height, rng, paper
        self.fonts = (None, *fonts)
        self.scale = 3 if smooth else 1
        size = (width * self.scale, height * self.scale)
        self.image = Image.new("RGB", size, paper)
        self._draw = ImageDraw.Draw(self.image)

    def pixels(self) -> Pixels:
        """The finished page, (H, W, 3)."""
        image = self.image
        if self.scale > 1:
            image = image.reduce(self.scale)
        return np.array(image, dtype=np.uint8)

    def colour(self, low: int = 0, high: int = 255) -> Colour:
        """A colour whose channels are each drawn from that range."""
        red, green, blue = (self.rng.randint(low, high) for _ in range(3))
        return red, green, blue

    def point(self) -> Point:
        """A place anywhere on the page."""
        return self.rng.uniform(0, self.width), self.rng.uniform(0, self.height)

    def font(self) -> Path | None:
        """One of the fonts; None is Pillow's own."""
        return self.rng.choice(self.fonts)

    def word(self) -> str:
        """A made word, a number, or one with a sign."""
        rng = self.rng
        chance = rng.random()
        if chance < 0.1:
            return f"{rng.randint(0, 9999)}"
        count = min(14, max(1, round(rng.gauss(5, 2.6))))
        word = "".join(rng.choice(_LETTERS) for _ in range(count))
        if chance < 0.25:
            word = word.capitalize()
        elif chance < 0.28:
            word = word.upper()
        return word + rng.choice(_SIGNS) if rng.random() < 0.15 else word

    def words(self, count: int) -> str:
        """That many words."""
        return " ".join(self.word() for _ in range(count))

    def text(
        self, place: Point, text: str, size: Number, fill: Colour, font: Path | None = None
    ) -> float:
        """Writes one line, its upper left corner at `place`; returns its length in pixels."""
        own = _font(font, max(5, round(size * self.scale)))
        self._draw.text(self._at(place), text, fill=fill, font=own)
        return own.getlength(text) / self.scale

    def line(self, points: Sequence[Point], fill: Colour, width: Number = 1.0) -> None:
        """A line through the points, its corners rounded."""
        self._draw.line(
            [self._at(p) for p in points], fill, max(1, round(width * self.scale)), joint="curve"
        )

    def polygon(
        self,
        points: Sequence[Point],
        fill: Colour | None,
        outline: Colour | None = None,
        width: Number = 1.0,
    ) -> None:
        """A closed shape, and a line around it."""
        if fill is not None:
            self._draw.polygon([self._at(p) for p in points], fill)
        if outline is not None:
            self.line([*points, points[0]], outline, width)

    def box(
        self,
        corner: Point,
        other: Point,
        fill: Colour | None,
        outline: Colour | None = None,
        width: Number = 1.0,
        radius: Number = 0.0,
    ) -> None:
        """A rectangle from its upper left to its lower right corner."""
        self._draw.rounded_rectangle(
            [self._at(corner), self._at(self._after(corner, other))],
            radius * self.scale,
            fill,
            outline,
            max(1, round(width * self.scale)),
        )

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        fill: Colour | None,
        outline: Colour | None = None,
        width: Number = 1.0,
    ) -> None:
        """An ellipse along the axes."""
        x, y = centre
        right, down = max(radii[0], 0), max(radii[1], 0)
        box = [self._at((x - right, y - down)), self._at((x + right, y + down))]
        self._draw.ellipse(box, fill, outline, max(1, round(width * self.scale)))

    def slice(
        self, centre: Point, radius: Number, start: Number, end: Number, fill: Colour
    ) -> None:
        """A slice of a disc, from one angle in degrees to another."""
        x, y = centre
        radius = max(radius, 0)
        box = [self._at((x - radius, y - radius)), self._at((x + radius, y + radius))]
        self._draw.pieslice(box, start, end, fill)

    def curve(self, points: int, reach: Number, start: Point | None = None) -> list[Point]:
        """A smooth wandering line of many short pieces, from `start` or anywhere."""
        x, y = start or self.point()
        angle, turn = self.rng.uniform(0, 6.2832), 0.0
        path = [(x, y)]
        for _ in range(points):
            turn = 0.85 * turn + self.rng.gauss(0, 0.12)
            angle += turn
            x += reach * float(np.cos(angle))
            y += reach * float(np.sin(angle))
            path.append((x, y))
        return path

    def _at(self, place: Point) -> tuple[int, int]:
        return round(place[0] * self.scale), round(place[1] * self.scale)

    @staticmethod
    def _after(corner: Point, other: Point) -> Point:
        """The other corner, never before the first."""
        return max(corner[0], other[0]), max(corner[1], other[1])
