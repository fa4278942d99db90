"""Made pages with writing: text, screens and charts."""

import random
from collections.abc import Sequence
from pathlib import Path

from urushi.data.canvas import Canvas, Colour, Number, Point
from urushi.data.packed import Pixels

__all__ = ["chart_page", "screen_page", "text_page"]


def text_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """Columns of text with headings, mostly black on white, also on tinted and dark paper."""
    paper, ink = _paper_and_ink(rng)
    page = Canvas(width, height, rng, fonts, smooth=rng.random() < 0.4, paper=paper)
    columns = rng.choice((1, 1, 2, 2, 3))
    # No column is narrower than two short words.
    size = min(rng.choice((8, 9, 10, 11, 12, 14, 16, 20, 26, 36)), width / columns / 7)
    body, title = page.font(), page.font()
    gap = 1.2 * size
    breadth = (width - gap * (columns + 1)) / columns
    leading = size * rng.uniform(1.1, 1.7)
    for column in range(columns):
        left, y = gap + column * (breadth + gap), rng.uniform(0, gap)
        while y < height:
            if rng.random() < 0.06:
                y += 0.5 * leading
                page.text((left, y), page.words(3), 1.7 * size, ink, title)
                y += 2.2 * leading
            paragraph = rng.randint(2, 12)
            for index in range(paragraph):
                last = index == paragraph - 1
                _line(page, (left, y), breadth * (0.5 if last else 1), size, ink, body)
                y += leading
            y += rng.choice((0, 0.7)) * leading
        if column and rng.random() < 0.3:
            page.line([(left - gap / 2, 0), (left - gap / 2, height)], ink)
    return page.pixels()


def _paper_and_ink(rng: random.Random) -> tuple[Colour, Colour]:
    chance = rng.random()
    if chance < 0.5:
        return (255, 255, 255), (0, 0, 0)
    ink = rng.randint(0, 70)
    if chance < 0.8:
        red = rng.randint(215, 255)
        return (red, red - rng.randint(0, 15), red - rng.randint(0, 50)), (ink, ink, ink)
    dark = (rng.randint(0, 45), rng.randint(0, 45), rng.randint(0, 55))
    return dark, (255 - ink, 255 - ink, 255 - ink)


def _line(
    page: Canvas, place: Point, breadth: Number, size: Number, ink: Colour, font: Path | None
) -> None:
    x, y = place
    end = x + breadth
    while x < end - 3 * size:
        x += page.text((x, y), page.word()[: max(2, int((end - x) / size * 1.5))], size, ink, font)
        x += 0.3 * size


def screen_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """Windows of programs: bars, lists, buttons, fields, tables and code, bright or dark."""
    dark = rng.random() < 0.4
    ground = rng.randint(18, 50) if dark else rng.randint(230, 255)
    page = Canvas(width, height, rng, fonts, smooth=False, paper=(ground, ground, ground))
    ink: Colour = (225, 225, 230) if dark else (30, 30, 35)
    shift = 18 if dark else -18
    pane: Colour = (ground + shift, ground + shift, ground + shift)
    accent = page.colour(40, 220)
    size = rng.choice((9, 10, 11, 12, 13, 15))
    bar, side = 2.6 * size, rng.choice((0.0, 0.0, 0.22, 0.3)) * width
    page.box((0, 0), (width, bar), accent if rng.random() < 0.4 else pane)
    x = 0.8 * size
    while x < width:
        x += page.text((x, 0.7 * size), page.word(), size, ink) + 1.6 * size
    if side:
        page.box((0, bar), (side, height), pane, ink if rng.random() < 0.3 else None)
        for row in range(int((height - bar) / (2.2 * size))):
            y = bar + row * 2.2 * size
            if rng.random() < 0.12:
                page.box((0, y), (side, y + 2.2 * size), accent)
            _icon(page, (1.3 * size, y + 1.1 * size), 0.55 * size)
            page.text((2.4 * size, y + 0.5 * size), page.word(), size, ink)
    y = bar + size
    while y < height:
        part = rng.choice((_fields, _table, _code, _cards))
        y = part(page, (side + size, y), width - side - 2 * size, size, ink, accent) + 1.2 * size
    return page.pixels()


def _icon(page: Canvas, centre: Point, radius: Number) -> None:
    colour, (x, y) = page.colour(), centre
    shape = page.rng.randint(0, 2)
    if shape == 0:
        page.ellipse(centre, (radius, radius), colour)
    elif shape == 1:
        page.box((x - radius, y - radius), (x + radius, y + radius), colour, radius=radius / 3)
    else:
        corners = [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)]
        page.polygon(corners, colour)


def _fields(
    page: Canvas, corner: Point, breadth: Number, size: Number, ink: Colour, accent: Colour
) -> float:
    left, y = corner
    for _ in range(page.rng.randint(1, 4)):
        length = page.text((left, y), page.words(2), size, ink)
        start = left + max(length, 0.3 * breadth) + size
        page.box((start, y - 0.4 * size), (left + breadth, y + 1.5 * size), None, ink, radius=3)
        page.text((start + size / 2, y), page.words(2), size, ink)
        y += 2.5 * size
    x = left
    for _ in range(page.rng.randint(1, 3)):
        end = x + page.rng.uniform(5, 8) * size
        page.box((x, y), (end, y + 2.2 * size), accent, radius=page.rng.choice((0, 3, 8)))
        page.text((x + size, y + 0.5 * size), page.word()[:7], size, (255, 255, 255))
        x = end + size
    return y + 2.2 * size


