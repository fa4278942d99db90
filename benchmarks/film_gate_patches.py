"""Patches of clean scenes with marks by formula, for the gate of the expert for film.

Scenes are grey, toned, faded, soft, grainy or compressed by turns; many are parts of pictures that
the expert changes most, and on some of them `film_gate_scenes` draws what looks like marks and is
none. Marks are those of `film_damage`, and wide solid patches, which it has none of.
"""

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from film_gate_scenes import drawn_on
from torch import Tensor

from urushi.data.packed import PackedPictures
from urushi.degradations import create_degradation

__all__ = ["Patches"]

# Of pictures, where no window is taken.
_SCALES = (0.25, 1.05)
# Of so many pictures one is held out.
_HELD = 12
_THIN = ("dust", "flecks", "scratches", "hairs", "lint", "lines", "cracks")
# Settings of `film_damage`, and how often each is drawn; None for patches.
_MARKS: tuple[tuple[float, dict[str, Any] | None], ...] = (
    (2.5, {"several": 0.12}),
    (2.5, {"several": 0.12, "kinds": _THIN}),
    (1.0, {"several": 0.1, "kinds": ("dust", "flecks"), "amount": (2, 20), "opacity": (0.5, 1)}),
    (0.7, {"several": 0.2, "kinds": ("scratches", "dust"), "amount": (0.5, 5),
           "opacity": (0.5, 1)}),
    (0.8, {"several": 0.1, "kinds": ("stains", "blots", "flecks"), "size": (0.8, 3),
           "opacity": (0.5, 1)}),
    (0.7, {"several": 0.1, "kinds": ("hairs", "lint", "flecks"), "size": (0.8, 2),
           "amount": (0.5, 1.5)}),
    (1.3, None),
)  # fmt: skip


