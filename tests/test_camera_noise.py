"""Noise of cameras: how strong it is where, and how it hangs together."""

import pytest
import torch

from urushi.degradations.camera import CameraNoise

SIZE = (1, 3, 256, 256)


def noise(level, seed=0, **options):
    """In linear light, where the sensor made it: (3, H, W)."""
    degradation = CameraNoise(**options)
    display = torch.full(SIZE, float(level) ** (1 / 2.2))
    parameters = degradation.sample(SIZE, torch.Generator().manual_seed(seed))
    made = degradation.apply(display, parameters)
    return (made.pow(2.2) - level)[0], parameters


def neighbours(channel):
    """Correlation of pixels beside each other."""
    a, b = channel[:, :-1].flatten(), channel[:, 1:].flatten()
    return torch.corrcoef(torch.stack([a, b]))[0, 1].item()


@pytest.mark.parametrize("level", [0.2, 0.6])
def test_the_sensor_elements_of_green_have_the_stated_variance(level):
    found, parameters = noise(level, shot=(2e-3, 2e-3), smoothing=(0.0, 0.0))
    green = found[1]
    # Where rows and columns differ in parity the sensor has green itself.
    own = torch.cat([green[0::2, 1::2].flatten(), green[1::2, 0::2].flatten()])
    wanted = 2e-3 * level + parameters["read"][0]
    assert own.var().item() == pytest.approx(wanted.item(), rel=0.06)
    assert own.mean().abs() < 0.1 * own.std()


def test_red_is_amplified_and_coarser_than_green():
    found, _ = noise(0.4, shot=(2e-3, 2e-3), gain=(2.0, 2.0), smoothing=(0.0, 0.0))
    red, green = found[0], found[1]
    # A gain of 2 on half as much light: the variance is twice as large.
    ratio = red[0::2, 0::2].var() / green[0::2, 1::2].var()
    assert ratio.item() == pytest.approx(2.0, rel=0.12)
    assert 0.2 < neighbours(green) < neighbours(red)


def test_smoothing_correlates_further():
    plain, smooth = (
        noise(0.4, shot=(2e-3, 2e-3), smoothing=(share, share))[0][1] for share in (0.0, 0.33)
    )
    assert neighbours(smooth) > neighbours(plain) + 0.2


def test_shadows_of_the_displayed_picture_are_noisier():
    degradation = CameraNoise(shot=(1e-3, 1e-3))
    display = torch.full(SIZE, 0.1)
    display[..., 128:] = 0.6
    made = degradation.apply(display, degradation.sample(SIZE, torch.Generator().manual_seed(0)))
    error = made - display
    assert error[..., :120].std() > 1.3 * error[..., 136:].std()
