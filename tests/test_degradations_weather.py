"""The contract of the weather, light and hole degradations, and what each of them promises."""

from dataclasses import fields

import pytest
import torch

from urushi.degradations.base import Degradation
from urushi.degradations.fields import blur, fast_length, scattered, smooth_field
from urushi.degradations.haze import Haze
from urushi.degradations.holes import FILLS, KINDS, Holes
from urushi.degradations.light import LowLight
from urushi.degradations.rain import RainStreaks, RainVeil
from urushi.degradations.raindrops import Raindrops
from urushi.degradations.snow import Snow
from urushi.degradations.streaks import streak_field
from urushi.errors import DegradationError

ALL: list[Degradation] = [
    RainStreaks(),
    RainVeil(),
    Haze(),
    Snow(),
    Raindrops(),
    LowLight(),
    Holes(),
]
every = pytest.mark.parametrize("degradation", ALL, ids=lambda d: d.name)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(batch: int, height: int, width: int) -> torch.Tensor:
    coarse = torch.rand(batch, 3, 5, 5, generator=seeded(9))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def degraded(degradation: Degradation, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    batch, channels, height, width = images.shape
    parameters = degradation.sample((batch, channels, height, width), seeded(seed))
    return degradation.apply(images, parameters)


@every
@pytest.mark.parametrize("size", [(8, 8), (33, 47), (64, 64), (120, 17), (1, 9)])
def test_any_size_keeps_its_shape_and_range(degradation, size):
    images = pictures(3, *size)
    before = images.clone()
    worse = degraded(degradation, images)
    assert worse.shape == images.shape
    assert worse.dtype == images.dtype
    assert torch.isfinite(worse).all()
    assert worse.min() >= 0
    assert worse.max() <= 1
    assert torch.equal(images, before)


@every
def test_the_generator_decides_everything(degradation):
    images = pictures(4, 40, 48)
    first = degraded(degradation, images, seed=1)
    torch.manual_seed(77)
    assert torch.equal(first, degraded(degradation, images, seed=1))
    assert not torch.equal(first, degraded(degradation, images, seed=2))


@every
def test_a_picture_is_made_again_from_its_row_alone(degradation):
    images = pictures(6, 45, 64)
    parameters = degradation.sample((6, 3, 45, 64), seeded(3))
    assert all(len(values) == 6 for values in parameters.values())
    together = degradation.apply(images, parameters)
    for index in range(6):
        row = {name: values[index : index + 1] for name, values in parameters.items()}
        alone = degradation.apply(images[index : index + 1], row)
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=2e-6)


@every
def test_pictures_of_a_batch_differ_and_are_worse(degradation):
    images = pictures(1, 64, 64).expand(4, -1, -1, -1)
    worse = degraded(degradation, images)
    assert (worse - images).abs().mean((1, 2, 3)).min() > 1e-4
    assert len({float(picture.sum()) for picture in worse}) == 4


@every
def test_reversed_and_absurd_ranges_are_refused(degradation):
    ranges = [f.name for f in fields(degradation) if isinstance(f.default, tuple)]
    ranges = [name for name in ranges if name not in ("kinds", "fills")]
    assert ranges
    for name in ranges:
        low, high = getattr(degradation, name)
        for bad in ((high + 0.01, low), (-1e6, high), (low, 1e6), (float("nan"), high)):
            with pytest.raises(DegradationError, match=name):
                type(degradation)(**{name: bad})


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: RainStreaks(layers=0), "layers"),
        (lambda: RainStreaks(screen=1.5), "screen"),
        (lambda: LowLight(rounding=-0.1), "rounding"),
        (lambda: Holes(kinds=("moth",)), "kinds"),
        (lambda: Holes(kinds=()), "kinds"),
        (lambda: Holes(fills=("pink",)), "fills"),
    ],
)
def test_other_bad_fields_are_refused(make, word):
    with pytest.raises(DegradationError, match=word):
        make()


