"""Fading: each dye at its own pace, lifted blacks, yellow paper."""

import pytest
import torch
from networks import generator

from urushi.degradations import create_degradation
from urushi.errors import DegradationError

NOTHING = {"stain": [0, 0], "uneven": [0, 0], "flare": [0, 0]}


def faded(images, seed=0, **options):
    degradation = create_degradation("fading", **options)
    return degradation.apply(images, degradation.sample(tuple(images.shape), generator(seed)))


def test_what_has_not_faded_is_as_it_was():
    images = torch.rand(4, 3, 24, 32, generator=generator(1))
    images[0, :, :8] = 0
    assert (faded(images, loss=[0, 0], **NOTHING) - images).abs().max() < 2e-3


def test_contrast_falls_and_white_stays_white():
    images = torch.rand(16, 3, 24, 24, generator=generator(2))
    images[:, :, 0], images[:, :, 1] = 0, 1
    result = faded(images, loss=[0.5, 0.5], **NOTHING)
    assert (result[:, :, 1] - 1).abs().max() < 1e-3
    assert result[:, :, 0].mean() > 0.15
    assert (result.amax((1, 2, 3)) - result.amin((1, 2, 3))).max() < 0.95
    assert result.std((2, 3)).mean() < 0.9 * images.std((2, 3)).mean()


@pytest.mark.parametrize("dye", range(3))
def test_the_dye_that_goes_gives_its_colour_back(dye):
    degradation = create_degradation("fading", side=[0.1, 0.1], **NOTHING)
    parameters = degradation.sample((1, 3, 8, 8), generator(0))
    parameters["loss"] = torch.full((1, 3), 0.05).index_fill(1, torch.tensor([dye]), 0.6)
    grey = torch.full((1, 3, 8, 8), 0.3)
    gain = (degradation.apply(grey, parameters) - grey).mean((0, 2, 3))
    assert gain.argmax() == dye
    assert gain[dye] > 0.1 + gain[[k for k in range(3) if k != dye]].max()


def test_paper_yellows_and_surfaces_scatter():
    images = torch.ones(4, 3, 16, 16)
    images[:, :, :8] = 0
    yellow = faded(images, loss=[0, 0], stain=[0.2, 0.2], uneven=[0, 0], flare=[0, 0])
    red, green, blue = yellow[:, :, 8:].mean((0, 2, 3)).tolist()
    assert red > green > blue + 0.05
    scattered = faded(images, loss=[0, 0], stain=[0, 0], uneven=[0, 0], flare=[0.1, 0.1])
    assert scattered[:, :, :8].min() > 0.2


def test_some_places_fade_more():
    grey = torch.full((4, 3, 48, 48), 0.3)
    even = faded(grey, uneven=[0, 0])
    assert even.std((2, 3)).max() < 1e-5
    assert faded(grey, uneven=[0.6, 0.6]).std((2, 3)).max() > 0.01


@pytest.mark.parametrize("option", ["loss", "others", "side", "stain", "uneven", "flare"])
def test_what_is_out_of_range_is_told(option):
    with pytest.raises(DegradationError, match=option):
        create_degradation("fading", **{option: [0.2, 1.2]})
