"""What is done to results of adapters that change the light of a whole picture."""

import numpy as np
import pytest
from networks import DarkenEngine
from world import write_random, write_tiny_model

from urushi.files.adapter import write_adapter
from urushi.files.model import read_model
from urushi.inference import changed_light
from urushi.inference.changed_light import (
    Finish,
    finishing,
    leaves_detail,
    margin_of,
    with_highlights,
    with_neutral_black,
)
from urushi.inference.even_ground import with_even_ground
from urushi.inference.restorer import Restorer


def grey(*levels):
    """Flat parts side by side, wide enough not to see one another."""
    row = np.repeat(np.float32(levels), 8)
    return np.ascontiguousarray(np.broadcast_to(row, (3, 12, len(row))))


def middles(tile):
    return tile[:, 6, 4::8].mean(axis=0)


def test_dark_parts_are_taken_as_they_come_and_white_stays():
    levels = (0.0, 0.1, 0.3, 0.5, 0.75, 1.0)
    brightened = np.minimum(grey(*levels) * 3 + 0.05, 1).astype(np.float32)
    made = middles(with_highlights(grey(*levels), brightened))
    np.testing.assert_allclose(made[:2], [0.05, 0.35], atol=1e-6)
    np.testing.assert_allclose(made[4:], [0.875, 1.0], atol=1e-6)
    assert 0.65 < made[2] < made[3] < 0.95


def test_what_was_brighter_stays_brighter():
    levels = np.linspace(0, 1, 41)
    tile = grey(*levels)
    # As much as such a curve may do: ten stops for black, none for white.
    made = middles(with_highlights(tile, (1 - (1 - tile) ** 1.9).astype(np.float32)))
    assert (np.diff(made) > 0).all()


def test_a_bright_colour_counts_as_bright():
    sky = np.stack([np.full((9, 9), level, np.float32) for level in (0.2, 0.4, 0.9)])
    made = with_highlights(sky, np.ones_like(sky))
    np.testing.assert_allclose(made[:, 4, 4], np.float32([0.2, 0.4, 0.9]) * 0.8 + 0.2, atol=1e-6)


def test_even_ground_of_one_colour_keeps_its_shades():
    """A blue wall, dark enough to be taken as it comes, that a network makes all blue."""
    wall = np.zeros((3, 20, 64), np.float32)
    wall[2] = np.linspace(0.25, 0.45, 64)
    burnt = (
        np.float32([0, 0.1, 3])[:, None, None] * wall + np.float32([0.1, 0.1, 0.4])[:, None, None]
    )
    made = with_highlights(wall, burnt)
    assert made[2].max() < 250 / 255
    assert made[2, 10, -1] - made[2, 10, 0] > 5 / 255
    assert (np.diff(made[2], axis=1) > 0).all()
    np.testing.assert_allclose(made[:2], burnt[:2], atol=1e-6)


def test_black_has_no_colour_and_dark_things_keep_theirs():
    tile = np.full((3, 40, 80), 1 / 255, np.float32)
    tile[2] = 0
    tile[:, :, 50:] = np.float32([6, 3, 1])[:, None, None] / 255
    tile[:, 18:21, 20:23] = 1  # a lamp
    brown = np.float32([47, 36, 30])[:, None, None] / 255 + 10 * tile
    made = with_neutral_black(tile, brown)
    np.testing.assert_allclose(np.ptp(made[:, :, :12], axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(made.mean(0), brown.mean(0), atol=1e-6)
    np.testing.assert_allclose(made[:, :, 60:], brown[:, :, 60:], atol=1e-6)


def test_even_ground_gets_no_rougher_and_detail_stays():
    random = np.random.default_rng(0)
    rows = np.linspace(0.6, 0.7, 120)[:, None]
    tile = rows + 0.7 / 255 * random.standard_normal((3, 120, 160))
    tile[:, :, 80:] += 0.1 * np.sign(np.sin(np.arange(80) * 0.7))
    made = 1.3 * tile - 0.2
    rough = made + 2.5 / 255 * random.standard_normal(made.shape)
    tile, made, rough = (np.float32(each) for each in (tile, made, rough))
    found = with_even_ground(tile, rough)
    sky, detail = (
        (slice(None), slice(None), slice(0, 60)),
        (slice(None), slice(None), slice(100, 160)),
    )
    assert np.std(found[sky] - made[sky]) < 0.3 * np.std(rough[sky] - made[sky])
    np.testing.assert_array_equal(found[detail], rough[detail])


@pytest.mark.parametrize(
    ("kinds", "asked"),
    [
        (["low-light"], ["grid", "highlights"]),
        (["haze"], ["grid"]),
        (["fading"], ["grid"]),
        ([], []),
        (["noise", "haze"], ["grid"]),
        (["noise"], []),
    ],
)
def test_each_kind_of_adapter_gets_its_own(tmp_path, monkeypatch, kinds, asked):
    base = read_model(write_tiny_model(tmp_path / "tiny.safetensors"))
    stored = write_random(tmp_path / "a.safetensors", base)
    header = stored.header.model_copy(update={"degradations": kinds})
    write_adapter(tmp_path / "a.safetensors", stored.tensors, header, "float32")
    done = []

    def grid(tile, restored, cell):
        assert cell == restorer.engine.size_multiple
        done.append("grid")
        return restored

    def highlights(tile, restored):
        done.append("highlights")
        return restored

    monkeypatch.setattr(changed_light, "without_grid", grid)
    monkeypatch.setattr(changed_light, "with_highlights", highlights)
    restorer = Restorer(base, adapters=[tmp_path / "a.safetensors"], engine="torch", device="cpu")
    restorer.restore(np.full((40, 56, 3), 0.3, np.float32))
    assert done == asked


class BorderEngine(DarkenEngine):
    """Darkens all, and lays arches along the borders of what it is given, as zeros around do."""

    def run(self, batch):
        made = batch / 2
        made[..., :6, ::8] += 0.1
        made[..., -6:, ::8] += 0.1
        made[..., ::8, :6] += 0.1
        made[..., ::8, -6:] += 0.1
        return made


@pytest.mark.parametrize("size", [(75, 97), (8, 8), (40, 7)])
def test_what_a_network_makes_of_borders_does_not_show(size):
    restorer = Restorer.from_engine(BorderEngine())
    restorer._tiles.finish = Finish(8, 16, bright=False)
    picture = np.random.default_rng(0).random((*size, 3)).astype(np.float32)
    np.testing.assert_allclose(restorer.restore(picture), picture / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("kinds", "fixed", "margin"),
    [
        (["haze"], False, 16),
        (["haze"], True, 0),
        (["fading"], False, 16),
        (["low-light"], False, 0),
        (["noise"], False, 0),
    ],
)
def test_veils_have_a_margin_where_tiles_may_grow_and_leave_detail(tmp_path, kinds, fixed, margin):
    base = read_model(write_tiny_model(tmp_path / "tiny.safetensors"))
    stored = write_random(tmp_path / "a.safetensors", base)
    header = stored.header.model_copy(update={"degradations": kinds})
    write_adapter(tmp_path / "a.safetensors", stored.tensors, header, "float32")
    restorer = Restorer(base, adapters=[tmp_path / "a.safetensors"], engine="torch", device="cpu")
    finish = finishing(restorer.adapters, 8, fixed=fixed)
    assert (0 if finish is None else finish.margin) == margin
    veiled = kinds in (["haze"], ["fading"])
    assert margin_of(restorer.adapters, 8) == (16 if veiled else 0)
    assert leaves_detail(restorer.adapters) == veiled
