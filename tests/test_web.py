"""What the web makes of pictures: sizes, grids of blocks, and what is left out."""

import pytest
import torch

from urushi.degradations import create_degradation
from urushi.errors import DegradationError

PLAIN = {"resized_share": 0, "sharpened_share": 0, "twice_share": 0}


def applied(images, seed=0, **options):
    degradation = create_degradation("web", **options)
    parameters = degradation.sample(tuple(images.shape), torch.Generator().manual_seed(seed))
    return degradation.apply(images, parameters), parameters


def smooth(count, height=64, width=72):
    """Waves of a dozen pixels, coloured."""
    y, x = torch.arange(height)[:, None], torch.arange(width)
    waves = [0.5 + 0.4 * torch.sin(y / a) * torch.cos(x / b) for a, b in ((2, 3), (3, 4), (5, 2))]
    return torch.stack(waves)[None].repeat(count, 1, 1, 1)


@pytest.mark.parametrize("size", [(64, 72), (37, 41), (3, 1)])
def test_the_size_stays(size):
    images = smooth(12)[..., : size[0], : size[1]]
    result, _ = applied(images)
    assert result.shape == images.shape
    assert torch.isfinite(result).all()


def test_blocks_begin_where_the_offset_says():
    images = torch.rand(64, 3, 48, 48, generator=torch.Generator().manual_seed(5)) * 0.3 + 0.3
    result, parameters = applied(images, quality=[2, 2], **PLAIN)
    jumps = (result.mean(1)[..., 1:] - result.mean(1)[..., :-1]).abs().mean(1)
    time = parameters["compressed"][:, 1].long()
    left = parameters["offset"][torch.arange(64), time, 1]
    places = (torch.arange(1, 48) + left[:, None]) % 8 == 0
    at, beside = (jumps * places).sum(1) / places.sum(1), (jumps * ~places).sum(1) / 40
    assert (at > 1.3 * beside).float().mean() > 0.9
    assert left.unique().tolist() == list(range(8))


def test_smaller_in_between_loses_detail():
    fine = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    good = {"quality": [100, 100], "sharpened_share": 0, "resized_share": 1}
    little, much = (applied(fine, factor=[f, f], **good)[0].std() for f in (0.9, 0.5))
    assert much < 0.8 * little < 0.8 * fine.std()
    sharp, _ = applied(fine, factor=[0.5, 0.5], **good | {"sharpened_share": 1})
    assert sharp.std() > 1.05 * much


def test_lower_quality_and_a_second_time_are_worse():
    images = smooth(32)

    def error(**options):
        return float((applied(images, **PLAIN | options)[0] - images).square().mean())

    assert error(quality=[40, 40]) > 1.5 * error(quality=[90, 90])
    assert error(twice_share=1) > 1.1 * error()


def test_it_is_a_step_of_a_chain():
    chain = create_degradation("chain", steps=[{"name": "web"}, {"name": "gaussian_blur"}])
    images = smooth(4)
    parameters = chain.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    assert chain.apply(images, parameters).shape == images.shape


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"kernels": ["lanczos"]}, "bicubic, bilinear, area"),
        ({"factor": [0.5, 2.5]}, "factor"),
        ({"quality": [40.5, 90]}, "quality"),
    ],
)
def test_wrong_options_are_told(options, word):
    with pytest.raises(DegradationError, match=word):
        create_degradation("web", **options)


def test_what_was_larger_when_it_was_compressed_has_smaller_blocks():
    images = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(5)) * 0.3 + 0.3
    options = {"quality": [2, 2], "resized_share": 1, "sharpened_share": 0, "twice_share": 0}
    drawn, found = create_degradation("web", factor=[2, 2], **options), []
    parameters = drawn.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    parameters["compressed"] = torch.tensor([[True, False]]).expand(16, 2)
    parameters["offset"] = torch.zeros(16, 2, 2, dtype=torch.long)
    grey = drawn.apply(images, parameters).mean(1)
    jumps = (grey[..., 1:] - grey[..., :-1]).abs().mean((0, 1))
    for period in (4, 8):
        places = torch.arange(1, 64) % period == 0
        found.append(float(jumps[places].mean() / jumps[~places].mean()))
    assert found[0] > 1.3 * found[1]


def test_a_picture_does_not_depend_on_its_batch():
    images = torch.rand(6, 3, 40, 44, generator=torch.Generator().manual_seed(2))
    drawn = create_degradation("web", factor=[0.5, 2], resized_share=1, twice_share=1)
    parameters = drawn.sample(tuple(images.shape), torch.Generator().manual_seed(0))
    together = drawn.apply(images, parameters)
    alone = drawn.apply(images[4:5], {name: part[4:5] for name, part in parameters.items()})
    assert torch.allclose(together[4:5], alone, atol=1e-6)
