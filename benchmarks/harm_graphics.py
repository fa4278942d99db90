"""Clean graphics for `harm.py`, drawn from seeds: kinds that no training of Urushi has seen.

`urushi.data.synthetic_pages` draws what networks and routers learn from; these here are drawn by
other code, in other looks and sizes, so that what is measured is not what was fitted.
"""

import itertools
import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from harm_patterns import PATTERNS
from PIL import Image, ImageDraw, ImageFont

__all__ = ["KINDS", "draw"]

Maker = Callable[[int, int, random.Random, Sequence[Path]], Image.Image]
Colour = tuple[int, int, int]

_PROSE = """
the of and to in is it was for on are as with his they at be this from have or by one had not but
what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know lacquer bowl mended repair gold crack
"""
_WORDS = _PROSE.split()


def _font(
    rng: random.Random, fonts: Sequence[Path], size: float, has: str = ""
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    own = [path for path in fonts if has.lower() in path.name.lower()] or list(fonts)
    path = rng.choice([*own, None])
    size = max(6, round(size))
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(str(path), size)


def _colour(rng: random.Random, low: int = 0, high: int = 255) -> Colour:
    return rng.randint(low, high), rng.randint(low, high), rng.randint(low, high)


def _paper(rng: random.Random) -> tuple[Colour, Colour]:
    """Paper and ink: white, cream, grey, coloured, or dark."""
    look = rng.random()
    if look < 0.35:
        return (255, 255, 255), (0, 0, 0)
    if look < 0.55:
        return (250, 243, 224), (40, 30, 25)
    if look < 0.65:
        grey = rng.randint(190, 248)
        return (grey, grey, grey), _colour(rng, 0, 60)
    if look < 0.8:
        return _colour(rng, 185, 255), _colour(rng, 0, 90)
    return _colour(rng, 0, 60), _colour(rng, 170, 255)


def _sheet(width: int, height: int, paper: Colour) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), paper)
    return image, ImageDraw.Draw(image)


def _sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(_WORDS) for _ in range(words))