def test_a_streak_has_the_length_width_and_angle_asked_for():
    one = {
        "seeds": torch.tensor([5]),
        "angle": torch.tensor([[0.0]]),
        "length": torch.tensor([[40.0]]),
        "width": torch.tensor([[4.0]]),
        "coverage": torch.tensor([160.0 / 160**2]),
    }
    upright = streak_field(**one, size=(160, 160), margin=(0, 0), device="cpu")[0, 0]
    assert 0.25 <= upright.max() <= 1.0
    bright = upright > upright.max() / 2
    assert 31 <= bright.any(1).sum() <= 42
    assert 3 <= bright.any(0).sum() <= 5
    lying = streak_field(
        **(one | {"angle": torch.tensor([[90.0]])}), size=(160, 160), margin=(0, 0), device="cpu"
    )[0, 0]
    assert (lying > lying.max() / 2).any(0).sum() >= 31
    leaning = streak_field(
        **(one | {"angle": torch.tensor([[30.0]])}), size=(160, 160), margin=(0, 0), device="cpu"
    )[0, 0]
    rows, cols = (leaning > leaning.max() / 2).nonzero().float().unbind(1)
    covariance = torch.cov(torch.stack([rows, cols]))
    assert covariance[0, 1] > 0, "a positive angle leans to the right going down"
    lean = 0.5 * torch.rad2deg(
        torch.atan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])
    )
    assert abs(lean - 30) < 3


def test_rain_only_brightens_and_more_coverage_is_more_rain():
    images = pictures(4, 64, 64) * 0.5
    light = RainStreaks(coverage=(0.05, 0.05), intensity=(0.5, 0.5), screen=0.0)
    heavy = RainStreaks(coverage=(1.5, 1.5), intensity=(0.5, 0.5), screen=0.0)
    added = [degraded(rain, images) - images for rain in (light, heavy)]
    assert min(float(part.min()) for part in added) >= 0
    few, many = ((part > 30 / 255).float().mean() for part in added)
    assert few < 0.15
    assert many > 0.5


def test_screened_rain_spares_highlights():
    images = torch.full((1, 3, 48, 48), 0.8)
    screened, added = (
        degraded(RainStreaks(coverage=(1.0, 1.0), intensity=(0.3, 0.3), screen=share), images)
        for share in (1.0, 0.0)
    )
    assert screened.mean() < added.mean()


def test_haze_follows_the_scattering_equation():
    haze = Haze(beta=(1.0, 1.0), airlight=(0.9, 0.9), tint=(0.0, 0.0))
    images = pictures(2, 40, 56)
    parameters = haze.sample((2, 3, 40, 56), seeded())
    through = haze.transmission(images, parameters)
    assert through.shape == (2, 1, 40, 56)
    torch.testing.assert_close(
        haze.apply(images, parameters), images * through + 0.9 * (1 - through)
    )
    # The farthest thing has depth 1, the nearest the share that was drawn.
    torch.testing.assert_close(through.amin((1, 2, 3)), torch.full((2,), -1.0).exp())
    torch.testing.assert_close(through.amax((1, 2, 3)), (-parameters["near"]).exp())


def test_haze_steps_where_objects_end():
    images = torch.full((1, 3, 60, 60), 0.2)
    images[..., 30:] = 0.8
    haze = Haze(slope=(0.0, 0.0))
    through = haze.transmission(images, haze.sample((1, 3, 60, 60), seeded()))[0, 0]
    across = (through[:, 1:] - through[:, :-1]).abs().mean(0)
    assert across.argmax() == 29
    assert across[29] > 5 * across.median()


def test_a_raindrop_shows_the_scene_upside_down():
    ramp = torch.linspace(0, 1, 200)[:, None].expand(200, 200)
    images = ramp.expand(1, 3, -1, -1)
    drops = Raindrops(
        radius=(25.0, 25.0), density=(1.0, 1.0), softness=(0.05, 0.05), brightness=(0.0, 0.0)
    )
    worse = degraded(drops, images)[0, 0]
    falls = (worse[1:] < worse[:-1]).float().mean()
    assert falls > 0.3
    none = Raindrops(density=(0.0, 0.0))
    torch.testing.assert_close(degraded(none, images), images)


