"""The last guard's judgement: drawn pictures stay as they are, damage is measured as it is."""

from dataclasses import replace

import numpy as np
import pytest
from drawn import as_codes, compressed, noisy, page, scene, stripes
from PIL import Image, ImageFilter

from urushi.inference.guard.damage import KNOWN, Limits, judged
from urushi.inference.guard.signs import Signs, Watcher, signs_of
from urushi.inference.guard.textures import Texture

FINE = ("noise", "jpeg")
STRONG = ("rain", "snow", "raindrop", "haze", "low-light")


def verdict(pixels, *route, clean=0.0, sure=0.6):
    return judged(route, signs_of(pixels.astype(np.float32) / 255), clean, sure)


# --- what is judged ---


@pytest.mark.parametrize("task", [None, *sorted(KNOWN)])
@pytest.mark.parametrize(
    "clean",
    [
        page(),
        page(paper=(250, 243, 224), ink=(60, 40, 30)),
        page(paper=(30, 30, 34), ink=(210, 220, 230)),
        stripes(2),
        stripes(5.3),
        np.kron(np.indices((50, 60)).sum(0) % 2, np.ones((3, 3)))[..., None].repeat(3, 2) * 255.0,
    ],
    ids=["page", "cream", "dark", "fine stripes", "stripes", "checks"],
)
def test_what_a_program_drew_stays_as_it_is(clean, task):
    route = () if task is None else (task,)
    found = verdict(clean, *route)
    assert found.guard is not None
    assert found.guard.strength == 0
    assert found.withheld == set(route)
    assert "stays as it is" in found.reworded("looks clean (80 %), so the base works alone", ())


@pytest.mark.parametrize("route", [(), *((name,) for name in sorted(KNOWN - {"low-light"}))])
@pytest.mark.parametrize("spoil", [lambda p: p, noisy, compressed, lambda p: as_codes(p * 0.15)])
def test_photographs_are_left_to_the_router(spoil, route):
    found = verdict(spoil(scene()), *route)
    assert not found.withheld
    assert found.guard is None
    assert found.reworded("noise (90 %)", route) == "noise (90 %)"


@pytest.mark.parametrize("spoil", [lambda p: p, noisy])
def test_what_is_not_dark_in_large_part_is_in_no_low_light(spoil):
    bright = spoil(as_codes(0.35 * 255 + 0.6 * scene()))
    found = verdict(bright, "low-light")
    assert found.withheld == {"low-light"}
    told = found.reworded("low-light (64 %)", ())
    assert told == (
        "low-light (64 %); most of it is not dark, so this is no low light, so the base works alone"
    )
    # As a person against the light.
    assert not verdict(bright, "low-light", sure=0.96).withheld
    both = verdict(bright, "low-light", "noise")
    assert both.withheld == {"low-light"}
    assert "the base works alone" not in both.reworded("low-light, then noise", ("noise",))


@pytest.mark.parametrize("lit", [0.3, 0.45])
def test_a_dark_photograph_with_a_bright_window_is_in_low_light(lit):
    dark = as_codes(0.12 * scene())
    dark[:, : round(lit * dark.shape[1])] = scene()[:, : round(lit * dark.shape[1])]
    assert not verdict(dark, "low-light").withheld


def test_of_a_photograph_that_looks_clean_the_base_takes_no_more_than_its_noise():
    grainy = noisy(scene(), 6)
    assert verdict(grainy, clean=0.49).guard is None
    found = verdict(grainy, clean=0.7)
    assert not found.withheld
    measured = found.guard.limits.damage
    assert 5 < measured < 9
    assert found.guard.limits.most == measured + 0.5
    assert not found.guard.told
    # Whoever is sure that it is clean takes what is measured for texture.
    assert verdict(grainy, clean=0.95).guard.limits == Limits(2, 2.5)


def test_noise_of_a_part_counts_as_it_is_there():
    part = scene().copy()
    part[:, :120] = noisy(part[:, :120], 12)
    for clean in (0.7, 0.95):
        guard = verdict(part, clean=clean).guard
        assert guard is None or guard.limits.damage > 9
    # Where there is next to no doubt, it is texture.
    certain = verdict(part, clean=0.98).guard
    assert certain is None or certain.limits == Limits(2, 2.5)
    assert signs_of(scene().astype(np.float32) / 255).texture().parts is None
    assert signs_of(noisy(scene(), 12).astype(np.float32) / 255).texture().parts is None


