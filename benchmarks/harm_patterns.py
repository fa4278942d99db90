"""Clean graphics that are patterns: codes, stripes, checks, halftone, weaves, engravings, stars."""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["PATTERNS"]

Maker = Callable[[int, int, random.Random, Sequence[Path]], Image.Image]


def _picture(level: np.ndarray, rng: random.Random, coloured: float = 0.4) -> Image.Image:
    """Levels 0 to 1 between two colours, mostly black and white."""
    dark, bright = np.zeros(3), np.full(3, 255.0)
    if rng.random() < coloured:
        dark = np.array([rng.randint(0, 130) for _ in range(3)], float)
        bright = np.array([rng.randint(130, 255) for _ in range(3)], float)
    level = np.clip(level, 0, 1)[..., None]
    return Image.fromarray(np.rint(dark + level * (bright - dark)).astype(np.uint8))


def _grid(width: int, height: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    c, s = math.cos(angle), math.sin(angle)
    return x * c + y * s, y * c - x * s


def _angle(rng: random.Random) -> float:
    return rng.choice(
        (0.0, math.pi / 2, math.pi / 4, rng.uniform(0, math.pi), rng.uniform(0, math.pi))
    )


def _square(place: np.ndarray, period: float, share: float, hard: bool) -> np.ndarray:
    """A wave of two levels; an edge has steps, or is a pixel wide."""
    phase = np.mod(place, period)
    if hard:
        return (phase < share * period).astype(float)
    return (
        np.clip(phase + 0.5, 0, 1)
        - np.clip(phase - share * period + 0.5, 0, 1)
        + np.clip(phase - period + 0.5, 0, 1)
    )


def _barcode(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    image = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    for _ in range(rng.randint(1, 4)):
        unit, x = rng.choice((1, 2, 3)), rng.randint(0, width // 3)
        top = rng.randint(0, height // 2)
        bottom, start = top + rng.randint(40, max(41, height // 2)), x
        for index in range(60):
            wide = unit * rng.choice((1, 1, 2, 3, 4))
            if index % 2 == 0:
                draw.rectangle((x, top, x + wide - 1, bottom), fill=(0, 0, 0))
            x += wide
        digits = " ".join(str(rng.randint(0, 9)) for _ in range(13))
        draw.text((start, bottom + 3), digits, (0, 0, 0), ImageFont.load_default(14))
    return image


def _code(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Square modules with finders in three corners and a quiet zone, on paper."""
    cells = rng.choice((21, 25, 33, 57))
    unit = max(1, min(width, height) // (cells + 8))
    bits = np.random.default_rng(rng.getrandbits(32)).integers(0, 2, (cells, cells))
    for a, b in ((0, 0), (0, cells - 7), (cells - 7, 0)):
        bits[a : a + 7, b : b + 7] = 0
        bits[a + 1 : a + 6, b + 1 : b + 6] = 1
        bits[a + 2 : a + 5, b + 2 : b + 5] = 0
    page = np.ones((height, width))
    big = np.kron(bits, np.ones((unit, unit)))
    top, left = rng.randint(0, height - len(big)), rng.randint(0, width - len(big))
    page[top : top + len(big), left : left + len(big)] = big
    return _picture(page, rng, 0.3)


def _stripes(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    period = rng.choice((2, 3, 4, 5.3, 7, 10, 16, 31, 60))
    along, _ = _grid(width, height, _angle(rng))
    return _picture(_square(along, period, rng.choice((0.5, 0.5, 0.3)), rng.random() < 0.5), rng)


def _checks(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    along, across = _grid(width, height, rng.choice((0.0, 0.0, _angle(rng))))
    period, hard = 2 * rng.choice((1, 2, 3, 5, 8, 13, 32)), rng.random() < 0.6
    one, two = (_square(v, period, 0.5, hard) for v in (along, across))
    return _picture(one + two - 2 * one * two, rng)


def _tone(width: int, height: int, rng: random.Random) -> np.ndarray:
    """A smooth picture in grey: a few soft discs and slopes."""
    along, across = _grid(width, height, rng.uniform(0, 6))
    level = (
        0.5
        + 0.3 * np.sin(along / rng.uniform(40, 200))
        + 0.2 * np.cos(across / rng.uniform(30, 90))
    )
    for _ in range(rng.randint(1, 5)):
        far = np.hypot(along - rng.uniform(0, width), across - rng.uniform(0, height))
        level = level + rng.uniform(-0.5, 0.5) * np.exp(-((far / rng.uniform(20, 150)) ** 2))
    return np.clip(level, 0.02, 0.98)


def _halftone(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Dots that grow with the darkness, on a turned grid; grey or in three inks."""
    pitch, hard = rng.choice((4, 5, 6, 8, 12)), rng.random() < 0.4
    planes = []
    for turn in (0.26, 1.31, 0.0) if rng.random() < 0.5 else (0.785,):
        along, across = _grid(width, height, turn + rng.choice((0, 0.1)))
        screen = 0.5 + 0.25 * (np.cos(math.tau * along / pitch) + np.cos(math.tau * across / pitch))
        level = _tone(width, height, rng)
        edge = 1e3 if hard else pitch / 2.5
        planes.append(np.clip((level - screen) * edge + 0.5, 0, 1))
    planes = planes * 3 if len(planes) == 1 else planes
    return Image.fromarray(np.rint(255 * np.stack(planes, -1)).astype(np.uint8))


def _dither(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Grey by scattered dots: error diffusion, or an ordered matrix; some enlarged twice."""
    unit = rng.choice((1, 1, 2))
    level = _tone(-(-width // unit), -(-height // unit), rng)
    if rng.random() < 0.5:
        bits = np.asarray(Image.fromarray(np.uint8(255 * level)).convert("1"), float)
    else:
        bayer = np.array([[0]])
        for _ in range(3):
            bayer = np.block([[4 * bayer, 4 * bayer + 2], [4 * bayer + 3, 4 * bayer + 1]])
        tall, wide = level.shape
        tiled = np.tile(bayer, (tall // 8 + 1, wide // 8 + 1))[:tall, :wide]
        bits = (level > (tiled + 0.5) / 64).astype(float)
    return _picture(np.kron(bits, np.ones((unit, unit)))[:height, :width], rng, 0.2)


def _weave(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Cloth: threads over and under one another, shaded, perhaps of uneven thickness and tone."""
    along, across = _grid(width, height, rng.choice((0.0, 0.0, rng.uniform(0, 3))))
    pitch, twill = rng.choice((3, 4, 5, 7, 10, 16)), rng.choice((2, 2, 3, 4))
    column, row = np.floor(along / pitch), np.floor(across / pitch)
    over = np.mod(column + row, twill) < 1
    u, v = np.mod(along, pitch) / pitch - 0.5, np.mod(across, pitch) / pitch - 0.5
    shade = np.where(over, 1 - 2.2 * u**2 - 0.8 * v**2, 0.8 - 2.2 * v**2 - 0.8 * u**2)
    if rng.random() < 0.5:
        draws = np.random.default_rng(rng.getrandbits(32))
        warp = draws.normal(0, rng.uniform(0.02, 0.1), 4096)
        shade = shade * (
            1 + np.where(over, warp[column.astype(int) % 4096], warp[row.astype(int) % 4096])
        )
    tint = np.array([rng.randint(60, 255) for _ in range(3)])
    other = tint if rng.random() < 0.5 else np.array([rng.randint(40, 255) for _ in range(3)])
    pixels = np.where(over[..., None], tint, other) * np.clip(shade, 0, 1)[..., None]
    return Image.fromarray(np.rint(pixels).astype(np.uint8))


def _engraving(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Lines that swell with the darkness, as on banknotes."""
    along, across = _grid(width, height, _angle(rng))
    pitch = rng.choice((4, 5, 7, 9))
    waved = along + rng.uniform(0, 8) * np.sin(across / rng.uniform(10, 40))
    wave = np.abs(np.mod(waved / pitch, 1) - 0.5) * 2
    return _picture((wave - _tone(width, height, rng)) * pitch / 2 + 0.5, rng, 0.5)


def _gradient(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Smooth slopes of colour, linear or round, perhaps with a shape on top."""
    along, across = _grid(width, height, rng.uniform(0, 6))
    far = np.hypot(along - along.mean(), across - across.mean()) if rng.random() < 0.5 else along
    level = ((far - far.min()) / max(np.ptp(far), 1e-6))[..., None]
    one, two = (np.array([rng.randint(0, 255) for _ in range(3)]) for _ in range(2))
    image = Image.fromarray(np.rint(one + level * (two - one)).astype(np.uint8))
    if rng.random() < 0.6:
        draw = ImageDraw.Draw(image)
        size = min(width, height) / 3
        draw.text(
            (width / 2, height / 2),
            "Aa",
            (255, 255, 255),
            ImageFont.load_default(size),
            anchor="mm",
        )
    return image


def _night(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """Stars on black or on a slope of dark blue: single pixels, small discs, some with rays."""
    slope = np.linspace(rng.uniform(0, 12), rng.uniform(0, 45), height)[:, None, None]
    sky = slope * np.array([0.4, 0.6, 1.0]) + np.zeros((height, width, 3))
    draws = np.random.default_rng(rng.getrandbits(32))
    for _ in range(round(rng.uniform(0.0003, 0.004) * width * height)):
        y, x = rng.uniform(3, height - 4), rng.uniform(3, width - 4)
        strength, sigma = min(900.0, 25 * (draws.pareto(1.2) + 1)), rng.uniform(0.4, 1.0)
        rows, columns = np.mgrid[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
        spot = strength * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
        sky[rows, columns] += spot[..., None] * (1 - 0.4 * draws.random(3))
    return Image.fromarray(np.rint(sky.clip(0, 255)).astype(np.uint8))


def _rings(width: int, height: int, rng: random.Random, _fonts: Sequence[Path]) -> Image.Image:
    """A test chart: rings that get finer outwards, a star of rays, or a ramp of frequencies."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - height * rng.random(), x - width * rng.random()
    look = rng.randint(0, 2)
    if look == 0:
        level = 0.5 + 0.5 * np.cos(np.hypot(x, y) ** 2 / rng.uniform(60, 600))
    elif look == 1:
        level = (np.mod(np.arctan2(y, x) * rng.choice((12, 24, 40)) / math.pi, 2) < 1).astype(float)
    else:
        level = 0.5 + 0.5 * np.sign(np.sin(np.hypot(x, y) * math.tau / rng.uniform(5, 24)))
    return _picture(level, rng)


PATTERNS: dict[str, Maker] = {
    "barcode": _barcode, "code": _code, "stripes": _stripes, "checks": _checks,
    "halftone": _halftone, "dither": _dither, "weave": _weave, "engraving": _engraving,
    "gradient": _gradient, "night": _night, "rings": _rings,
}  # fmt: skip