def test_low_light_dims_in_linear_light_and_its_noise_grows_with_light():
    images = torch.cat([torch.full((1, 3, 64, 64), 0.3), torch.full((1, 3, 64, 64), 0.9)])
    quiet = LowLight(
        exposure=(0.1, 0.1),
        gamma=(1.0, 1.0),
        tint=(0.0, 0.0),
        shot=(1e-9, 1e-9),
        read=(1e-9, 1e-9),
        rounding=0.0,
    )
    torch.testing.assert_close(
        degraded(quiet, images), images * 0.1 ** (1 / 2.2), rtol=0, atol=2e-3
    )
    shot = LowLight(exposure=(0.1, 0.1), tint=(0.0, 0.0), shot=(1e-4, 1e-4), read=(1e-9, 1e-9))
    linear = degraded(shot, images).pow(2.2)
    dim, bright = linear.flatten(1).std(1)
    assert bright > 1.5 * dim


def test_low_light_can_round_to_8_bits():
    worse = degraded(LowLight(rounding=1.0), pictures(2, 16, 16)) * 255
    torch.testing.assert_close(worse, worse.round(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 128), (8, 8)])
def test_holes_are_where_the_mask_says_and_nowhere_else(kind, size):
    images = pictures(3, *size) * 0.8 + 0.1
    holes = Holes(kinds=(kind,), fills=("white",))
    parameters = holes.sample((3, 3, *size), seeded(2))
    mask = holes.mask(parameters, size, torch.device("cpu"))
    worse = holes.apply(images, parameters)
    everywhere = mask.expand_as(images)
    assert (worse[everywhere] == 1).all()
    assert torch.equal(worse[~everywhere], images[~everywhere])
    if size[0] > 8:
        share = mask.float().mean((1, 2, 3))
        assert share.min() > 0.005
        assert share.max() < 0.5
        if kind in ("blobs", "box"):
            assert (share - parameters["share"]).abs().max() < 0.02


def test_a_hole_is_filled_with_0_1_or_the_mean_of_what_is_left():
    images = pictures(1, 32, 32)
    for fill in FILLS:
        holes = Holes(kinds=("box",), fills=(fill,))
        parameters = holes.sample((1, 3, 32, 32), seeded())
        mask = holes.mask(parameters, (32, 32), images.device)[0, 0]
        inside = holes.apply(images, parameters)[0][:, mask]
        left = images[0][:, ~mask].mean(1)
        wanted = {"black": left * 0, "white": left * 0 + 1, "mean": left}[fill]
        torch.testing.assert_close(inside, wanted[:, None].expand_as(inside))


def test_scattered_rows_do_not_depend_on_the_other_pictures():
    seeds = torch.tensor([4, 5])
    rows, there = scattered(seeds, torch.tensor([3, 9]), 2, "cpu")
    alone, all_there = scattered(seeds[:1], torch.tensor([3]), 2, "cpu")
    assert torch.equal(rows[0, :3], alone[0])
    assert there.sum(1).tolist() == [3, 9]
    assert all_there.all()


def test_smooth_field_is_smooth_and_within_bounds():
    field = smooth_field(torch.arange(8), (60, 80), 4, "cpu")
    assert field.abs().max() <= 1
    assert field.std() > 0.2
    assert field.diff(dim=3).abs().max() < 0.2


def test_blur_keeps_constants_at_the_borders():
    constant = torch.full((1, 1, 9, 5), 0.7)
    torch.testing.assert_close(blur(constant, 20), constant)


def test_fast_length_has_small_prime_factors_only():
    assert [fast_length(n) for n in (1, 7, 64, 97, 131)] == [2, 8, 64, 100, 144]
