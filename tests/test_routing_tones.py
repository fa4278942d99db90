"""What tones and detail of a view tell: haze, darkness, streaks and flakes."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from urushi.files.router_file import VisionFacts
from urushi.routing.tones import DETAIL, TONES, detail, tones
from urushi.routing.vision import VisionEncoder

SIDE = 96
LUMA, DARK = slice(0, 7), slice(7, 14)


@pytest.fixture(scope="module")
def scenes():
    """Four scenes with all tones from black to white, in soft patches."""
    made = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 12, 12, generator=made)
    return F.interpolate(coarse, (SIDE, SIDE), mode="bilinear")


def scattered(kind, angle=0):
    """Streaks or dots of about as much light, on grey."""
    draw = np.random.default_rng(1)
    plane = np.zeros((SIDE + 40, SIDE + 40), np.float32)
    for top, left in draw.integers(12, SIDE + 28, (60, 2)):
        if kind == "dots":
            plane[top - 2 : top + 2, left - 2 : left + 2] += 0.5
            continue
        for step in range(-8, 8):
            down, right = step * np.cos(np.radians(angle)), step * np.sin(np.radians(angle))
            plane[round(top + down), round(left + right)] += 0.5
    return torch.from_numpy(0.3 + plane[20:-20, 20:-20]).clamp(0, 1).expand(1, 3, SIDE, SIDE)


def test_there_are_as_many_numbers_as_are_told(scenes):
    assert tones(scenes).shape == (4, TONES)
    assert detail(scenes).shape == (4, DETAIL)


@pytest.mark.parametrize("through", [0.3, 0.6, 0.85])
def test_haze_lifts_the_dark_channel_by_what_it_adds(scenes, through):
    hazy = through * scenes + 0.9 * (1 - through)
    expected = through * tones(scenes)[:, DARK] + 0.9 * (1 - through)
    torch.testing.assert_close(tones(hazy)[:, DARK], expected)


def test_darkness_pulls_the_brightest_tones_down(scenes):
    dark = 0.2 * scenes
    torch.testing.assert_close(tones(dark)[:, LUMA], 0.2 * tones(scenes)[:, LUMA])


def test_noise_is_no_tone(scenes):
    noisy = scenes + 0.05 * torch.randn(scenes.shape, generator=torch.Generator().manual_seed(2))
    moved = (tones(noisy)[:, LUMA] - tones(scenes)[:, LUMA]).abs().amax()
    assert moved < 0.04


def test_streaks_are_like_themselves_along_them_only():
    # Eight ways at each of two distances: straight down is the fifth.
    upright, level = detail(scattered("streaks"))[0, :8], detail(scattered("streaks", 90))[0, :8]
    assert upright.argmax() == 4
    assert level.argmax() == 0
    assert upright[4] > 2 * upright[0]
    assert level[0] > 2 * level[4]


def test_dots_are_alike_in_all_ways():
    found = detail(scattered("dots"))[0, 8:16]
    streaks = detail(scattered("streaks"))[0, 8:16]
    assert found.amax() - found.amin() < (streaks.amax() - streaks.amin()) / 2


def test_what_is_laid_over_a_picture_is_brighter_than_it():
    over = detail(scattered("streaks"))[0, 32]
    # The same with dark lines.
    under = detail(1 - scattered("streaks"))[0, 32]
    assert over > 1
    torch.testing.assert_close(over, -under, rtol=1e-3, atol=1e-3)


def test_even_views_have_numbers_too():
    for level in (0.0, 0.5, 1.0):
        even = torch.full((1, 3, SIDE, SIDE), level)
        assert tones(even).isfinite().all()
        assert detail(even).isfinite().all()


def test_files_say_whether_they_are_read():
    plain, more = (VisionEncoder(VisionFacts(read=(1,), tones=own, width=4)) for own in (0, 1))
    assert more.numbers == plain.numbers + TONES + DETAIL
    views = torch.rand(2, 3, 64, 64)
    assert more.read(views).statistics.shape == (2, more.numbers)
    # Files of before do not state it, and their graphs name a hash of what they state.
    assert "tones" not in VisionFacts(read=(1,), width=4).model_dump(mode="json")
    stated = VisionFacts(read=(1,), tones=True, width=4)
    assert VisionFacts.model_validate(stated.model_dump(mode="json")) == stated
    assert not VisionFacts.model_validate({"kind": "vision", "read": [1], "width": 4}).tones
