"""Other rain over real pairs: what a pair tells is what made it, and what is no rain stays."""

import pytest
import torch

from urushi.data.pack import pack_pairs
from urushi.data.packed import PackedPairs
from urushi.degradations import Rerain, create_degradation, create_rerain
from urushi.degradations.rerain import rain_of
from urushi.errors import DegradationError
from urushi.image import write_picture
from urushi.training.batches import CleanBatches, PairBatches

SIDE = 96


@pytest.fixture(scope="module")
def pairs():
    """Three scenes with texture, and the rain over them."""
    generator = torch.Generator().manual_seed(0)
    clean = 0.1 + 0.5 * torch.rand(3, 3, SIDE, SIDE, generator=generator)
    streaks = create_degradation("rain_streaks", coverage=[0.8, 0.8], screen=0.0)
    dark = torch.zeros(3, 3, SIDE, SIDE)
    rain = 0.8 * streaks.apply(dark, streaks.sample((3, 3, SIDE, SIDE), generator))[:, :1]
    return clean, rain


def test_a_pair_tells_its_rain_also_where_some_channels_are_burnt_out(pairs):
    clean, rain = pairs
    rainy = (clean + rain).clamp(0, 1)
    found, burnt, off = rain_of(rainy, clean)
    whole = (rainy >= 250 / 255).all(1, keepdim=True)
    some = (rainy >= 1).any(1, keepdim=True) & ~whole
    assert some.float().mean() > 0.01
    torch.testing.assert_close(found[~whole], rain[~whole])
    assert (found <= rain + 1e-6).all()
    torch.testing.assert_close(burnt, whole.float().mean((1, 2, 3), keepdim=True))
    assert off.max() == 0


def test_rain_goes_over_other_scenes(pairs):
    clean, rain = pairs
    rainy = (clean + rain).clamp(0, 1)
    others = clean.flip(0)
    moved = Rerain(lighter=0.0, elsewhere=0.5)
    drawn = moved.sample(64, torch.Generator().manual_seed(0))
    assert 0.3 < drawn["elsewhere"].float().mean() < 0.7
    rows = {name: values[:3] for name, values in drawn.items()}
    rows["elsewhere"] = torch.tensor([True, False, True])
    found, scene = moved.apply(rainy, clean, rows, others)
    wanted = torch.stack([others[0], clean[1], others[2]])
    assert torch.equal(scene, wanted)
    known = (rainy < 250 / 255).any(1, keepdim=True).expand_as(rainy)
    torch.testing.assert_close(found[known], (wanted + rain).clamp(0, 1)[known])
    alone, own = moved.apply(rainy, clean, rows)
    assert torch.equal(own, clean)
    torch.testing.assert_close(alone, rainy)


def test_lighter_rain_has_fewer_and_weaker_streaks(pairs):
    clean, rain = pairs
    rainy = clean + 0.4 * rain
    lighter = Rerain(lighter=1.0, strength=(0.5, 0.5), thin=(0.1, 0.1), elsewhere=0.0)
    found, scene = lighter.apply(rainy, clean, lighter.sample(3, torch.Generator()))
    assert torch.equal(scene, clean)
    wanted = clean + 0.5 * (0.4 * rain - 0.1).clamp_min(0)
    torch.testing.assert_close(found, wanted.clamp(0, 1))
    drawn = Rerain(lighter=0.5).sample(64, torch.Generator().manual_seed(0))
    kept = drawn["strength"] == 1
    assert 0.3 < kept.float().mean() < 0.7
    assert (drawn["thin"][kept] == 0).all()
    assert (drawn["thin"][~kept] > 0).all()


def test_scenes_that_are_burnt_out_keep_their_rain(pairs):
    clean, rain = pairs
    bright = clean + 0.35
    rainy = (bright + rain + 0.3).clamp(0, 1)
    moved = Rerain(lighter=0.0, elsewhere=1.0)
    drawn = moved.sample(3, torch.Generator())
    _, scene = moved.apply(rainy, bright, drawn, torch.zeros_like(clean))
    assert torch.equal(scene, bright)


def test_pairs_of_another_kind_stay(pairs):
    clean, _ = pairs
    blue = torch.tensor([0.0, 0.0, 0.3]).view(1, 3, 1, 1)
    rerain = Rerain(lighter=1.0, elsewhere=1.0)
    for degraded in (0.5 * clean, clean + blue, clean.flip(3)):
        drawn = rerain.sample(3, torch.Generator())
        found, kept = rerain.apply(degraded, clean, drawn, torch.zeros_like(clean))
        assert torch.equal(found, degraded)
        assert torch.equal(kept, clean)


def test_patches_are_not_turned_and_the_same_for_any_number_of_processes(tmp_path):
    """Streaks that stand upright do so in all patches."""
    columns = torch.zeros(3, SIDE, SIDE)
    columns[:, :, ::7] = 0.4
    clean = 0.1 + 0.4 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    paths = []
    for name, image in (("rainy", clean + columns), ("clean", clean)):
        paths.append(tmp_path / f"{name}.png")
        write_picture(paths[-1], image.permute(1, 2, 0).numpy())
    pack_pairs([("0", *paths)], tmp_path / "pack.safetensors", min_side=SIDE)
    pack = PackedPairs(tmp_path / "pack.safetensors")
    shared = (pack, 64, 8, True, 7, torch.device("cpu"))

    def drawn(*share, **own):
        scenes = CleanBatches(*shared)
        return PairBatches(*shared, None, *share, rerain=Rerain(**own), scenes=scenes)(3)

    whole = drawn(lighter=0.0, elsewhere=0.0)
    rain = (whole.degraded - whole.clean).mean(1)
    assert (rain.std(1) < 0.01).all()  # along a column
    assert (rain.std(2) > 0.1).all()
    halves = [drawn(rank, 2, elsewhere=0.5) for rank in range(2)]
    wanted = drawn(elsewhere=0.5)
    torch.testing.assert_close(torch.cat([half.degraded for half in halves]), wanted.degraded)
    torch.testing.assert_close(torch.cat([half.clean for half in halves]), wanted.clean)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"strong": 1}, "rerain has no option 'strong'"),
        ({"strength": [2, 1]}, "strength"),
        ({"strength": [0, 1]}, "strength"),
        ({"thin": [0, 2]}, "thin"),
        ({"lighter": 1.5}, "lighter"),
        ({"elsewhere": -0.1}, "elsewhere"),
    ],
)
def test_settings_are_checked(options, told):
    with pytest.raises(DegradationError, match=told):
        create_rerain(**options)


def test_settings_come_as_lists():
    assert create_rerain(thin=[0.1, 0.2]) == Rerain(thin=(0.1, 0.2))
