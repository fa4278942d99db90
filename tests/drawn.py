"""Pages, patterns and scenes that the tests of the guard look at, and how they are spoilt."""

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont


def page(height=200, width=260, paper=(255, 255, 255), ink=(0, 0, 0)):
    """Lines of text, `(H, W, 3)` uint8."""
    image = Image.new("RGB", (width, height), paper)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(15)
    for row in range(8, height - 20, 22):
        draw.text((10, row), "Lacquer mends bowls, gold shows where.", ink, font)
    return np.asarray(image)


def stripes(period=3, angle=0.6):
    y, x = np.mgrid[:150, :160]
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period)
    return np.repeat(np.rint(127 + 120 * wave)[..., None], 3, 2).astype(np.uint8)


def scene(seed=0):
    """Like a photograph: soft and hard shapes, and the fine noise of a sensor."""
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[:200, :240]
    light = 90 + 50 * np.sin(x / 37) + 30 * np.cos(y / 23)
    light = light + 60 * (np.hypot(x - 150, y - 90) < 40) - 40 * (np.abs(x - y) < 9)
    image = Image.fromarray(np.uint8(light.clip(0, 255))).filter(ImageFilter.GaussianBlur(1))
    pixels = np.asarray(image, float)[..., None] * np.array([1, 0.9, 0.8])
    return as_codes(pixels + draws.normal(0, 2.5, (200, 240, 3)))


def as_codes(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def noisy(pixels, sigma=12):
    return as_codes(pixels + np.random.default_rng(1).normal(0, sigma, pixels.shape))


def compressed(pixels, quality=40):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))