@pytest.mark.parametrize("name", FINE)
def test_experts_are_held_on_photographs_that_may_be_clean(name):
    assert verdict(noisy(scene(), 6), name, clean=0.049).guard is None
    guard = verdict(noisy(scene(), 6), name, clean=0.05).guard
    assert guard.limits.most == 1.8 * guard.limits.damage + 1.5
    assert not guard.told


def test_strong_noise_of_photographs_is_not_held():
    assert verdict(noisy(scene(), 8), "noise", clean=0.1).guard is not None
    assert verdict(noisy(scene(), 25), "noise", clean=0.1).guard is None
    assert verdict(noisy(page(), 25), "noise").guard.told


@pytest.mark.parametrize(
    "spoil", [noisy, compressed, lambda p: noisy(p, 30), lambda p: compressed(p, 10)]
)
def test_damaged_pages_are_mended_within_limits(spoil):
    for name in FINE:
        found = verdict(spoil(page()), name)
        assert not found.withheld
        assert found.guard is not None
        assert found.guard.strength == 1
        assert found.guard.limits is not None
        assert found.guard.describe()["damage"] > 1
    for name in STRONG:
        found = verdict(spoil(page()), name)
        assert found.withheld == {name}
        assert f"on a page this is no {name}" in found.reworded(f"{name} (98 %)", ())


def test_noise_is_measured_as_strong_as_it_is():
    for sigma in (5, 12, 25):
        found = verdict(noisy(page(), sigma), "noise")
        assert 0.5 * sigma < found.guard.limits.damage < 1.6 * sigma


def test_a_blurred_page_may_be_sharpened_where_it_is_not_flat():
    soft = np.asarray(Image.fromarray(page()).filter(ImageFilter.GaussianBlur(1.2)))
    found = verdict(soft, "blur")
    assert not found.withheld
    assert found.guard is None or found.guard.strength == 1
    assert verdict(page(), "blur").guard.strength == 0


def test_experts_for_something_else_are_not_judged():
    assert verdict(page(), "stains").guard is None
    assert verdict(page(), "noise", "stains").guard is None


def test_too_small_to_tell():
    assert judged((), signs_of(np.ones((2, 3, 3), np.float32))).guard is None
    assert judged((), signs_of(np.ones((5, 4), np.float32))).guard is None


def test_finer_samples_are_looked_at_more_finely():
    """Noise below one of 255, in the dark of a picture of 16 bits, is noise all the same."""
    draws = np.random.default_rng(0)
    x = np.arange(200)
    dark = 0.02 + 0.01 * np.sin(x / 30)[..., None] + draws.normal(0, 0.001, (200, 200, 3))
    samples = np.rint(65535 * np.clip(dark, 0, 1)).astype(np.float32) / 65535
    assert judged(("low-light",), signs_of(samples)).guard is None
    drawn = page().astype(np.float32) / 255 * 0.7319 + 0.0113
    assert judged(("low-light",), signs_of(drawn)).guard.strength == 0


@pytest.mark.parametrize("at_once", [1, 7, 64, 150])
def test_what_is_counted_does_not_depend_on_the_rows_at_once(at_once):
    pixels = noisy(page(331, 500)).astype(np.float32) / 255
    position = 0

    def read(count):
        nonlocal position
        position += count
        return pixels[position - count : position]

    watcher = Watcher(read, 331, 500)
    while position < 331:
        watcher.read(min(at_once, 331 - position))
    whole = signs_of(pixels)
    assert watcher.signs() == whole.signs()
    assert watcher.texture() == whole.texture()


def test_tall_pictures_are_looked_at_in_parts():
    band = noisy(page(256, 1000)).astype(np.float32) / 255
    height = 256 * 40
    watcher = Watcher(lambda count: band[:count], height, 1000)
    for _ in range(40):
        watcher.read(256)
    assert 1_000_000 < watcher.signs().looked_at < 3_000_000
    assert sum(square.nbytes for square in watcher._squares) < 1_000_000


# --- exactly at the limits of its rules, and a hair beside them ---


class Counted(Watcher):
    """A watcher that says what it is told to."""

    def __init__(self, signs, texture):
        super().__init__(lambda _rows: np.zeros((0, 1, 3), np.float32), 1, 1)
        self._told = signs, texture

    def signs(self):
        return self._told[0]

    def texture(self):
        return self._told[1]


