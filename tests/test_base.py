"""The model that ships, as users run it: it mends, leaves no seams, and stays within its limits."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from urushi.evaluation.metrics import psnr
from urushi.files.model import read_model
from urushi.image import read_picture
from urushi.inference.engines.torch_engine import build_network
from urushi.inference.restorer import Restorer
from urushi.inference.zoo import ZOO, find_model, zoo_names
from urushi.training.recipe import Recipe

DEMO = ZOO.parents[1] / "demo" / "pictures"
PICTURE = DEMO / "reference" / "noise-display-p3.webp"


@pytest.fixture(scope="module")
def base():
    return read_model(find_model("base"))


@pytest.fixture(scope="module")
def clean():
    return read_picture(PICTURE)[:256, :384]


def spoiled(picture, sigma=25.0):
    noise = np.random.default_rng(0).standard_normal(picture.shape, np.float32)
    return np.clip(picture + sigma / 255 * noise, 0, 1)


@pytest.mark.parametrize("engine", ["openvino", "torch"])
def test_it_mends_and_engines_agree(base, clean, engine):
    restorer = Restorer(base, engine=engine, device="cpu")
    noisy = spoiled(clean)
    restored = restorer.restore(noisy)
    assert psnr(restored, clean) > psnr(noisy, clean) + 7
    other = Restorer(base, engine="openvino", device="cpu").restore(noisy)
    assert np.abs(restored - other).max() < 1e-5


def test_clean_pictures_stay_nearly_as_they_are(base, clean):
    assert psnr(Restorer(base).restore(clean), clean) > 33


def step_excess(restored, whole, columns):
    """How much larger the step across `columns` is in `restored` than in `whole`, on average."""
    steps = [np.abs(np.diff(p, axis=1)).mean((0, 2)) for p in (restored, whole)]
    return max(float(steps[0][c] - steps[1][c]) for c in columns)


def test_tiles_leave_no_seam(base, clean):
    noisy = spoiled(clean)
    whole = Restorer(base, tile=512).restore(noisy)
    tiled_by = Restorer(base, tile=128, overlap=32)
    tiled = tiled_by.restore(noisy)
    plan = tiled_by.plan(*clean.shape[:2])
    assert plan.count > 6
    # Not the same numbers, since channel attention averages over the tile; but as good ones,
    assert psnr(tiled, clean) > psnr(whole, clean) - 0.15
    # and where one tile goes over into the next, no line: steps of a 255th are invisible.
    edges = [c for start in plan.columns.starts[1:] for c in range(start, start + 32)]
    assert step_excess(tiled, whole, edges) < 1 / 255


def test_16_bit_pictures_are_mended_in_16_bits(base, clean):
    noisy = np.rint(spoiled(clean[:64, :64]) * 65535).astype(np.uint16)
    restored = Restorer(base).restore(noisy)
    assert restored.dtype == np.uint16
    assert len(np.unique(restored)) > 3000


@pytest.mark.parametrize("name", zoo_names())
def test_shipped_models_are_small_documented_and_reproducible(name):
    model = read_model(find_model(name))
    assert model.path.stat().st_size <= 25e6
    assert model.graph is not None
    assert model.header.licence
    assert model.header.data
    assert Recipe.model_validate(model.header.recipe).backbone.config == model.header.config
    card = model.path.with_suffix(".md").read_text(encoding="utf-8")
    for word in ("recipe", "data", "device", "licence", "limits", "cbsd68-noise25"):
        assert word in card.lower()
    network = build_network(model)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, 3, 256, 256))
    assert counter.get_total_flops() / 2 <= 12e9