class Patches:
    """Draws batches of `(n, 3, s, s)` in [0, 1], in steps of 1/255.

    Args:
        pack: of clean pictures.
        seed: of everything that is drawn.
        side: of a patch, in pixels.
        windows: rows of (picture, scale, top, left), of squares of `side` pixels at that scale.
        held: of every twelfth picture alone, which the others leave out.
        hard: share of scenes that are among the windows.
        drawn: share of scenes on which something is drawn.
        clean: share of patches without marks.
    """

    def __init__(
        self,
        pack: Path,
        seed: int,
        side: int,
        *,
        windows: np.ndarray,
        held: bool,
        hard: float = 0.45,
        drawn: float = 0.35,
        clean: float = 0.35,
    ) -> None:
        self._pictures = PackedPictures(pack)
        numbers = np.arange(len(self._pictures))
        self._numbers = numbers[(numbers % _HELD == _HELD // 4) == held]
        self._windows = windows[np.isin(windows[:, 0].astype(int), self._numbers)]
        self._hard = hard
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._side, self._drawn, self._clean = side, drawn, clean
        self._made = [
            None if options is None else create_degradation("film_damage", **options)
            for _, options in _MARKS
        ]

    def batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Damaged patches, and what they were."""
        clean = torch.stack([self._developed(self._scene()) for _ in range(count)]).clamp(0, 1)
        damaged = self._damaged(clean)
        left = torch.rand(count, generator=self._generator) < self._clean
        damaged[left] = clean[left]
        return _in_levels(damaged), _in_levels(clean)

    def _scene(self) -> Tensor:
        rng = self._rng
        number, factor, place = int(rng.choice(self._numbers)), rng.uniform(*_SCALES), None
        if rng.random() < self._hard:
            row = self._windows[rng.integers(len(self._windows))]
            number, factor, place = int(row[0]), row[1], row[2:] / row[1]
        picture = np.asarray(self._pictures.picture(number))
        height, width = picture.shape[:2]
        factor = float(np.clip(1 / factor, 1, min(height, width) / self._side))
        side = int(self._side * factor)
        if place is None:
            place = rng.random(2) * [height - side, width - side]
        top, left = (int(v) for v in np.clip(place, 0, [height - side, width - side]))
        part = np.ascontiguousarray(picture[top : top + side, left : left + side])
        if side != self._side:
            part = cv2.resize(part, (self._side, self._side), interpolation=cv2.INTER_AREA)
        if rng.random() < 0.5:
            part = part[:, ::-1]
        if rng.random() < self._drawn:
            part = drawn_on(np.ascontiguousarray(part), rng)
        return torch.from_numpy(np.ascontiguousarray(part)).permute(2, 0, 1).float() / 255

    def _developed(self, scene: Tensor) -> Tensor:
        """As scans of old pictures are."""
        scene, draw = self._toned(scene), self._draw
        if draw() < 0.25:
            scene = _blurred(scene, 0.4 + 1.3 * draw())
        if draw() < 0.4:
            sigma = (1 + 12 * draw() ** 2) / 255
            grain = torch.randn(scene.shape, generator=self._generator)
            if draw() < 0.6:
                grain = 1.7 * grain.mean(0, keepdim=True).expand_as(grain)
            if draw() < 0.4:
                grain = 2 * _blurred(grain, 0.8)
            scene = scene + sigma * grain
        if draw() < 0.25:
            pixels = (255 * scene.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(55 + 43 * draw())]
            stored = cv2.imencode(".jpg", pixels[..., ::-1], quality)[1]
            pixels = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR))
            scene = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1).float() / 255
        return scene

    def _toned(self, scene: Tensor) -> Tensor:
        draw, way = self._draw, self._draw()
        if way >= 0.7:
            return scene
        gamma = 0.6 + 0.9 * draw()
        if way >= 0.45:
            low, high = 0.15 * self._three() * draw(), 1 - 0.3 * self._three() * draw()
            return low + scene.clamp(0, 1) ** gamma * (high - low)
        weights = torch.tensor([0.3, 0.59, 0.11])[:, None, None]
        grey = (scene * weights).sum(0, keepdim=True).clamp(0, 1) ** gamma
        if draw() >= 0.5:
            return grey.expand(3, -1, -1)
        low = torch.tensor([0.10, 0.07, 0.04])[:, None, None] * draw()
        high = 1 - torch.tensor([0.0, 0.12, 0.3])[:, None, None] * draw()
        return low + grey * (high - low)

    def _damaged(self, clean: Tensor) -> Tensor:
        damaged = clean.clone()
        weights = torch.tensor([weight for weight, _ in _MARKS])
        kinds = torch.multinomial(weights, len(clean), True, generator=self._generator)
        for kind in kinds.unique().tolist():
            rows = (kinds == kind).nonzero()[:, 0]
            made = self._made[kind]
            if made is None:
                for row in rows.tolist():
                    damaged[row] = self._patched(clean[row])
                continue
            parameters = made.sample((len(rows), *clean.shape[1:]), self._generator)
            damaged[rows] = made.apply(clean[rows], parameters)
        return damaged

    def _patched(self, scene: Tensor) -> Tensor:
        """With one to three solid patches, nearly white or nearly black."""
        opacity = torch.zeros(scene.shape[1:])
        for _ in range(1 + int(2.2 * self._draw())):
            opacity = torch.maximum(opacity, self._patch(*scene.shape[1:]))
        opacity = opacity * (1 - 0.4 * self._draw() ** 2)
        tone, tint = 0.2 * self._draw(), self._three()
        if self._draw() < 0.6:
            tint = tint.mean(0, keepdim=True)
        colour = 1 - tone * (0.4 + 0.8 * tint) if self._draw() < 0.5 else tone * (0.5 + tint)
        return scene + opacity * (colour - scene)

    def _patch(self, height: int, width: int) -> Tensor:
        """Strokes of about one direction around a place, as one opacity."""
        draw = self._draw
        y, x = torch.arange(height).float()[:, None], torch.arange(width).float()[None]
        middle = draw() * height, draw() * width
        radius, angle, spread = 8 + 75 * draw() ** 1.6, draw() * math.pi, 0.15 + 0.9 * draw()
        flat, wide = 0.35 + 0.65 * draw(), radius * (0.06 + 0.25 * draw())
        distance = torch.full((height, width), 1e3)
        for _ in range(6 + int(26 * draw())):
            turn = angle + spread * (draw() - 0.5)
            along, across = (
                0.55 * radius * (2 * draw() - 1),
                0.55 * radius * flat * (2 * draw() - 1),
            )
            top = middle[0] + along * math.sin(angle) + across * math.cos(angle)
            left = middle[1] + along * math.cos(angle) - across * math.sin(angle)
            reach, cos, sin = radius * (0.35 + 0.5 * draw()), math.cos(turn), math.sin(turn)
            place = ((x - left) * cos + (y - top) * sin).clamp(-reach, reach)
            off = torch.hypot(x - left - place * cos, y - top - place * sin)
            distance = torch.minimum(distance, off - wide * (0.5 + draw()))
        frayed = torch.rand(1, 1, height // 3 + 1, width // 3 + 1, generator=self._generator)
        frayed = F.interpolate(frayed, (height, width), mode="bilinear")[0, 0]
        distance = distance + (frayed - 0.5) * 6 * draw() ** 2
        return (0.5 - distance / (0.6 + 2.5 * draw() ** 2)).clamp(0, 1)

    def _draw(self) -> float:
        return float(torch.rand(1, generator=self._generator))

    def _three(self) -> Tensor:
        return torch.rand(3, 1, 1, generator=self._generator)


def _in_levels(values: Tensor) -> Tensor:
    return (255 * values.clamp(0, 1)).round() / 255


def _blurred(scene: Tensor, sigma: float) -> Tensor:
    pixels = scene.permute(1, 2, 0).contiguous().numpy()
    return torch.from_numpy(cv2.GaussianBlur(pixels, (0, 0), sigma)).permute(2, 0, 1)
