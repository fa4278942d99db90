"""The last guard: drawn pictures stay as they are, and changes are held to what damage there is."""

import io
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from world import SEEN

from urushi.errors import UnreadableError
from urushi.inference.auto import AutoRestorer
from urushi.inference.guard.damage import KNOWN, Guard, Limits, judged
from urushi.inference.guard.holding import GuardedRestorer, Holder
from urushi.inference.guard.signs import Signs, Watcher, signs_of
from urushi.inference.guard.textures import Texture
from urushi.inference.restorer import Restorer

FINE = ("noise", "jpeg")
STRONG = ("rain", "snow", "raindrop", "haze", "low-light")


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


def verdict(pixels, *route):
    return judged(route, signs_of(pixels.astype(np.float32) / 255))


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


@pytest.mark.parametrize("route", [(), *((name,) for name in sorted(KNOWN))])
@pytest.mark.parametrize("spoil", [lambda p: p, noisy, compressed, lambda p: as_codes(p * 0.15)])
def test_photographs_are_left_to_the_router(spoil, route):
    found = verdict(spoil(scene()), *route)
    assert not found.withheld
    assert found.guard is None
    assert found.reworded("noise (90 %)", route) == "noise (90 %)"


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
    stark_steps=0.0, sharp=0.3, looked_at=1000,
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
    return "busy" if noise.guard is not None else None


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


@pytest.mark.parametrize(("left_out", "told"), [(0.25, True), (0.2499, False)])
def test_a_quarter_left_out_is_worth_telling(inner, monkeypatch, left_out, told):
    monkeypatch.setattr(Holder, "left_out", left_out)
    restorer = GuardedRestorer(inner, Guard(1.0, "", Limits(4.0, 6.0)))
    restorer.restore(noisy(page(40, 50)))
    assert any("is no damage" in note for note in restorer.notes) == told


# --- what is held ---


def held(before, after, damage, most=5.0, at_once=40):
    holder = Holder(Limits(damage, most))
    parts = []
    for row in range(0, len(before), at_once):
        parts += holder.add(before[row : row + at_once], after[row : row + at_once])
    parts += holder.finish()
    return np.concatenate(parts), holder


def grey(level=0.5, height=160, width=120):
    return np.full((height, width, 3), level, np.float32)


def noise(sigma, shape=(160, 120, 3), seed=0):
    return np.random.default_rng(seed).normal(0, sigma / 255, shape).astype(np.float32)


def test_noise_is_taken_away_as_before():
    before = grey() + noise(8)
    restored, holder = held(before, grey(), 8, 1.35 * 8 + 1)
    assert np.abs(restored - 0.5).mean() < 0.1 * np.abs(before - 0.5).mean()
    assert holder.left_out < 0.1


def test_means_stay():
    """A tint over all of it is no noise."""
    before = grey() + noise(3)
    restored, holder = held(before, before + 0.1, 3)
    assert np.abs(restored - before).max() < 0.02
    assert holder.left_out > 0.8


def test_changes_far_stronger_than_damage_are_left_out():
    before = grey() + noise(2) + 0.4 * (np.indices((160, 120)).sum(0) % 2)[..., None] - 0.2
    restored, _ = held(before.astype(np.float32), grey(), 2)
    assert np.abs(restored - before).max() < 0.01


def test_exactly_flat_ground_stays_exactly():
    before = page(160, 330).astype(np.float32) / 255
    after = before + noise(4, before.shape)
    for damage in (None, 50.0):
        restored, _ = held(before, after, damage, 500.0)
        assert np.array_equal(restored[:4], before[:4])
        assert np.array_equal(restored[:, -5:], before[:, -5:])
        assert not np.array_equal(restored, before)


@pytest.mark.parametrize("at_once", [1, 23, 160])
def test_it_is_the_same_however_rows_come(at_once):
    before = grey() + noise(8)
    before[40:90, 20:70] = 0.25
    after = before + noise(9, seed=1)
    expected, _ = held(before, after, 8)
    found, _ = held(before, after, 8, at_once=at_once)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 90), (70, 1), (5, 3), (63, 64), (87, 9)])
def test_any_size(shape):
    before = noise(20, (*shape, 3)) + 0.5
    restored, _ = held(before, before + noise(5, before.shape, 1), 5)
    assert restored.shape == before.shape
    assert np.isfinite(restored).all()


# --- in a restorer ---


@pytest.fixture(scope="module")
def inner(world):
    return Restorer(world / "tiny.safetensors", engine="torch", device="cpu", tile=64)


def opened(world, **options):
    return AutoRestorer(world / "all-in-one.safetensors", engine="torch", device="cpu", **options)


def pictures():
    drawn = page()
    yield drawn
    yield drawn.astype(np.uint16) * 257
    yield drawn.astype(np.float32) / 255
    yield drawn[..., 0]
    yield drawn[..., :1].astype(np.float32) / 255
    yield np.dstack([drawn, np.arange(drawn[..., 0].size).reshape(drawn.shape[:2]) % 256]).astype(
        np.uint8
    )


