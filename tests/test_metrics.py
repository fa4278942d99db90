"""Scores equal the numbers measured from the published implementations (tests/golden/metrics)."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from urushi.errors import DataError
from urushi.evaluation.metrics import (
    PROTOCOLS,
    mean_psnr,
    named_protocol,
    psnr,
    score,
    ssim,
)

GOLDEN = Path(__file__).parent / "golden" / "metrics.safetensors"
# Which protocol is which function of the published code, and how exact that code is: BasicSR's luma
# and its three-dimensional SSIM are computed in float32. (The latter is reproduced to 1.2e-7 by the
# same convolution in float32; in float64 it is up to 1.8e-5 away, on the smoothest pair.)
SOURCES = {
    ("adaptir", "psnr", "rgb"): ("rgb-8bit", 1e-9),
    ("adaptir", "psnr", "y"): ("y-matlab", 1e-6),
    ("adaptir", "ssim", "rgb"): ("rgb-8bit", 1e-9),
    ("adaptir", "ssim", "y"): ("y-matlab", 1e-6),
    ("nafnet", "psnr", "rgb"): ("rgb-8bit", 1e-9),
    ("nafnet", "psnr", "y"): ("y-basicsr", 1e-4),
    ("nafnet", "ssim2d", "rgb"): ("rgb-8bit", 1e-9),
    ("nafnet", "ssim2d", "y"): ("y-basicsr", 1e-6),
    ("nafnet", "ssim3d", "rgb"): ("rgb-basicsr", 2e-5),
    ("nafnet", "ssim3d", "y"): ("y-basicsr", 1e-6),
    ("restormer_basicsr", "psnr", "rgb"): ("rgb-basicsr", 1e-9),
    ("restormer_basicsr", "psnr", "y"): ("y-basicsr", 1e-4),
    ("restormer_basicsr", "ssim", "rgb"): ("rgb-basicsr", 2e-5),
    ("restormer_basicsr", "ssim", "y"): ("y-basicsr", 1e-6),
    ("restormer_eval", "psnr", "rgb"): ("rgb-8bit", 1e-9),
    ("restormer_eval", "ssim", "rgb"): ("rgb-8bit", 1e-9),
    ("swinir", "psnr", "rgb"): ("rgb-8bit", 1e-9),
    ("swinir", "psnr", "y"): ("y-matlab", 1e-4),
    ("swinir", "ssim", "rgb"): ("rgb-8bit", 1e-9),
    ("swinir", "ssim", "y"): ("y-matlab", 1e-6),
}


def random_picture(height=24, width=31, seed=0):
    return np.random.default_rng(seed).random((height, width, 3), dtype=np.float32)


def golden_columns():
    with safe_open(GOLDEN, "np") as file:
        return json.loads(file.metadata()["value_columns"])


@pytest.mark.parametrize("column", golden_columns())
def test_golden(column):
    *source, metric, crop, colour = column.split("_")
    name, tolerance = SOURCES["_".join(source), metric, colour]
    protocol = named_protocol(name, int(crop.removeprefix("crop")))
    measure = psnr if metric == "psnr" else ssim
    with safe_open(GOLDEN, "np") as file:
        values = file.get_tensor("values")[:, golden_columns().index(column)]
        for pair, expected in enumerate(values):
            test, reference = (
                file.get_tensor(f"pair{pair}.{side}_rgb").astype(np.float32) / 255
                for side in ("test", "ref")
            )
            assert measure(test, reference, protocol) == pytest.approx(expected, abs=tolerance)


def test_golden_covers_every_source():
    seen = set()
    for column in golden_columns():
        *source, metric, _, colour = column.split("_")
        seen.add(("_".join(source), metric, colour))
    assert seen == set(SOURCES)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_equal_pictures(name):
    picture = random_picture()
    result = score(picture, picture.copy(), PROTOCOLS[name])
    assert math.isinf(result.psnr)
    assert result.ssim == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_scores_fall_with_noise(name):
    picture = 0.25 + 0.5 * random_picture()
    scores = [
        score(picture + sigma * (random_picture(seed=1) - 0.5), picture, PROTOCOLS[name])
        for sigma in (0.1, 0.2, 0.4)
    ]
    assert scores[0].psnr > scores[1].psnr > scores[2].psnr
    assert scores[0].ssim > scores[1].ssim > scores[2].ssim


def test_known_psnr():
    reference = np.full((16, 16, 3), 0.5, dtype=np.float32)
    assert psnr(reference + np.float32(0.1), reference) == pytest.approx(20.0, abs=1e-5)


def test_rounding_and_clipping():
    reference = np.full((16, 16, 3), 100 / 255, dtype=np.float32)
    nearly = reference + np.float32(0.3 / 255)
    assert psnr(nearly, reference, PROTOCOLS["rgb"]) < 60
    assert math.isinf(psnr(nearly, reference, PROTOCOLS["rgb-8bit"]))
    white = np.ones((16, 16, 3), dtype=np.float32)
    assert math.isinf(psnr(white + 0.5, white))


def test_luma_rounding_is_what_differs():
    a, b = random_picture(), random_picture(seed=1)
    plain, rounded = PROTOCOLS["y-matlab"], PROTOCOLS["y-matlab-rounded"]
    assert replace(plain, name="", round_luma=True) == replace(rounded, name="")
    assert 0 < abs(psnr(a, b, plain) - psnr(a, b, rounded)) < 0.05


def test_grey_protocol_leaves_grey_pictures_alone():
    a, b = (np.repeat(random_picture(seed=s)[..., :1], 3, axis=2) for s in (0, 1))
    for measure in (psnr, ssim):
        in_grey = measure(a, b, PROTOCOLS["grey-8bit"])
        assert in_grey == pytest.approx(measure(a, b, PROTOCOLS["rgb-8bit"]), abs=1e-9)


def test_the_released_scorer_of_lora_ir():
    """Luma of pictures read as blue, green, red; SSIM in even windows with sample covariances."""
    rng = np.random.default_rng(3)
    a, b = (np.rint(rng.random((14, 15, 3)) * 255) for _ in range(2))
    weights = np.array([24.966, 128.553, 65.481]) / 255
    x, y = (picture @ weights + 16 for picture in (a, b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(14 - 10):
        for column in range(15 - 10):
            u = x[row : row + 11, column : column + 11].ravel()
            v = y[row : row + 11, column : column + 11].ravel()
            (vu, cov), (_, vv) = np.cov(u, v)
            values.append(
                (2 * u.mean() * v.mean() + c1) * (2 * cov + c2)
                / ((u.mean() ** 2 + v.mean() ** 2 + c1) * (vu + vv + c2))
            )  # fmt: skip
    pictures = (a / 255).astype(np.float32), (b / 255).astype(np.float32)
    found = score(*pictures, PROTOCOLS["y-lora-ir"])
    assert found.psnr == pytest.approx(10 * math.log10(255**2 / np.mean((x - y) ** 2)), abs=1e-4)
    assert found.ssim == pytest.approx(np.mean(values), abs=1e-6)
    assert found.psnr != pytest.approx(score(*pictures, PROTOCOLS["y-matlab"]).psnr, abs=1e-3)


def test_border():
    reference = random_picture(40, 40)
    damaged = reference.copy()
    damaged[:4] = 0
    assert math.isinf(psnr(damaged, reference, named_protocol("rgb", 4)))
    assert math.isfinite(psnr(damaged, reference, named_protocol("rgb", 3)))
    assert named_protocol("rgb", 4).name == "rgb-crop4"


def test_equal_pictures_do_not_hide_the_others_in_a_mean():
    assert mean_psnr([30.0, math.inf]) == 65.0


def test_bad_input():
    picture = random_picture()
    with pytest.raises(DataError, match=r"31x24.*30x24"):
        psnr(picture, picture[:, :30])
    with pytest.raises(DataError, match="11x11"):
        ssim(picture[:10], picture[:10])
    with pytest.raises(DataError, match="nothing is left"):
        psnr(picture, picture, named_protocol("rgb", 12))
    broken = picture.copy()
    broken[0, 0, 0] = np.nan
    with pytest.raises(DataError, match="not finite"):
        psnr(broken, picture)
    with pytest.raises(DataError, match="did you mean 'y-matlab'"):
        named_protocol("y-matlb")
    with pytest.raises(DataError, match="crop_border is -1"):
        named_protocol("rgb", -1)
