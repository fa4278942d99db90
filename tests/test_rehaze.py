"""Other haze over real pairs: what a pair tells is what made it, and what is no haze stays."""

import pytest
import torch

from urushi.data.pack import pack_pairs
from urushi.data.packed import PackedPairs
from urushi.degradations import Rehaze, create_rehaze
from urushi.degradations.fields import smooth_field
from urushi.degradations.rehaze import airlight_of, transmission_of
from urushi.errors import DegradationError
from urushi.image import write_picture
from urushi.training.batches import CleanBatches, PairBatches, step_generator

SIDE = 96
AS_IT_WAS = {"power": (1.0, 1.0), "other": 0.0, "gamma": (1.0, 1.0), "reversed_share": 0.0}


@pytest.fixture(scope="module")
def scenes():
    """Clear scenes with texture, and smooth transmissions from 0.3 to 0.8."""
    seeds = torch.arange(3)
    coarse = smooth_field(seeds, (SIDE, SIDE), 12, torch.device("cpu"))
    fine = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    clean = (0.35 + 0.2 * coarse + 0.25 * fine).clamp(0, 1)
    through = 0.55 + 0.25 * smooth_field(seeds + 9, (SIDE, SIDE), 2, torch.device("cpu"))
    return clean, through


@pytest.mark.parametrize("airlight", [0.7, 1.0])
def test_a_pair_tells_its_haze(scenes, airlight):
    clean, through = scenes
    hazy = airlight + through * (clean - airlight)
    found = airlight_of(hazy, clean)
    torch.testing.assert_close(found.flatten(), torch.full((3,), airlight), atol=0.02, rtol=0)
    error = (transmission_of(hazy, clean, found) - through).abs()
    assert error.mean() < 0.02
    same = Rehaze(**AS_IT_WAS)
    again, scene = same.apply(hazy, clean, same.sample(3, torch.Generator()))
    torch.testing.assert_close(scene, clean, atol=1e-4, rtol=0)
    assert (again - hazy).abs().mean() < 0.005


def test_a_power_is_another_density(scenes):
    clean, through = scenes
    hazy = 1 + through * (clean - 1)
    dense = Rehaze(**{**AS_IT_WAS, "power": (2.0, 2.0)})
    found, _ = dense.apply(hazy, clean, dense.sample(3, torch.Generator()))
    assert (found - (1 + through**2 * (clean - 1))).abs().mean() < 0.01
    other = Rehaze(**{**AS_IT_WAS, "other": 1.0, "airlight": (0.6, 0.6)})
    found, _ = other.apply(hazy, clean, other.sample(3, torch.Generator()))
    assert (found - (0.6 + through * (clean - 0.6))).abs().mean() < 0.01


def test_the_scene_is_varied_with_its_haze(scenes):
    clean, through = scenes
    hazy = 0.9 + through * (clean - 0.9)
    varied = Rehaze(**{**AS_IT_WAS, "gamma": (1.5, 1.5), "reversed_share": 1.0})
    drawn = varied.sample(64, torch.Generator().manual_seed(0))
    gammas = drawn["gamma"]
    assert set(gammas.tolist()) == {1.0, 1.5}
    assert gammas.mean().item() == pytest.approx(1.25, abs=0.1)
    rows = {name: values[:3] for name, values in drawn.items()}
    found, scene = varied.apply(hazy, clean, rows)
    for index, gamma in enumerate(gammas[:3]):
        torch.testing.assert_close(scene[index], clean[index].flip(0) ** gamma)
    assert (found - (0.9 + through * (scene - 0.9))).abs().mean() < 0.01


def test_a_share_of_the_haze_goes_over_other_scenes(scenes):
    clean, through = scenes
    hazy = 0.9 + through * (clean - 0.9)
    others = clean.flip(0)  # of another pair each, so that haze and scene do not go together
    moved = Rehaze(**{**AS_IT_WAS, "elsewhere": 0.5})
    drawn = moved.sample(64, torch.Generator().manual_seed(0))
    assert 0.3 < drawn["elsewhere"].float().mean() < 0.7
    rows = {name: values[:3] for name, values in drawn.items()}
    rows["elsewhere"] = torch.tensor([True, False, True])
    found, scene = moved.apply(hazy, clean, rows, others)
    wanted = torch.stack([others[0], clean[1], others[2]])
    torch.testing.assert_close(scene, wanted, atol=1e-4, rtol=0)
    assert (found - (0.9 + through * (wanted - 0.9))).abs().mean() < 0.01
    alone, own = moved.apply(hazy, clean, rows)
    torch.testing.assert_close(own, clean, atol=1e-4, rtol=0)
    assert not torch.equal(alone, found)


def test_what_shows_no_haze_stays(scenes):
    clean, _ = scenes
    flat = torch.full_like(clean, 0.5)
    darker = clean * 0.2
    rehaze = Rehaze()
    for degraded, target in ((clean, clean), (flat, flat), (darker, clean)):
        found, kept = rehaze.apply(degraded, target, rehaze.sample(3, torch.Generator()))
        assert torch.equal(found, degraded)
        assert torch.equal(kept, target)


def test_pairs_are_varied_the_same_for_any_number_of_processes(scenes, tmp_path):
    clean, through = scenes
    rows = []
    for index, (scene, t) in enumerate(zip(clean, through, strict=True)):
        paths = []
        for name, image in (("hazy", 1 + t * (scene - 1)), ("clean", scene)):
            path = tmp_path / f"{name}{index}.png"
            write_picture(path, image.permute(1, 2, 0).numpy())
            paths.append(path)
        rows.append((str(index), *paths))
    pack_pairs(rows, tmp_path / "pack.safetensors", min_side=SIDE)
    pack = PackedPairs(tmp_path / "pack.safetensors")
    shared = (pack, 64, 4, True, 7, torch.device("cpu"))
    plain, varied = (PairBatches(*shared, rehaze=r) for r in (None, Rehaze()))
    whole = varied(3)
    assert not torch.equal(whole.degraded, plain(3).degraded)
    halves = [PairBatches(*shared, None, rank, 2, rehaze=Rehaze())(3) for rank in range(2)]
    torch.testing.assert_close(torch.cat([half.degraded for half in halves]), whole.degraded)
    torch.testing.assert_close(torch.cat([half.clean for half in halves]), whole.clean)
    again = varied.some(step_generator(7, 3), slice(0, 4))
    assert torch.equal(again.degraded, whole.degraded)

    def elsewhere(*share):
        return PairBatches(
            *shared, None, *share, rehaze=Rehaze(elsewhere=1.0), scenes=CleanBatches(*shared)
        )(3)

    moved = elsewhere()
    assert not torch.equal(moved.clean, whole.clean)
    halves = [elsewhere(rank, 2) for rank in range(2)]
    torch.testing.assert_close(torch.cat([half.degraded for half in halves]), moved.degraded)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"powers": [1, 2]}, "rehaze has no option 'powers'"),
        ({"power": [2, 1]}, "power"),
        ({"power": [0, 1]}, "power"),
        ({"airlight": [0, 2]}, "airlight"),
        ({"other": 1.5}, "other"),
        ({"other": "half"}, "other"),
        ({"elsewhere": -0.1}, "elsewhere"),
        ({"power": 2}, "power"),
        ({"gamma": [0.01, 1]}, "gamma"),
    ],
)
def test_settings_are_checked(options, told):
    with pytest.raises(DegradationError, match=told):
        create_rehaze(**options)


def test_settings_come_as_lists():
    assert create_rehaze(power=[0.5, 2]) == Rehaze(power=(0.5, 2))