@pytest.mark.parametrize("index", range(6))
def test_pages_of_any_kind_come_back_as_they_were(world, index):
    drawn = list(pictures())[index]
    auto = opened(world)
    restored = auto.restore(drawn)
    assert restored.dtype == drawn.dtype
    assert np.abs(restored.astype(float) - drawn).max() < 1e-6
    assert auto.last.route == ()
    told = json.loads(json.dumps(auto.last.describe()))
    assert told["seen"] is not None
    assert told["guard"]["strength"] == 0
    assert "stays as it is" in told["reason"]
    assert "base works alone" not in told["reason"]


def test_the_guard_can_be_left_out_and_is_not_asked_where_the_task_was_told(world):
    drawn = page()
    free = opened(world, guard=False)
    changed = free.restore(drawn)
    assert free.last.route == ((SEEN, 1.0),)
    assert free.last.guard is None
    assert not np.array_equal(changed, drawn)
    told = opened(world, task=SEEN)
    assert np.array_equal(told.restore(drawn), changed)
    again = pickle.loads(pickle.dumps(free))
    assert np.array_equal(again.restore(drawn), changed)


def test_a_file_and_an_array_are_judged_alike(world, tmp_path):
    Image.fromarray(noisy(page())).save(tmp_path / "page.png")
    auto = opened(world)
    by_file = auto.choose_file(tmp_path / "page.png")
    by_array = auto.choose(noisy(page()))
    assert by_file.guard == by_array.guard
    assert by_file.guard.strength == 1
    assert by_file.reason == by_array.reason


def test_a_damaged_page_is_held_and_it_is_told(world, inner):
    drawn = noisy(page())
    guard = verdict(drawn, "noise").guard
    restorer = GuardedRestorer(inner, guard)
    restored, free = restorer.restore(drawn), inner.restore(drawn)
    assert np.abs(restored - drawn.astype(float)).mean() < np.abs(free - drawn.astype(float)).mean()
    assert restorer.scale == 1
    assert restorer.describe() == inner.describe()
    strict = GuardedRestorer(inner, Guard(1, "", Limits(0.5, 0.5)))
    strict.restore(drawn)
    assert any("is no damage" in note for note in strict.notes)


def test_a_guarded_restorer_can_be_sent(world):
    restorer = Restorer(world / "tiny.safetensors", engine="torch", device="cpu")
    guard = Guard(1.0, "because", Limits(4.0, 6.0))
    again = pickle.loads(pickle.dumps(GuardedRestorer(restorer, guard)))
    drawn = noisy(page(60, 70))
    assert np.array_equal(again.restore(drawn), GuardedRestorer(restorer, guard).restore(drawn))


def test_tiles_and_progress(world, inner):
    drawn = noisy(page(100, 150))
    seen = []
    for strength in (0.0, 1.0):
        restorer = GuardedRestorer(inner, Guard(strength, "", Limits(4.0, 6.0)))
        seen.clear()
        restorer.restore(drawn, lambda done, total: seen.append((done, total)))
        assert seen[-1] == (15000, 15000)


def test_a_picture_that_ends_too_soon_is_told(inner):
    rows = iter([np.zeros((5, 9, 3), np.float32), np.zeros((0, 9, 3), np.float32)])
    restorer = GuardedRestorer(inner, Guard(0.0, ""))
    with pytest.raises(UnreadableError, match="ended after 5 of 9 rows"):
        list(restorer.restore_rows(lambda _count: next(rows), 9, 9))


def test_colours_beyond_and_what_is_no_number():
    bright = page().astype(np.float32) / 255 * 3
    bright[:100] += noise(200, bright[:100].shape)
    assert signs_of(bright).signs() is not None
    bright[3, 4] = np.nan
    bright[5, 6] = np.inf
    assert signs_of(bright).signs() is not None


def test_a_reader_may_give_its_one_buffer_again_and_again(world):
    drawn = noisy(page(90, 70)).astype(np.float32) / 255
    guard = Guard(1.0, "", Limits(4.0, 6.0))

    def restored(shared):
        position, buffer = 0, np.empty((200, 70, 3), np.float32)

        def read(count):
            nonlocal position
            rows = drawn[position : position + count]
            position += len(rows)
            if not shared:
                return rows.copy()
            buffer[:] = 0.5
            buffer[: len(rows)] = rows
            return buffer[: len(rows)]

        rows = GuardedRestorer(small_tiles, guard).restore_rows(read, 70, 90)
        return np.concatenate(list(rows))

    small = {"device": "cpu", "tile": 32, "overlap": 8}
    small_tiles = Restorer(world / "tiny.safetensors", engine="torch", **small)
    assert np.array_equal(restored(shared=True), restored(shared=False))
