"""Motion blur in the light of the sensor: lights that were clipped draw bright trails."""

import pytest
import torch

from urushi.degradations import create_degradation
from urushi.errors import DegradationError

LINE = {"length": [15, 15], "shake_share": 0}


def blurred(images, **options):
    degradation = create_degradation("motion_blur", **LINE | options)
    drawn = degradation.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    return degradation.apply(images, drawn)


def test_a_clipped_light_draws_a_white_trail():
    night = torch.full((1, 3, 64, 64), 0.05)
    night[..., 30:34, 30:34] = 1
    plain, linear, bright = (
        blurred(night, **options)
        for options in (
            {},
            {"linear_share": 1},
            {"linear_share": 1, "lights": [20, 20]},
        )
    )
    assert plain.amax() < linear.amax() < bright.amax()
    assert (bright > 0.95).float().mean() > 2 * (night > 0.95).float().mean()
    assert (plain > 0.95).sum() == 0


def test_what_is_even_stays_and_light_is_kept():
    even = torch.full((1, 3, 40, 40), 0.5)
    assert torch.allclose(blurred(even, linear_share=1, lights=[9, 9]), even, atol=1e-4)
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.8
    found = blurred(picture, linear_share=1)
    assert found.pow(2.2).mean().item() == pytest.approx(picture.pow(2.2).mean().item(), rel=0.02)


def test_wrong_options_are_told():
    with pytest.raises(DegradationError, match="lights"):
        create_degradation("motion_blur", lights=[0.5, 2])
    with pytest.raises(DegradationError, match="linear_share"):
        create_degradation("motion_blur", linear_share=3)
