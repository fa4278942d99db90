"""What looks like marks on film and belongs to the scene, drawn over pictures.

Text, faces, eyes, the bars of windows, dots, strands of hair, wires, filaments and lamps; sharp or
soft, plain or glowing. What is alone and without order is left to marks.
"""

import math
from collections.abc import Callable

import cv2
import numpy as np

__all__ = ["drawn_on"]


def drawn_on(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture of 8 bits with one of the kinds over it."""
    over = picture.copy()
    _KINDS[int(rng.integers(len(_KINDS)))](over, rng)
    if rng.random() < 0.6:
        # As soft as the scene: what was drawn is blurred, and nothing else.
        drawn = over.astype(np.float32) - picture
        drawn = cv2.GaussianBlur(drawn, (0, 0), float(rng.uniform(0.4, 1.6)))
        gain = rng.uniform(1, 1.5)
        over = np.rint((picture + gain * drawn).clip(0, 255)).astype(np.uint8)
    return over


def _strands(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Hair, whiskers, fur or grass: many curves of about one direction from about one place."""
    height, width = picture.shape[:2]
    x, y = rng.uniform(-20, width + 20), rng.uniform(-20, height + 20)
    turn, spread, reach = rng.uniform(0, 2 * math.pi), rng.uniform(0.1, 0.9), rng.uniform(20, 110)
    wide, bend, base = rng.uniform(4, 50), rng.uniform(-1, 1), rng.integers(0, 256)
    for _ in range(rng.integers(6, 45)):
        start = np.array([x, y]) + rng.normal(0, wide, 2) * 0.5
        angle, own = turn + spread * rng.normal() * 0.5, bend + 0.25 * rng.normal()
        along = np.linspace(0, reach * rng.uniform(0.5, 1.2), 14)
        angles = angle + own * along / reach
        steps = np.stack([np.cos(angles), np.sin(angles)], 1) * along[1]
        colour = _levels(base + rng.integers(-30, 31) + rng.integers(-15, 16, 3))
        _curve(picture, start + np.cumsum(steps, 0), colour, 1 + (rng.random() < 0.15))


def _wires(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Wires, masts or strings: few long lines that hang alike."""
    height, width = picture.shape[:2]
    colour, thick = _colour(rng), int(rng.integers(1, 3))
    step, slope, sag = rng.uniform(4, 25), rng.uniform(-0.6, 0.6), rng.uniform(0, 25)
    across, upright, top = (
        np.linspace(-5, width + 5, 20),
        rng.random() < 0.4,
        rng.uniform(0, height),
    )
    for number in range(rng.integers(2, 7)):
        hang = sag * (1 - (2 * across / width - 1) ** 2)
        line = np.stack([across, top + number * step + slope * across + hang], 1)
        _curve(picture, line[:, ::-1] if upright else line, colour, thick)


def _filaments(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Glowing wires, neon tubes and trails of light, with light around them."""
    height, width = picture.shape[:2]
    warm = np.array([255, rng.uniform(150, 250), rng.uniform(60, 230)])
    if rng.random() < 0.3:
        warm = rng.permutation(warm)
    light, count = np.zeros((height, width), np.float32), int(rng.integers(1, 4))
    along = np.linspace(0, 1, 40)
    for _ in range(count):
        middle, reach = rng.uniform(0, [width, height]), rng.uniform(10, 70)
        turns, flat = rng.uniform(0.3, 4), rng.uniform(0.1, 0.8)
        phase, way = rng.uniform(0, 6.3), rng.uniform(0, math.pi)
        coil = np.stack(
            [reach * (2 * along - 1), reach * flat * np.sin(6.3 * turns * along + phase)], 1
        )
        turned = coil @ np.array([[math.cos(way), math.sin(way)], [-math.sin(way), math.cos(way)]])
        _curve(light, middle + turned, (1.0,), int(rng.integers(1, 4)))
    _glow(picture, light, warm, rng)


def _lamps(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Lamps, stars, candles and glints, with light around them, and rays now and then."""
    height, width = picture.shape[:2]
    light = np.zeros((height, width), np.float32)
    for _ in range(rng.integers(1, 14)):
        place = tuple(int(v) for v in rng.uniform(0, [width, height]))
        cv2.circle(light, place, int(rng.integers(1, 5)), (1.0,), -1, cv2.LINE_AA)
        if rng.random() < 0.25:
            reach, turn = rng.uniform(4, 20), rng.uniform(0, 3.2)
            for number in range(4):
                angle = turn + number * math.pi / 2
                ray = np.array([[0, 0], [reach * math.cos(angle), reach * math.sin(angle)]])
                _curve(light, ray + place, (0.6,), 1)
    _glow(picture, light, np.array([255, rng.uniform(190, 255), rng.uniform(110, 255)]), rng)


def _panes(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Windows with bars between panes that are darker or lighter, seen a little from aside."""
    height, width = picture.shape[:2]
    bar, pane = _colour(rng), _colour(rng)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 5))
    size, place = rng.uniform(10, 32, 2), rng.uniform(-20, [width - 20, height - 20])
    lean, thick = rng.uniform(-0.25, 0.25, 2), int(rng.integers(1, 4))

    def corner(column: float, row: float) -> np.ndarray:
        x, y = column * size[0], row * size[1]
        return place + np.array([x + lean[0] * y, y + lean[1] * x])

    frame = [corner(c, r) for c, r in ((0, 0), (columns, 0), (columns, rows), (0, rows))]
    if rng.random() < 0.7:
        over = picture.copy()
        cv2.fillPoly(over, [np.rint(frame).astype(np.int32)], pane)
        share = rng.uniform(0.4, 1)
        picture[:] = cv2.addWeighted(over, share, picture, 1 - share, 0)
    for row in range(rows + 1):
        _curve(picture, np.stack([corner(0, row), corner(columns, row)]), bar, thick)
    for column in range(columns + 1):
        _curve(picture, np.stack([corner(column, 0), corner(column, rows)]), bar, thick)


def _glow(
    picture: np.ndarray, light: np.ndarray, colour: np.ndarray, rng: np.random.Generator
) -> None:
    """Lays light of a colour over a picture: itself nearly white, and a halo around it."""
    halo = cv2.GaussianBlur(light, (0, 0), float(rng.uniform(2, 9)))
    halo = (rng.uniform(0.5, 4) * halo).clip(0, 1)[..., None] * rng.uniform(0.2, 0.8)
    core = light[..., None] * rng.uniform(0.6, 1)
    lit = 255 - (255 - picture) * (1 - halo * colour / 255)
    white = colour + rng.uniform(0, 1) * (255 - colour)
    picture[:] = np.rint(lit + core * (white - lit)).clip(0, 255)


def _curve(picture: np.ndarray, points: np.ndarray, colour: tuple[float, ...], thick: int) -> None:
    """A smooth line through points, placed to a sixteenth of a pixel."""
    places = np.rint(16 * points).astype(np.int32)[:, None]
    cv2.polylines(picture, [places], False, colour, thick, cv2.LINE_AA, 4)


def _colour(rng: np.random.Generator) -> tuple[int, ...]:
    return _levels(rng.integers(0, 256) + rng.integers(-20, 20, 3))


def _levels(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values.clip(0, 255))


def _faces(picture: np.ndarray, rng: np.random.Generator) -> None:
    """A small face as old portraits have it: soft, eyes and brows no more than dark strokes."""
    height, width = picture.shape[:2]
    r, turn = rng.uniform(9, 34), math.radians(rng.uniform(-20, 20))
    middle = rng.uniform([0, 0], [width, height])
    skin = np.array([1, rng.uniform(0.75, 1), rng.uniform(0.6, 1)]) * rng.uniform(110, 250)
    dark, side = rng.uniform(0.1, 0.65) * skin, rng.uniform(-0.15, 0.15)
    cos, sin = math.cos(turn), math.sin(turn)

    def oval(x: float, y: float, wide: float, high: float, colour: np.ndarray) -> None:
        place = middle + r * np.array([cos * x - sin * y, sin * x + cos * y])
        axes = tuple(max(8, int(16 * r * side)) for side in (wide, high))
        at = tuple(int(16 * v) for v in place)
        degrees = math.degrees(turn)
        cv2.ellipse(picture, at, axes, degrees, 0, 360, _levels(colour), -1, cv2.LINE_AA, 4)

    if rng.random() < 0.7:
        oval(0, -0.35, 1, 1.15, rng.uniform(0, 0.6) * skin)
    oval(0, 0, 0.78, 1.05, skin)
    wide, high = rng.uniform(0.13, 0.24), rng.uniform(0.05, 0.12)
    for way in (-1, 1):
        oval(side + way * 0.34, -0.12, wide, high, dark)
        if rng.random() < 0.6:
            oval(side + way * 0.34, -0.14, 0.07, 0.07, 0.4 * dark)
        if rng.random() < 0.3:
            oval(side + way * 0.34 + 0.03, -0.17, 0.02, 0.02, np.full(3, 250))
        if rng.random() < 0.8:
            oval(side + way * 0.36, -0.36, 0.24, 0.04, (dark + skin) / 2)
        oval(1.2 * side + way * 0.07, 0.27, 0.04, 0.04, (dark + skin) / 2)
    oval(side, 0.55, rng.uniform(0.2, 0.3), rng.uniform(0.04, 0.1), (dark + skin) / 2)


def _text(picture: np.ndarray, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    colour = _colour(rng)
    for _ in range(rng.integers(1, 5)):
        letters = "".join(chr(rng.integers(33, 126)) for _ in range(rng.integers(3, 16)))
        place = int(rng.integers(-10, width - 20)), int(rng.integers(10, height))
        font, size = int(rng.integers(0, 8)), float(rng.uniform(0.3, 1.2))
        thick = int(rng.integers(1, 3))
        cv2.putText(picture, letters, place, font, size, colour, thick, cv2.LINE_AA)


def _eyes(picture: np.ndarray, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    for _ in range(2):
        x, y, r = int(rng.integers(width)), int(rng.integers(height)), int(rng.integers(3, 11))
        axes, turn = (int(r * rng.uniform(1.4, 2.2)), r), float(rng.uniform(-30, 30))
        lid = _levels(picture[y, x].astype(int) + rng.integers(10, 70))
        cv2.ellipse(picture, (x, y), axes, turn, 0, 360, lid, -1, cv2.LINE_AA)
        iris = _levels(rng.integers(10, 90, 3))
        cv2.circle(picture, (x, y), max(1, int(r * 0.8)), iris, -1, cv2.LINE_AA)
        cv2.circle(picture, (x, y), max(1, int(r * 0.4)), (8, 8, 8), -1, cv2.LINE_AA)
        light = x + int(r * 0.3), y - int(r * 0.3)
        cv2.circle(picture, light, max(1, int(r * 0.2)), (245, 245, 245), -1, cv2.LINE_AA)
        thick = int(rng.integers(1, 3))
        cv2.ellipse(picture, (x, y), axes, turn, 180, 360, (20, 20, 25), thick, cv2.LINE_AA)


def _bars(picture: np.ndarray, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    colour, count, step = _colour(rng), int(rng.integers(2, 6)), int(rng.integers(10, 30))
    left, top, thick = (int(rng.integers(0, n)) for n in (width // 2, height // 2, 3))
    end, thick = count * step, thick + 1
    for at in range(0, end + 1, step):
        cv2.line(picture, (left + at, top), (left + at, top + end), colour, thick, cv2.LINE_AA)
        cv2.line(picture, (left, top + at), (left + end, top + at), colour, thick, cv2.LINE_AA)


def _dots(picture: np.ndarray, rng: np.random.Generator) -> None:
    height, width = picture.shape[:2]
    left, top = int(rng.integers(0, width - 20)), int(rng.integers(0, height - 20))
    step, colour = int(rng.integers(4, 9)), _colour(rng)
    rows, columns = int(rng.integers(2, 6)), int(rng.integers(3, 9))
    for row in range(rows):
        for column in range(columns):
            place = left + column * step, top + row * step
            cv2.circle(picture, place, max(1, step // 4), colour, -1, cv2.LINE_AA)


_KINDS: tuple[Callable[[np.ndarray, np.random.Generator], None], ...] = (
    _text, _faces, _faces, _faces, _eyes, _bars, _panes, _panes, _dots, _strands, _strands, _wires,
    _filaments, _filaments, _lamps,
)  # fmt: skip
