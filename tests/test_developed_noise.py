"""Noise of finished photographs: how far it hangs together, and where it is strong."""

import pytest
import torch

from urushi.degradations import create_degradation
from urushi.errors import DegradationError

SIZE = (1, 3, 160, 200)
LUMA = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
PLAIN = {
    "sigma_255": [10, 10],
    "sharpened_share": 0,
    "grey_share": 0,
    "tone": [0, 0],
    "patchy": [0, 0],
}


def noise(level=0.5, seed=0, **options):
    """(3, H, W) in units of 255."""
    degradation = create_degradation("developed_noise", **PLAIN | options)
    images = torch.full(SIZE, level)
    drawn = degradation.sample(SIZE, torch.Generator().manual_seed(seed))
    return (degradation.apply(images, drawn) - images)[0] * 255


def luma(found):
    return (found * LUMA).sum(0)


def correlation(channel, step):
    a, b = channel[:, :-step].flatten(), channel[:, step:].flatten()
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


@pytest.mark.parametrize("grain", [0.3, 0.7, 1.5])
def test_luma_has_the_stated_deviation_and_the_correlation_of_a_gaussian(grain):
    found = luma(noise(grain=[grain, grain], chroma=[0.5, 0.5]))
    assert found.std().item() == pytest.approx(10, rel=0.06)
    # White noise blurred by a Gaussian has a Gaussian of twice the variance as its correlation.
    wanted = torch.exp(torch.tensor(-1 / (4 * grain**2))).item()
    assert correlation(found, 1) == pytest.approx(wanted, abs=0.06)


def test_colour_is_coarser_than_luma_and_as_strong_as_stated():
    found = noise(grain=[0.5, 0.5], blotch=[3, 3], chroma=[0.8, 0.8])
    difference = (found[2] - luma(found)) / 1.772
    assert difference.std().item() == pytest.approx(8, rel=0.1)
    assert correlation(difference, 3) > correlation(luma(found), 3) + 0.2
    grey = noise(grey_share=1)
    assert torch.allclose(grey[0], grey[2], atol=1e-3)


def test_sharpening_gives_grains_rims_of_the_other_sign():
    grain = {"grain": [1, 1], "chroma": [0, 0]}
    soft = luma(noise(**grain))
    sharp = luma(noise(**grain, sharpened_share=1, sharpening=[1.5, 1.5]))
    assert correlation(sharp, 2) < correlation(soft, 2) - 0.1
    assert sharp.std() > 1.2 * soft.std()


def test_shadows_are_noisier_by_tone_and_patches_differ():
    dark, bright = (luma(noise(level, tone=[0.6, 0.6])).std() for level in (0.2, 0.8))
    assert dark > 1.8 * bright
    found = luma(noise(patchy=[1, 1])).square().unfold(0, 20, 20).unfold(1, 20, 20).mean((2, 3))
    even = luma(noise()).square().unfold(0, 20, 20).unfold(1, 20, 20).mean((2, 3))
    assert found.std() / found.mean() > 2 * even.std() / even.mean()


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (33, 17)])
def test_pictures_of_any_size_and_each_by_itself(size):
    degradation = create_degradation("developed_noise")
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    drawn = degradation.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    together = degradation.apply(images, drawn)
    assert together.shape == images.shape
    assert together.min() >= 0
    assert together.max() <= 1
    alone = degradation.apply(images[2:], {name: part[2:] for name, part in drawn.items()})
    assert torch.allclose(together[2:], alone, atol=1e-6)


@pytest.mark.parametrize("options", [{"grain": [0, 1]}, {"tone": [0, 2]}, {"grey_share": 2}])
def test_wrong_options_are_told(options):
    with pytest.raises(DegradationError, match=next(iter(options))):
        create_degradation("developed_noise", **options)
