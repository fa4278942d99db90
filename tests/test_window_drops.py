"""Drops and runnels on a window: what they show, where they are, and what stays."""

import pytest
import torch

from urushi.degradations import create_degradation
from urushi.errors import DegradationError

SIZE = (1, 3, 128, 160)
ROUND = {"bulge": [0, 0], "stretch": [1, 1], "runnels": 0, "flat": [0, 0], "edge": [0.5, 0.5]}


def made(level=0.5, seed=0, size=SIZE, **options):
    degradation = create_degradation("window_drops", **options)
    images = torch.full(size, level)
    drawn = degradation.sample(size, torch.Generator().manual_seed(seed))
    return (degradation.apply(images, drawn) - images)[0].mean(0)


def test_drops_are_dark_above_and_bright_below():
    found = made(radius=[12, 12], density=[0.5, 0.5], sky=[0.8, 0.8], **ROUND)
    assert found.min() < -0.15
    assert found.max() > 0.1
    # Of what differs, the brighter lies lower than the darker right above it.
    step = 4
    above, below = found[:-step], found[step:]
    both = (above.abs() > 0.05) & (below.abs() > 0.05)
    assert (below - above)[both].mean() > 0.03


def test_density_is_the_share_of_places_and_the_rest_stays_as_it_is():
    few, many = (
        (made(density=[d, d], radius=[6, 6], **ROUND).abs() > 0.01).float().mean().item()
        for d in (0.1, 0.8)
    )
    assert 0.005 < few < 0.15
    assert 3 * few < many < 0.8
    assert made(density=[0, 0], runnels=0).abs().max() == 0


def test_runnels_go_down_and_are_dark_on_one_side_and_bright_on_the_other():
    found = made(density=[0, 0], runnels=1, spacing=[30, 30], sky=[0.8, 0.8], size=(1, 3, 200, 200))
    there = found.abs() > 0.05
    assert 0.01 < there.float().mean() < 0.4
    assert found.min() < -0.05
    assert found.max() > 0.05
    # Neighbours down are alike, those across are not.
    down = (found[1:] - found[:-1]).abs().mean()
    assert (found[:, 1:] - found[:, :-1]).abs().mean() > 2 * down


def test_wind_draws_drops_out_along_one_direction():
    long = {"radius": [10, 10], "density": [0.6, 0.6], "bulge": [0, 0], "runnels": 0}
    degradation = create_degradation("window_drops", stretch=[3, 3], **long)
    images = torch.full(SIZE, 0.5)
    drawn = degradation.sample(SIZE, torch.Generator().manual_seed(0))
    runs = []
    for angle in (0.0, torch.pi / 2):
        drawn["angle"] = torch.tensor([angle])
        there = (degradation.apply(images, drawn) - images)[0].mean(0).abs() > 0.02
        edges_down = (there[1:] != there[:-1]).float().mean()
        edges_across = (there[:, 1:] != there[:, :-1]).float().mean()
        runs.append((edges_across / edges_down).item())
    assert runs[0] > 1.3 * runs[1]


@pytest.mark.parametrize("size", [(1, 1), (5, 64), (70, 33)])
def test_pictures_of_any_size_and_each_by_itself(size):
    degradation = create_degradation("window_drops", runnels=1)
    images = torch.rand(3, 3, *size, generator=torch.Generator().manual_seed(1))
    drawn = degradation.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    together = degradation.apply(images, drawn)
    assert together.shape == images.shape
    assert torch.isfinite(together).all()
    assert together.min() >= 0
    assert together.max() <= 1
    alone = degradation.apply(images[1:2], {name: part[1:2] for name, part in drawn.items()})
    assert torch.allclose(together[1:2], alone, atol=1e-6)


@pytest.mark.parametrize("options", [{"bulge": [0, 1]}, {"sky": [0.5, 2]}, {"runnels": -1}])
def test_wrong_options_are_told(options):
    with pytest.raises(DegradationError, match=next(iter(options))):
        create_degradation("window_drops", **options)
