"""Film damage: marks by their opacity, kinds, colours, and overlays from a folder."""

import numpy as np
import pytest
import torch
from networks import generator
from PIL import Image

from urushi.degradations import create_degradation
from urushi.degradations.marks import MARKS
from urushi.errors import DegradationError


def damaged(images, seed=0, **options):
    degradation = create_degradation("film_damage", **options)
    return degradation.apply(images, degradation.sample(tuple(images.shape), generator(seed)))


@pytest.mark.parametrize("kind", MARKS)
def test_each_kind_touches_a_part_and_leaves_the_rest(kind):
    grey = torch.full((16, 3, 96, 96), 0.5)
    changed = (damaged(grey, kinds=[kind], several=0) - grey).abs().amax(1)
    touched = (changed > 0.02).float().mean((1, 2))
    assert 0 < touched.mean() < 0.4
    assert touched.max() < 0.9
    assert changed.max() > 0.2


@pytest.mark.parametrize(("share", "sign"), [(1, 1), (0, -1)])
def test_marks_are_light_or_dark(share, sign):
    grey = torch.full((8, 3, 64, 64), 0.5)
    change = sign * (damaged(grey, light_share=share, shadow_share=0) - grey)
    assert change.min() >= -1e-6
    assert change.max() > 0.2


def test_more_and_larger_marks_cover_more():
    grey = torch.full((12, 3, 96, 96), 0.5)

    def covered(**options):
        options = {"kinds": ["flecks", "lint", "lines"], **options}
        return float(((damaged(grey, **options) - grey).abs() > 0.05).float().mean())

    few, many = covered(amount=[0.3, 0.3]), covered(amount=[3, 3])
    assert many > 1.5 * few
    assert covered(size=[3, 3], kinds=["lint"]) > covered(size=[0.6, 0.6], kinds=["lint"])


def test_overlays_of_a_folder_are_laid_on(tmp_path):
    for name, alpha in (("a.png", 255), ("b.png", 0)):
        pixels = np.full((60, 80, 4), 255, np.uint8)
        pixels[..., 3] = alpha
        (tmp_path / "deep").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "deep" / name)
    grey = torch.full((32, 3, 16, 16), 0.5)
    options = {"overlays": str(tmp_path), "overlay_share": 1, "opacity": [1, 1], "light_share": 0}
    result = damaged(grey, **options)
    touched = (result - grey).abs().amax((1, 2, 3)) > 0.2
    assert 0.2 < touched.float().mean() < 0.8
    assert torch.equal(result, damaged(grey, **options))
    assert result[~touched].unique().tolist() == [0.5]


def test_overlays_that_are_none_are_told(tmp_path):
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(DegradationError, match="holds no pictures"):
        damaged(images, overlays=str(tmp_path))
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    with pytest.raises(DegradationError, match="no opacity"):
        damaged(images, overlays=str(tmp_path), overlay_share=1)


@pytest.mark.parametrize("kind", MARKS)
def test_the_mask_holds_all_that_is_changed(kind):
    images = torch.rand(3, 3, 64, 80, generator=generator(5))
    degradation = create_degradation("film_damage", kinds=[kind], shadow_share=1)
    parameters = degradation.sample(tuple(images.shape), generator(1))
    mask = degradation.mask(parameters, (64, 80), "cpu")
    change = (degradation.apply(images, parameters) - images).abs().amax(1, keepdim=True)
    assert mask.shape == (3, 1, 64, 80)
    assert change[~mask].max() <= 0.5 / 255 + 1e-6
    assert change[mask].mean() > 0.01


def test_a_picture_does_not_depend_on_its_batch():
    images = torch.rand(3, 3, 32, 40, generator=generator(5))
    degradation = create_degradation("film_damage", several=1)
    parameters = degradation.sample(tuple(images.shape), generator(2))
    together = degradation.apply(images, parameters)
    for row in range(3):
        own = {name: values[row : row + 1] for name, values in parameters.items()}
        alone = degradation.apply(images[row : row + 1], own)
        assert torch.allclose(alone, together[row : row + 1], atol=1e-4)


def test_grey_marks_leave_grey_pictures_grey():
    grey = torch.rand(8, 1, 48, 48, generator=generator(5)).expand(-1, 3, -1, -1)
    result = damaged(grey, neutral_share=1)
    assert (result - result[:, :1]).abs().max() < 1e-6
    coloured = damaged(grey, neutral_share=0)
    assert (coloured - coloured[:, :1]).abs().max() > 0.02


def test_light_marks_throw_a_shadow():
    grey = torch.full((8, 3, 64, 64), 0.5)
    options = {"light_share": 1, "kinds": ["lint", "cracks"]}
    assert damaged(grey, shadow_share=0, **options).min() >= 0.5 - 1e-6
    assert damaged(grey, shadow_share=1, **options).min() < 0.4


def test_layers_of_dye_are_worn_through_one_after_another():
    degradation = create_degradation("film_damage", neutral_share=0, layered_share=1)
    parameters = degradation.sample((4, 3, 48, 48), generator(3))
    black = torch.zeros(4, 3, 48, 48)
    parameters["shadow"] &= False  # shadows darken all colours alike
    cover = 1 - (degradation.apply(black + 1, parameters) - degradation.apply(black, parameters))
    red, green, blue = cover.unbind(1)
    assert (blue - green).min() > -1e-5
    assert (green - red).min() > -1e-5
    assert (blue - red).max() > 0.2


def test_marks_out_of_focus_have_soft_edges():
    grey = torch.full((6, 3, 64, 64), 0.5)

    def steepest(sigma):
        result = damaged(grey, softness=[sigma, sigma], kinds=["cracks"], opacity=[1, 1])
        return result.diff(dim=3).abs().amax((1, 2, 3)).mean()

    assert steepest(3) < 0.5 * steepest(0)


def test_lines_run_down_the_picture():
    grey = torch.full((8, 3, 64, 64), 0.5)
    result = damaged(grey, kinds=["lines"], several=0)
    down, right = (result.diff(dim=axis).abs().mean() for axis in (2, 3))
    assert right > 3 * down


@pytest.mark.parametrize(
    "options",
    [
        {"softness": [0, 9]},
        {"shadow_share": 1.5},
        {"layered_share": -0.1},
        {"neutral_share": "all"},
        {"kinds": ["scratches", "coffee"]},
    ],
)
def test_what_is_out_of_range_is_told(options):
    with pytest.raises(DegradationError, match=next(iter(options))):
        create_degradation("film_damage", **options)
