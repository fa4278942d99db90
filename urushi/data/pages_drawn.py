"""Made pages without much writing: line art, patterns, maps, comics and stars."""

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from urushi.data.canvas import Canvas, Colour, Number, Point
from urushi.data.packed import Pixels

__all__ = ["comic_page", "line_page", "map_page", "pattern_page", "star_page"]

_BLACK: Colour = (0, 0, 0)


def line_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """Ink on paper: curves, circles, polygons, hatched areas, dimensions of a construction."""
    tone = rng.choice((255, 255, rng.randint(225, 250)))
    page = Canvas(width, height, rng, fonts, paper=(tone, tone, tone - rng.choice((0, 0, 20))))
    ink = _BLACK if rng.random() < 0.7 else page.colour(0, 110)
    for _ in range(rng.randint(12, 45)):
        stroke = rng.choice((0.7, 1, 1, 1.5, 2, 3, 5))
        shape = rng.randint(0, 4)
        x, y = page.point()
        if shape == 0:
            page.line(page.curve(rng.randint(20, 160), 4), ink, stroke)
        elif shape == 1:
            radius = rng.uniform(4, 90)
            page.ellipse((x, y), (radius, radius * rng.choice((1, 1, 0.6))), None, ink, stroke)
        elif shape == 2:
            page.polygon(_blob(page, (x, y), rng.uniform(10, 80), 7), None, ink, stroke)
        elif shape == 3:
            _hatch(page, (x, y), ink)
        else:
            end = (x + rng.choice((0, 1)) * rng.uniform(40, 200), y + rng.uniform(0, 120))
            page.line([(x, y), end], ink, stroke)
            page.text(end, f"{rng.randint(1, 999)}", rng.choice((9, 11, 14)), ink, page.font())
    return page.pixels()


def _blob(page: Canvas, centre: Point, radius: Number, corners: int) -> list[Point]:
    """A closed shape around a place, of uneven radius."""
    points = []
    for index in range(corners):
        angle = math.tau * index / corners
        own = radius * page.rng.uniform(0.6, 1.2)
        points.append((centre[0] + own * math.cos(angle), centre[1] + own * math.sin(angle)))
    return points


def _hatch(page: Canvas, corner: Point, ink: Colour) -> None:
    rng, (x, y) = page.rng, corner
    gap, extent, slant = rng.uniform(2.5, 7), rng.uniform(25, 110), rng.uniform(-1, 1)
    for index in range(int(extent / gap)):
        at = x + index * gap
        page.line([(at, y), (at + slant * extent, y + extent)], ink, rng.choice((0.7, 1)))