def _table(
    page: Canvas, corner: Point, breadth: Number, size: Number, ink: Colour, accent: Colour
) -> float:
    rng, (left, y) = page.rng, corner
    columns, rows = rng.randint(2, 6), rng.randint(2, 8)
    ruled = rng.random() < 0.6
    for row in range(rows):
        if row == 0:
            page.box((left, y), (left + breadth, y + 1.9 * size), accent)
        for column in range(columns):
            x = left + breadth * column / columns
            word = page.word() if rng.random() < 0.5 else f"{rng.uniform(-99, 999):.2f}"
            page.text(
                (x + 3, y + 0.4 * size), word[: int(breadth / columns / size * 1.6)], size, ink
            )
            if ruled:
                page.box((x, y), (x + breadth / columns, y + 1.9 * size), None, ink)
        y += 1.9 * size
    return y


def _code(
    page: Canvas, corner: Point, breadth: Number, size: Number, ink: Colour, _accent: Colour
) -> float:
    rng, (left, y) = page.rng, corner
    font = page.font()
    colours = [ink, ink, *(page.colour(60, 235) for _ in range(3))]
    indent = 0
    for number in range(rng.randint(4, 16)):
        indent = min(5, max(0, indent + rng.randint(-1, 1)))
        page.text((left, y), f"{number + 1}", size, (128, 128, 128), font)
        x = left + (2.5 + 2 * indent) * size
        for _ in range(rng.randint(1, 6)):
            word = page.word() + rng.choice(("", "(", ")", " =", ".", "[0]", ":", " {", " }"))
            if x + 0.6 * size * len(word) > left + breadth:
                break
            x += page.text((x, y), word, size, rng.choice(colours), font) + 0.4 * size
        y += 1.4 * size
    return y


def _cards(
    page: Canvas, corner: Point, breadth: Number, size: Number, ink: Colour, accent: Colour
) -> float:
    rng, (left, y) = page.rng, corner
    count = rng.randint(2, 4)
    own, tall = breadth / count, rng.uniform(5, 10) * size
    for index in range(count):
        x = left + index * own
        page.box((x, y), (x + own - 0.6 * size, y + tall), page.colour(), accent, radius=4)
        page.text((x, y + tall + 2), page.word()[: int(own / size * 1.5)], size, ink)
    return y + tall + 1.5 * size


def chart_page(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Pixels:
    """One chart or four, with axes, labels and grids: bars, lines, points, or a pie."""
    paper, ink = _paper_and_ink(rng)
    page = Canvas(width, height, rng, fonts, smooth=rng.random() < 0.7, paper=paper)
    across = rng.choice((1, 1, 2))
    font, size = page.font(), rng.choice((9, 10, 12, 14))
    for row in range(across):
        for column in range(across):
            corner = (column * width / across, row * height / across)
            _chart(page, corner, (width / across, height / across), size, ink, font)
    return page.pixels()


def _chart(
    page: Canvas, corner: Point, extent: Point, size: Number, ink: Colour, font: Path | None
) -> None:
    rng = page.rng
    left, right = corner[0] + 4 * size, corner[0] + extent[0] - size
    top, bottom = corner[1] + 2.5 * size, corner[1] + extent[1] - 3 * size
    page.text((left, corner[1] + size / 2), page.words(3), 1.2 * size, ink, font)
    kind = rng.choice(("bars", "lines", "points", "pie"))
    if kind == "pie":
        radius, angle = 0.45 * min(right - left, bottom - top), 0.0
        centre = ((left + right) / 2, (top + bottom) / 2)
        while angle < 360:
            end = min(360.0, angle + rng.uniform(15, 110))
            page.slice(centre, radius, angle, end, page.colour())
            angle = end
        return
    grid = rng.random() < 0.6
    for tick in range(6):
        y = bottom - (bottom - top) * tick / 5
        if grid:
            page.line([(left, y), (right, y)], (200, 200, 200))
        page.text(
            (corner[0] + 2, y - size / 2), f"{tick * rng.choice((1, 5, 20))}", size, ink, font
        )
        x = left + (right - left) * tick / 5
        page.line([(x, bottom), (x, bottom + 4)], ink)
        page.text((x, bottom + size / 2), f"{2000 + tick}", size, ink, font)
    for _ in range(rng.randint(1, 3)):
        count = rng.randint(5, 24)
        colour = page.colour(20, 220)
        values = [rng.uniform(0.05, 1) for _ in range(count)]
        step = (right - left) / count
        places = [
            (left + (i + 0.5) * step, bottom - v * (bottom - top)) for i, v in enumerate(values)
        ]
        for x, y in places:
            if kind == "bars":
                page.box((x - 0.35 * step, y), (x + 0.35 * step, bottom), colour)
            elif kind == "points":
                page.ellipse((x, y), (3, 3), colour)
        if kind == "lines":
            page.line(places, colour, rng.choice((1, 2, 3)))
    page.line([(left, top), (left, bottom), (right, bottom)], ink, rng.choice((1, 2)))
