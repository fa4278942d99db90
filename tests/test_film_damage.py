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
    change = sign * (damaged(grey, light_share=share) - grey)
    assert change.min() >= -1e-6
    assert change.max() > 0.2


def test_more_and_larger_marks_cover_more():
    grey = torch.full((24, 3, 96, 96), 0.5)

    def covered(**options):
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