PHOTOGRAPH = Signs(
    flat=0.0, smooth=0.0, rough=0.9, edge=0.05, rough_near=0.9, rough_far=0.9, bright_steps=0.001,
    stark_steps=0.0, sharp=0.3, dim=0.5, looked_at=1000,
)  # fmt: skip
DRAWN = replace(PHOTOGRAPH, smooth=0.5, rough_near=0.1, rough_far=0.1)
BUSY = replace(PHOTOGRAPH, bright_steps=0.02)
GRAIN = Texture(noise=6.0, ringing=3.0, repeats=0.1)
PATTERN = replace(GRAIN, noise=2.0, repeats=0.97)
RULES = [
    # What is drawn, be nothing wrong with it, comes back as it is.
    ("as it is", DRAWN, GRAIN, "smooth", 0.03, -1),
    ("as it is", DRAWN, GRAIN, "rough_near", 0.28, 1),
    ("as it is", DRAWN, GRAIN, "rough_far", 0.25, 1),
    # Pages are held to the damage that is measured.
    ("page", replace(PHOTOGRAPH, bright_steps=0.2), GRAIN, "stark_steps", 0.04, -1),
    ("page", replace(PHOTOGRAPH, bright_steps=0.01), GRAIN, "stark_steps", 0.01, -1),
    ("page", replace(PHOTOGRAPH, bright_steps=0.1), GRAIN, "stark_steps", 0.28 * 0.1, -1),
    ("page", PHOTOGRAPH, GRAIN, "bright_steps", 0.3, -1),
    ("page", replace(PHOTOGRAPH, bright_steps=0.03, rough_near=0.7), GRAIN, "flat", 0.3, -1),
    ("page", replace(PHOTOGRAPH, flat=0.3, rough_near=0.7), GRAIN, "bright_steps", 0.03, -1),
    ("page", replace(PHOTOGRAPH, flat=0.3, bright_steps=0.03), GRAIN, "rough_near", 0.7, 1),
    ("page", replace(PHOTOGRAPH, edge=0.01, rough_near=0.38), GRAIN, "flat", 0.2, -1),
    ("page", replace(PHOTOGRAPH, flat=0.2, rough_near=0.38), GRAIN, "edge", 0.01, -1),
    ("page", replace(PHOTOGRAPH, flat=0.2, edge=0.01), GRAIN, "rough_near", 0.38, 1),
    ("page", replace(PHOTOGRAPH, bright_steps=0.03), GRAIN, "sharp", 0.82, -1),
    ("page", replace(PHOTOGRAPH, edge=0.3, sharp=0.82), GRAIN, "bright_steps", 0.03, -1),
    # Noise of busy pictures is held, what repeats is no damage.
    ("busy", PHOTOGRAPH, GRAIN, "bright_steps", 0.015, -1),
    ("page", BUSY, PATTERN, "repeats", 0.97, -1),
    ("page", PHOTOGRAPH, replace(PATTERN, noise=6.0), "edge", 0.3, -1),
    ("as it is", replace(BUSY, edge=0.3), PATTERN, "noise", 2.0, 1),
    ("as it is", BUSY, PATTERN, "edge", 0.3, -1),
]


def kind_of(found):
    """What a verdict on `rain` and on `noise` comes to."""
    rain, noise = found
    if noise.guard is not None and noise.guard.strength == 0:
        return "as it is"
    if rain.withheld:
        return "page"
    return "busy" if noise.guard is not None and noise.guard.told else None


@pytest.mark.parametrize(("kind", "signs", "texture", "name", "limit", "way"), RULES)
def test_a_rule_of_the_guard_holds_at_its_limit_and_not_beyond(
    kind, signs, texture, name, limit, way
):
    def judged_at(value):
        own, texture_of = signs, texture
        if name in ("noise", "repeats"):
            texture_of = replace(texture, **{name: value})
        else:
            own = replace(signs, **{name: value})
        return kind_of([judged((route,), Counted(own, texture_of)) for route in ("rain", "noise")])

    assert judged_at(limit) == kind
    assert judged_at(float(np.nextafter(limit, way * np.inf))) != kind


def test_what_is_crisp_in_stronger_noise_is_no_page():
    crisp = replace(PHOTOGRAPH, bright_steps=0.03, sharp=0.82)
    for noise, withheld in ((float(np.nextafter(25, 0)), {"rain"}), (25.0, set())):
        assert judged(("rain",), Counted(crisp, replace(GRAIN, noise=noise))).withheld == withheld


def test_ringing_counts_where_the_ground_is_smooth_enough():
    page_of = replace(PHOTOGRAPH, stark_steps=0.04)
    for smooth, damage in ((0.04, 3.0), (float(np.nextafter(0.04, 0)), 6.0)):
        found = judged(("noise",), Counted(replace(page_of, smooth=smooth), GRAIN))
        assert found.guard.limits.damage == damage