def pattern_page(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Pixels:
    """Stripes, checkerboards, bar codes, grids of dots, rings; sharp, in two colours or three.

    The page has four fields with a pattern each.
    """
    page = np.empty((height, width, 3), np.uint8)
    middle_y, middle_x = height // 2, width // 2
    for rows in (slice(0, middle_y), slice(middle_y, height)):
        for columns in (slice(0, middle_x), slice(middle_x, width)):
            part = page[rows, columns]
            part[:] = _pattern(part.shape[0], part.shape[1], rng)
    return page


def _pattern(height: int, width: int, rng: random.Random) -> Pixels:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    period = rng.choice((2, 3, 4, 6, 8, 11, 16, 24, 40))
    angle = rng.choice((0.0, 0.0, math.pi / 2, math.pi / 4, rng.uniform(0, math.pi)))
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    kind = rng.choice(("stripes", "stripes", "checks", "bars", "code", "dots", "rings", "waves"))
    if kind == "stripes":
        level = _edge(np.mod(along, 2 * period), period)
    elif kind == "checks":
        first, second = (_edge(np.mod(v, 2 * period), period) for v in (along, across))
        level = first + second - 2 * first * second
    elif kind == "bars":
        draws = np.random.default_rng(rng.getrandbits(32)).integers(0, 2, width + 1)
        unit = rng.choice((1, 2, 3, 4))
        level = np.repeat(draws, unit)[None, :width] * np.ones((height, 1))
        level[: height // 10] = level[-(height // 10) - 1 :] = 1
    elif kind == "code":
        unit = rng.choice((2, 3, 5, 8))
        cells = (-(-height // unit), -(-width // unit))
        draws = np.random.default_rng(rng.getrandbits(32)).integers(0, 2, cells)
        level = np.kron(draws, np.ones((unit, unit)))[:height, :width]
    elif kind == "dots":
        down, right = (np.mod(v, 2 * period) - period for v in (along, across))
        level = np.clip(np.hypot(down, right) - 0.6 * period + 0.5, 0, 1)
    elif kind == "rings":
        far = np.hypot(x - rng.uniform(0, width), y - rng.uniform(0, height))
        level = _edge(np.mod(far, 2 * period), period)
    else:
        level = 0.5 + 0.5 * np.sin(along * math.tau / (2 * period + 2))
    dark, bright = np.zeros(3), np.full(3, 255.0)
    if rng.random() < 0.4:
        dark, bright = (np.array([rng.randint(0, 255) for _ in range(3)]) for _ in range(2))
    return np.rint(dark + level[..., None] * (bright - dark)).astype(np.uint8)


def _edge(place: np.ndarray, period: Number) -> np.ndarray:
    """0 in one half of a double period and 1 in the other, an edge a pixel wide."""
    return np.clip(place - period + 0.5, 0, 1) - np.clip(place - 2 * period + 0.5, 0, 1)


def map_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """Land in flat colours by height, contour lines, roads with borders, blocks and names."""
    heights = _terrain(width, height, rng)
    levels = rng.randint(3, 7)
    colours = np.array([[rng.randint(150, 255) for _ in range(3)] for _ in range(levels)])
    colours[0] = (rng.randint(120, 190), rng.randint(190, 225), rng.randint(225, 255))
    place = np.clip(heights * levels, 0, levels - 1e-6)
    pixels = colours[place.astype(int)]
    if rng.random() < 0.5:
        slope = np.hypot(*np.gradient(heights * 4 * levels)).clip(1e-4)
        near = np.abs(np.mod(heights * 4 * levels, 1) - 0.5) / slope
        line = np.clip(1.1 - near, 0, 1)[..., None] * rng.uniform(0.3, 0.9)
        pixels = pixels * (1 - line) + line * np.array([150, 105, 60])
    page = Canvas(width, height, rng, fonts)
    ground = Image.fromarray(np.rint(pixels).astype(np.uint8))
    page.image.paste(ground.resize(page.image.size, Image.Resampling.BICUBIC))
    for _ in range(rng.randint(3, 25)):
        x, y = page.point()
        page.box((x, y), (x + rng.uniform(4, 22), y + rng.uniform(4, 22)), page.colour(150, 215))
    for _ in range(rng.randint(3, 14)):
        road, across = page.curve(160, 6), rng.choice((1.5, 3, 5, 8))
        page.line(road, page.colour(60, 150), across + 2)
        page.line(road, rng.choice(((255, 255, 255), (255, 225, 130), (240, 160, 120))), across)
    for _ in range(rng.randint(6, 25)):
        name, size = page.word().capitalize(), rng.choice((8, 9, 10, 12, 15, 20))
        page.text(page.point(), name, size, page.colour(0, 70), page.font())
    return page.pixels()


def _terrain(width: int, height: int, rng: random.Random) -> np.ndarray:
    """Smooth heights from 0 to 1."""
    draw = np.random.default_rng(rng.getrandbits(32))
    total = np.zeros((height, width))
    for cells, strength in ((3, 1.0), (7, 0.45), (15, 0.2)):
        small = Image.fromarray(draw.random((cells, cells), dtype=np.float32))
        resized = small.resize((width, height), Image.Resampling.BICUBIC)
        total += strength * np.asarray(resized)
    return (total - total.min()) / max(float(np.ptp(total)), 1e-6)


def comic_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """Panels with outlined shapes in flat colours, dots and hatches, and bubbles with words."""
    page = Canvas(width, height, rng, fonts)
    stroke, gutter, y = rng.uniform(1.5, 3.5), rng.uniform(4, 14), rng.uniform(-40, 0)
    font = page.font()
    while y < height:
        tall, x = rng.uniform(110, 260), rng.uniform(-60, 0)
        while x < width:
            wide = rng.uniform(110, 320)
            _panel(page, (x, y), (x + wide, y + tall), stroke, font)
            x += wide + gutter
            # What hangs over to the right is covered by the gutter and the next panel.
            page.box((x - gutter, y), (width, y + tall), (255, 255, 255))
        y += tall + gutter
        page.box((0, y - gutter), (width, height), (255, 255, 255))
    return page.pixels()


def _panel(page: Canvas, corner: Point, other: Point, stroke: Number, font: Path | None) -> None:
    rng, (left, top), (right, bottom) = page.rng, corner, other
    page.box(corner, other, page.colour(120, 255))
    if rng.random() < 0.3:
        gap, colour = rng.choice((4, 6, 8)), page.colour(90, 230)
        for row in range(int((bottom - top) / gap)):
            for column in range(int((right - left) / gap)):
                centre = (left + (column + row % 2 / 2) * gap, top + row * gap)
                page.ellipse(centre, (0.3 * gap, 0.3 * gap), colour)
    for _ in range(rng.randint(3, 9)):
        centre = (rng.uniform(left, right), rng.uniform(top, bottom))
        radius = min(rng.uniform(8, 60), right - centre[0], bottom - centre[1])
        if radius < 4:
            continue
        if rng.random() < 0.5:
            radii = (radius, radius * rng.uniform(0.5, 1))
            page.ellipse(centre, radii, page.colour(), _BLACK, stroke)
        else:
            page.polygon(_blob(page, centre, 0.8 * radius, 9), page.colour(), _BLACK, stroke)
        if rng.random() < 0.3:
            _hatch(page, (centre[0] - radius / 2, centre[1] - radius / 2), _BLACK)
    if rng.random() < 0.7:
        centre = ((left + right) / 2, top + 0.25 * (bottom - top))
        wide, size = 0.4 * (right - left), rng.choice((8, 10, 12))
        page.ellipse(centre, (wide, 2.4 * size), (255, 255, 255), _BLACK, stroke)
        for row in range(2):
            place = (centre[0] - 0.7 * wide, centre[1] + (row - 0.9) * 1.2 * size)
            text = page.words(3).upper()[: int(1.8 * wide / size)]
            page.text(place, text, size, _BLACK, font)
    page.box(corner, other, None, _BLACK, stroke)


def star_page(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Pixels:
    """A night sky: stars of all brightnesses and some colours, a faint glow, perhaps a moon."""
    draw = np.random.default_rng(rng.getrandbits(32))
    glow = _terrain(width, height, rng)[..., None] ** 2
    tint = np.array([rng.uniform(0, 45), rng.uniform(0, 40), rng.uniform(0, 60)])
    light = glow * tint + rng.uniform(0, 14)
    y, x = np.mgrid[-7:8, -7:8]
    for _ in range(round(rng.uniform(0.0004, 0.006) * width * height)):
        row, column = rng.uniform(0, height - 1), rng.uniform(0, width - 1)
        brightness = 18 * draw.pareto(1.1) + 12
        sigma = rng.uniform(0.55, 0.95) + (0.6 if brightness > 400 else 0)
        far = (y - row % 1) ** 2 + (x - column % 1) ** 2
        spot = min(brightness, 2500) * np.exp(-far / (2 * sigma**2))
        top, left = int(row) - 7, int(column) - 7
        rows = slice(max(0, -top), 15 - max(0, top + 15 - height))
        columns = slice(max(0, -left), 15 - max(0, left + 15 - width))
        colour = 1 - 0.35 * draw.random(3)
        target = light[max(0, top) : top + 15, max(0, left) : left + 15]
        target += spot[rows, columns, None] * colour
    if rng.random() < 0.2:
        rows, columns = np.mgrid[:height, :width]
        centre, radius = (rng.uniform(0, height), rng.uniform(0, width)), rng.uniform(15, 90)
        far = np.hypot(rows - centre[0], columns - centre[1])
        disc = np.clip(radius - far + 0.5, 0, 1)[..., None]
        light = light * (1 - disc) + disc * (150 + 90 * _terrain(width, height, rng)[..., None])
    return np.rint(light.clip(0, 255)).astype(np.uint8)
