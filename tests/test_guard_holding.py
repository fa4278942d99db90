"""The last guard's hold: changes go as far as the damage that there is, within a restorer too."""

import json
import pickle

import numpy as np
import pytest
from drawn import noisy, page, scene
from PIL import Image
from world import SEEN

from urushi.errors import UnreadableError
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Choice, hinted
from urushi.inference.guard.damage import Guard, Limits, judged
from urushi.inference.guard.holding import GuardedRestorer, Holder
from urushi.inference.guard.signs import signs_of
from urushi.inference.restorer import Restorer
from urushi.routing.decision import Decision


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


def test_nothing_goes_further_than_asked_nor_the_other_way():
    draws = np.random.default_rng(3)
    before = draws.uniform(0.3, 0.6, (60, 80, 3)).astype(np.float32)
    wanted = draws.normal(0, 0.02, before.shape).astype(np.float32)
    # One lamp is made brighter by far; means that are left out are those around it.
    wanted[30, 40] = 0.4
    restored, _ = held(before, before + wanted, 3.0, 60.0)
    change = restored - before
    assert (change >= np.minimum(wanted, 0) - 1e-6).all()
    assert (change <= np.maximum(wanted, 0) + 1e-6).all()
    assert np.abs(change).max() > 0.1


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


@pytest.mark.parametrize(
    ("clean", "rain", "damage"),
    [(0.7, 0.03, "noise"), (0.95, 0.03, 2), (0.7, 0.04, None), (0.49, 0.0, None)],
)
def test_the_base_is_held_where_it_looks_clean_and_is_not_rainy(world, inner, clean, rain, damage):
    watcher = signs_of(noisy(scene(), 6).astype(np.float32) / 255)
    rest = {"rain": rain, "haze": 1 - clean - rain}
    decision = Decision({}, {"clean": clean, **rest}, True, "looks clean", "haze")
    choice = opened(world)._guarded(Choice((), "looks clean", decision), watcher)
    if damage is None:
        assert choice.guard is None
        return
    assert choice.guard.limits.damage == (watcher.texture().noise if damage == "noise" else damage)
    # It is no surprise, and no reason to keep to oneself what may be worth trying.
    assert not choice.guard.told
    assert hinted(choice).suggested == "haze"
    restorer = GuardedRestorer(inner, choice.guard)
    restorer.restore(noisy(scene(), 6))
    assert not any("is no damage" in note for note in restorer.notes)


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
    guard = judged(("noise",), signs_of(drawn.astype(np.float32) / 255)).guard
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


@pytest.mark.parametrize(("left_out", "told"), [(0.25, True), (0.2499, False)])
def test_a_quarter_left_out_is_worth_telling(inner, monkeypatch, left_out, told):
    monkeypatch.setattr(Holder, "left_out", left_out)
    restorer = GuardedRestorer(inner, Guard(1.0, "", Limits(4.0, 6.0)))
    restorer.restore(noisy(page(40, 50)))
    assert any("is no damage" in note for note in restorer.notes) == told
