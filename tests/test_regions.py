"""Pictures whose regions went through different degradations, and what is told of them."""

import pytest
import torch
from networks import generator

from urushi.degradations import Regions, create_degradation
from urushi.errors import DegradationError

CHAIN = {
    "name": "chain",
    "order": "single",
    "steps": [{"name": "gaussian_noise", "sigma_255": [40, 40]}, {"name": "gaussian_blur"}],
}
SHAPE = (32, 3, 64, 96)


def made(**options):
    regions = create_degradation("regions", degradation=CHAIN, **options)
    assert isinstance(regions, Regions)
    return regions, regions.sample(SHAPE, generator())


def test_without_a_share_all_is_as_by_the_first_draw():
    regions, parameters = made(share=0)
    images = torch.rand(SHAPE, generator=generator(1))
    first = {k.removeprefix("first."): v for k, v in parameters.items() if k.startswith("first.")}
    expected = regions.degradation.apply(images, first)
    assert torch.equal(regions.apply(images, parameters), expected)


@pytest.mark.parametrize("blobs", [0, 1])
def test_a_region_comes_from_the_second_draw(blobs):
    regions, parameters = made(share=1, blobs=blobs, area=[0.2, 0.4])
    images = torch.rand(SHAPE, generator=generator(1))
    result = regions.apply(images, parameters)
    parts = [
        regions.degradation.apply(
            images,
            {k.partition(".")[2]: v for k, v in parameters.items() if k.startswith(which)},
        )
        for which in ("first.", "second.")
    ]
    first, second = ((result - part).abs().amax(1) < 1e-6 for part in parts)
    shares = second.float().mean((1, 2))
    # Every pixel lies between the two; with soft edges few are one of them to the last bit.
    low, high = torch.minimum(*parts), torch.maximum(*parts)
    assert ((result >= low - 1e-6) & (result <= high + 1e-6)).all()
    nearer = (result - parts[1]).abs().sum(1) < (result - parts[0]).abs().sum(1)
    assert 0.1 < nearer.float().mean() < 0.5
    if not blobs:
        assert (first | second).float().mean() > 0.999
        assert 0.15 < shares.mean() < 0.45


@pytest.mark.parametrize("blobs", [0, 1])
def test_pictures_do_not_depend_on_their_batch(blobs):
    regions, parameters = made(share=0.5, blobs=blobs)
    images = torch.rand(SHAPE, generator=generator(1))
    whole = regions.apply(images, parameters)
    alone = regions.apply(images[5:6], {k: v[5:6] for k, v in parameters.items()})
    torch.testing.assert_close(alone, whole[5:6], atol=1e-5, rtol=0)


def test_cells_tell_what_was_done_to_them():
    regions, parameters = made(share=1, blobs=0, area=[0.3, 0.3])
    told = regions.applied(parameters, SHAPE[2:])
    assert told.shape == (32, 2, 8, 12)
    # Every cell went through one of the two steps, or on the edge of a region through parts.
    torch.testing.assert_close(told.sum(1), torch.ones(32, 8, 12))
    orders = [parameters[f"{which}.order"][:, 0] for which in ("first", "second")]
    differ = orders[0] != orders[1]
    mixed = (told.amax((2, 3)) > 0.99).all(1)
    assert torch.equal(mixed, differ)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"degradation": CHAIN, "share": 2}, "share=2 is not a share"),
        ({"degradation": CHAIN, "area": [0, 1]}, "area"),
        ({"degradation": "blur"}, "expected a mapping with a name"),
        ({}, "expected a mapping with a name"),
        ({"degradation": CHAIN, "shares": 1}, "did you mean 'share'"),
    ],
)
def test_wrong_settings_are_told(options, words):
    with pytest.raises(DegradationError, match=words):
        create_degradation("regions", **options)