def _prose(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Justified or ragged prose in one column, with a title; some sheets lie askew."""
    paper, ink = _paper(rng)
    image, draw = _sheet(width, height, paper)
    size = rng.uniform(9, 30)
    font, margin = _font(rng, fonts, size), width * rng.uniform(0.02, 0.12)
    y = margin
    draw.text((margin, y), _sentence(rng, 3).title(), ink, _font(rng, fonts, 1.8 * size))
    y += 3 * size
    while y < height - margin:
        line = ""
        while True:
            longer = f"{line} {rng.choice(_WORDS)}".strip()
            if draw.textlength(longer, font) > width - 2 * margin or len(longer) > 200:
                break
            line = longer
        draw.text((margin, y), line, ink, font)
        y += size * 1.35
        if rng.random() < 0.1:
            y += size
    if rng.random() < 0.3:
        image = image.rotate(rng.uniform(-6, 6), Image.Resampling.BICUBIC, fillcolor=paper)
    return image


def _scan(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Prose of one bit a pixel, as fax and text scanners have it."""
    page = np.asarray(_prose(width, height, rng, fonts).convert("L")).astype(int)
    bits = page > (page.min() + page.max()) / 2
    return Image.fromarray(np.uint8(255 * bits)).convert("RGB")


def _terminal(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Lines of a monospaced font in the colours of a terminal or an editor."""
    ground = rng.choice(((0, 0, 0), (30, 30, 30), (0, 43, 54), (40, 42, 54), (255, 255, 255)))
    image, draw = _sheet(width, height, ground)
    light = sum(ground) > 380
    inks = [_colour(rng, 0, 140) if light else _colour(rng, 120, 255) for _ in range(5)]
    size = rng.choice((10, 12, 13, 14, 16, 20))
    font, y = _font(rng, fonts, size, "Mono"), 4.0
    if rng.random() < 0.5:
        draw.rectangle((0, 0, width, 26), fill=_colour(rng, 50, 200))
        for index, dot in enumerate(((255, 95, 86), (255, 189, 46), (39, 201, 63))):
            draw.ellipse((8 + 20 * index, 7, 20 + 20 * index, 19), fill=dot)
        y = 32
    while y < height:
        x = 6 + size * rng.choice((0, 0, 0, 1, 2, 4))
        while x < width * rng.uniform(0.3, 1):
            word = rng.choice((rng.choice(_WORDS), f"{rng.getrandbits(20):x}", "->", "==", "0.0"))
            draw.text((x, y), word, rng.choice(inks), font)
            x += draw.textlength(f"{word} ", font)
        y += round(size * 1.25)
    return image


def _table(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """A spreadsheet: striped rows, ruled cells, numbers aligned to the right."""
    paper, ink = _paper(rng)
    image, draw = _sheet(width, height, paper)
    size = rng.choice((9, 11, 12, 14))
    font, tall = _font(rng, fonts, size), round(size * rng.uniform(1.5, 2.4))
    widths = [rng.randint(5 * size, 14 * size) for _ in range(40)]
    stripe = tuple(max(0, min(255, c + rng.choice((-12, 12)))) for c in paper)
    for row in range(height // tall + 1):
        y = row * tall
        fill = _colour(rng, 90, 220) if row == 0 else stripe if row % 2 else paper
        draw.rectangle((0, y, width, y + tall), fill=fill)
        x = 0
        for cell in widths:
            text = (
                _sentence(rng, 1) if row == 0 or cell % 3 == 0 else f"{rng.uniform(0, 9999):,.2f}"
            )
            draw.text((x + cell - 4, y + 2), text, ink, font, anchor="ra")
            draw.line((x, y, x, y + tall), fill=(160, 160, 160))
            x += cell
            if x > width:
                break
        draw.line((0, y, width, y), fill=(160, 160, 160))
    return image


def _window(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """A desktop with overlapping windows, shadows, gradients in title bars, buttons and text."""
    tint = np.array([_colour(rng), _colour(rng)], float)
    ramp = np.linspace(0, 1, height)[:, None, None]
    ground = tint[0] * (1 - ramp) + tint[1] * ramp + np.zeros((height, width, 3))
    image = Image.fromarray(np.rint(ground).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(2, 6)):
        x, y = rng.randint(-40, width // 2), rng.randint(-20, height // 2)
        right, bottom = x + rng.randint(120, width), y + rng.randint(90, height)
        paper, ink = _paper(rng)
        draw.rounded_rectangle((x, y, right, bottom), 8, fill=paper, outline=(120, 120, 120))
        draw.rectangle((x + 1, y + 8, right - 1, y + 26), fill=_colour(rng, 60, 220))
        font = _font(rng, fonts, 12)
        draw.text((x + 10, y + 9), _sentence(rng, 2), (255, 255, 255), font)
        for row in range(y + 34, bottom - 40, 17):
            text = _sentence(rng, 12)[: max(0, (right - x) // 8)]
            draw.text((x + 10, row), text, ink, font)
        draw.rounded_rectangle(
            (right - 90, bottom - 32, right - 12, bottom - 10), 5, fill=(0, 120, 215)
        )
    return image


def _flow(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """A diagram of boxes with labels and arrows, smooth edges."""
    paper, ink = _paper(rng)
    image, draw = _sheet(2 * width, 2 * height, paper)
    font = _font(rng, fonts, 2 * rng.uniform(9, 15))
    places = [
        (rng.randint(0, 2 * width), rng.randint(0, 2 * height)) for _ in range(rng.randint(5, 22))
    ]
    for one, other in itertools.pairwise(places):
        draw.line((*one, *other), fill=ink, width=rng.choice((2, 3, 4)))
        angle = math.atan2(other[1] - one[1], other[0] - one[0])
        for turn in (2.7, -2.7):
            end = (other[0] + 18 * math.cos(angle + turn), other[1] + 18 * math.sin(angle + turn))
            draw.line((*other, *end), fill=ink, width=3)
    for x, y in places:
        text = _sentence(rng, 2)
        wide = draw.textlength(text, font) / 2 + 14
        shape = draw.ellipse if rng.random() < 0.3 else draw.rectangle
        shape(
            (x - wide, y - 30, x + wide, y + 30), fill=_colour(rng, 150, 255), outline=ink, width=3
        )
        draw.text((x, y), text, (0, 0, 0), font, anchor="mm")
    return image.reduce(2)


def _plot(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Curves, clouds of points and bars with a legend, as plotting libraries draw them."""
    paper, ink = _paper(rng)
    image, draw = _sheet(2 * width, 2 * height, paper)
    font = _font(rng, fonts, 22)
    left, top, right, bottom = 90, 50, 2 * width - 30, 2 * height - 60
    for index in range(9):
        x, y = left + (right - left) * index / 8, top + (bottom - top) * index / 8
        draw.line((x, top, x, bottom), fill=(205, 205, 205))
        draw.line((left, y, right, y), fill=(205, 205, 205))
        draw.text((x, bottom + 8), f"{index / 4:.2f}", ink, font, anchor="ma")
        draw.text((left - 8, y), f"{8 - index}", ink, font, anchor="rm")
    for series in range(rng.randint(1, 5)):
        colour, phase, waves = _colour(rng, 0, 210), rng.uniform(0, 6), rng.uniform(1, 40)
        steps = np.linspace(0, 1, 600)
        values = 0.5 + 0.4 * np.sin(waves * steps + phase) * np.exp(-steps * rng.uniform(0, 3))
        points = [(left + (right - left) * s, bottom - (bottom - top) * v)
                  for s, v in zip(steps, values, strict=True)]  # fmt: skip
        if series % 2 == 0:
            draw.line(points, fill=colour, width=rng.choice((2, 3, 5)), joint="curve")
        for x, y in points[:: rng.choice((5, 13))] if series % 2 else ():
            y += rng.gauss(0, 30)
            draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=colour)
    draw.rectangle((left, top, right, bottom), outline=ink, width=2)
    return image.reduce(2)


def _music(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Staves, notes with stems and beams, bar lines."""
    image, draw = _sheet(
        2 * width, 2 * height, (255, 255, 255) if rng.random() < 0.6 else (250, 244, 228)
    )
    gap, y = rng.choice((10, 12, 16)), 50.0
    while y < 2 * height:
        for line in range(5):
            draw.line((30, y + line * gap, 2 * width - 30, y + line * gap), fill=(0, 0, 0), width=2)
        x, last = 90.0, None
        while x < 2 * width - 60:
            at = y + gap * rng.randint(-1, 9) / 2
            draw.ellipse((x, at - gap / 2, x + 1.3 * gap, at + gap / 2), fill=(0, 0, 0))
            draw.line((x + 1.25 * gap, at, x + 1.25 * gap, at - 3.4 * gap), fill=(0, 0, 0), width=2)
            top = (x + 1.25 * gap, at - 3.4 * gap)
            if last is not None and rng.random() < 0.5:
                draw.line((*last, *top), fill=(0, 0, 0), width=gap // 2)
            last = top
            x += gap * rng.uniform(2, 5)
            if rng.random() < 0.15:
                draw.line((x, y, x, y + 4 * gap), fill=(0, 0, 0), width=3)
                x, last = x + gap, None
        draw.text((30, y - 3 * gap), _sentence(rng, 2), (0, 0, 0), _font(rng, fonts, 2 * gap))
        y += 12 * gap
    return image.reduce(2)


def _manga(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Ink, screentone and bubbles in black and white, or flat colours."""
    image, draw = _sheet(2 * width, 2 * height, (255, 255, 255))
    coloured = rng.random() < 0.4
    for _ in range(rng.randint(4, 12)):
        x, y = rng.randint(0, 2 * width), rng.randint(0, 2 * height)
        reach = rng.randint(60, 400)
        box = (x, y, x + reach, y + rng.randint(60, 400))
        fill = (
            _colour(rng, 90, 255)
            if coloured
            else rng.choice(((255, 255, 255), (0, 0, 0), (190,) * 3))
        )
        draw.ellipse(box, fill=fill, outline=(0, 0, 0), width=rng.choice((4, 6, 9)))
        gap = rng.choice((8, 12, 16))
        for row in range(box[1], box[3], gap):
            for column in range(box[0], box[2], gap):
                if (row + column) % 3 and not coloured:
                    draw.ellipse((column, row, column + gap * 0.5, row + gap * 0.5), fill=(0, 0, 0))
    for _ in range(rng.randint(10, 60)):
        x, y = rng.randint(0, 2 * width), rng.randint(0, 2 * height)
        draw.line(
            (x, y, x + rng.randint(-90, 90), y + rng.randint(-200, 200)), fill=(0, 0, 0), width=3
        )
    font = _font(rng, fonts, 26)
    for _ in range(3):
        x, y = rng.randint(0, 2 * width), rng.randint(0, 2 * height)
        draw.ellipse(
            (x - 150, y - 70, x + 150, y + 70), fill=(255, 255, 255), outline=(0, 0, 0), width=5
        )
        draw.text((x, y), _sentence(rng, 3).upper(), (0, 0, 0), font, anchor="mm")
    return image.reduce(2)


def _atlas(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Regions in flat colours with borders, rivers, dots for towns, names; no smooth edges."""
    draws = np.random.default_rng(rng.getrandbits(32))
    seeds = draws.uniform(0, 1, (rng.randint(6, 30), 2)) * (height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    y, x = y + 6 * np.sin(x / 17) + 3 * np.sin(x / 5), x + 6 * np.cos(y / 13)
    near = np.argmin([(y - a) ** 2 + (x - b) ** 2 for a, b in seeds], axis=0)
    colours = draws.integers(150, 255, (len(seeds), 3))
    pixels = colours[near].astype(np.uint8)
    edge = np.zeros(near.shape, bool)
    edge[1:] |= near[1:] != near[:-1]
    edge[:, 1:] |= near[:, 1:] != near[:, :-1]
    pixels[edge] = (90, 60, 60)
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for a, b in seeds:
        draw.ellipse((b - 3, a - 3, b + 3, a + 3), fill=(200, 30, 30), outline=(0, 0, 0))
        draw.text((b + 5, a - 5), rng.choice(_WORDS).title(), (0, 0, 0), _font(rng, fonts, 12))
    return image


def _game(width: int, height: int, rng: random.Random, fonts: Sequence[Path]) -> Image.Image:
    """Pixel art: a small picture of few colours, enlarged without smoothing."""
    unit = rng.choice((2, 3, 4, 6, 8))
    draws = np.random.default_rng(rng.getrandbits(32))
    cells = draws.random((height // unit + 2, width // unit + 2))
    smooth = cells.copy()
    for axis in (0, 1, 0, 1):
        smooth = (smooth + np.roll(smooth, 1, axis) + np.roll(smooth, -1, axis)) / 3
    levels = np.digitize(smooth, np.quantile(smooth, np.linspace(0.1, 0.9, 7)))
    pixels = draws.integers(0, 255, (8, 3)).astype(np.uint8)[levels]
    return Image.fromarray(np.kron(pixels, np.ones((unit, unit, 1), np.uint8))[:height, :width])


WRITTEN: dict[str, Maker] = {
    "prose": _prose, "scan": _scan, "terminal": _terminal, "table": _table, "window": _window,
    "flow": _flow, "plot": _plot, "music": _music, "manga": _manga, "atlas": _atlas, "game": _game,
}  # fmt: skip

KINDS: dict[str, Maker] = {**WRITTEN, **PATTERNS}
"""All kinds, and what draws each: width, height, chance, fonts."""


def draw(
    kind: str, seed: int, fonts: Sequence[Path], sides: tuple[int, int] = (200, 1500)
) -> np.ndarray:
    """A clean graphic, (H, W, 3) uint8; small ones more often than large ones."""
    rng = random.Random(f"harm {kind} {seed}")
    low, high = sides
    width, height = (round(low * (high / low) ** (rng.random() ** 1.5)) for _ in range(2))
    return np.asarray(KINDS[kind](width, height, rng, fonts).convert("RGB"))
