"""Metrics beside PSNR and SSIM: best for equal pictures, worse with damage, and never silent."""

import json
import sys
from itertools import pairwise

import numpy as np
import pytest
from commands import run

from urushi.errors import DataError, MissingExtraError
from urushi.evaluation.benchmark import clean_benchmark, evaluate, paired_benchmark
from urushi.evaluation.perceptual import METRICS, detail_kept, measure, named_metrics
from urushi.evaluation.piqe import piqe_of_luma
from urushi.evaluation.score_report import Report, metric_table, picture_table, read_report
from urushi.image import write_picture

SIDES = (72, 88)
NAMES = list(METRICS)


def scene(height=SIDES[0], width=SIDES[1], seed=0):
    """Edges, waves and texture, in colour."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = 0.5 + 0.2 * np.sin(x / 3) * np.cos(y / 5) + 0.2 * ((x // 12 + y // 12) % 2)
    texture = 0.1 * np.random.default_rng(seed).random((height, width))
    picture = np.stack([waves, 0.9 * waves + 0.05, 0.7 * waves + texture], axis=-1)
    return picture.clip(0, 1).astype(np.float32)


def waves():
    """Structure without edges, which PIQE would take for those of blocks."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]]
    texture = 0.1 * np.random.default_rng(0).random((*SIDES, 1))
    plane = 0.5 + 0.3 * np.sin(x / 5) * np.cos(y / 7)
    return np.repeat((plane[..., None] + texture).clip(0, 1), 3, axis=2).astype(np.float32)


def noisy(picture, by, seed=1):
    noise = np.random.default_rng(seed).standard_normal(picture.shape)
    return (picture + by * noise).clip(0, 1).astype(np.float32)


def smoothed(picture, times):
    for _ in range(times):
        for axis in (0, 1):
            before, after = np.roll(picture, 1, axis), np.roll(picture, -1, axis)
            picture = (before + 2 * picture + after) / 4
    return picture.astype(np.float32)


def value(name, picture, reference):
    return measure(named_metrics([name]), picture, reference)[name]


@pytest.mark.parametrize("name", NAMES)
def test_equal_is_best_and_more_damage_is_worse(name):
    metric, reference = METRICS[name], waves() if name == "piqe" else scene()
    equal = value(name, reference, reference)
    if metric.best is not None:
        assert equal == pytest.approx(metric.best, abs=1e-6)
    sign = 1 if metric.better == "higher" else -1
    amounts = (0.1, 0.2, 0.3) if name == "piqe" else (0.03, 0.1, 0.3)
    noises = [equal, *(value(name, noisy(reference, by), reference) for by in amounts)]
    assert all(sign * (a - b) > 0 for a, b in pairwise(noises))
    if name != "piqe":  # blind to smoothness
        blurs = [equal, *(value(name, smoothed(reference, n), reference) for n in (1, 4))]
        assert all(sign * (a - b) > 0 for a, b in pairwise(blurs))


RANGES = {"ssimulacra2": (-1e4, 100), "flip": (0, 1), "piqe": (0, 100), "detail": (0, 1)}


@pytest.mark.parametrize("name", NAMES)
def test_the_range_is_kept_by_the_worst_pictures(name):
    reference, (lowest, highest) = scene(), RANGES[name]
    black, white = np.zeros_like(reference), np.ones_like(reference)
    for picture in (black, white, 1 - reference, 10 * noisy(reference, 1.0) - 5):
        found = value(name, picture, reference)
        assert lowest <= found <= highest
        assert isinstance(found, float)


@pytest.mark.parametrize("name", NAMES)
def test_grey_wide_and_out_of_range_pictures(name):
    """Grey ones are three equal channels; 16 bits are steps that only some metrics see."""
    grey = np.repeat(scene()[..., :1], 3, axis=2)
    damaged = noisy(grey, 0.1)
    plain = value(name, damaged, grey)
    for other in (damaged.astype(np.float64), np.asfortranarray(damaged)):
        assert value(name, other, grey) == pytest.approx(plain, rel=1e-6)
    finer = (np.rint(grey * 65535) / 65535).astype(np.float32)
    assert value(name, finer, grey) == pytest.approx(value(name, grey, grey), abs=0.05)
    beyond = np.where(damaged >= 1, 7, np.where(damaged <= 0, -3, damaged)).astype(np.float32)
    assert value(name, beyond, grey) == plain


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_picture_and_one_below_it(name):
    least = METRICS[name].least
    picture = scene(least, least)
    assert np.isfinite(value(name, noisy(picture, 0.05), picture))
    if least > 1:
        small = scene(least, least - 1)
        words = rf"mine: the metric {name} needs at least {least}x{least} .*{least - 1}x{least}"
        with pytest.raises(DataError, match=words):
            measure(named_metrics([name]), small, small, "mine")


@pytest.mark.parametrize("name", NAMES)
def test_pictures_that_cannot_be_compared(name):
    picture = scene()
    if METRICS[name].best is not None:
        with pytest.raises(DataError, match=r"88x71 pixels cannot be compared.*88x72"):
            value(name, picture[1:], picture)
    broken = picture.copy()
    broken[3, 3, 1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        value(name, broken, picture)


def test_flip_of_black_and_white():
    """Hardly any pair of pictures differs by more, and none by more than 1."""
    black, white = np.zeros((40, 40, 3), np.float32), np.ones((40, 40, 3), np.float32)
    assert 0.95 < value("flip", white, black) <= 1


@pytest.mark.parametrize(
    ("noise", "expected"), [(0, 100.0), (20, 4.761905), (60, 64.011098), (150, 77.447240)]
)
def test_piqe_of_waves_under_noise(noise, expected):
    """As pypiqe 1.2 has it, where a column of a block's middle that it takes for the rest does not
    matter: sides of whole blocks, and luma up to 255."""
    assert piqe_of_luma(luma_of(noise)) == pytest.approx(expected, abs=1e-4)


def luma_of(noise):
    y, x = np.mgrid[:64, :80]
    drawn = (x * x * 31 + y * y * 17 + x * y * 7) % 97 / 97 - 0.5
    luma = np.rint(128 + 60 * np.sin(x / 5) * np.cos(y / 7) + noise * drawn).clip(0, 255)
    luma[0, 0] = 255
    return luma


def test_piqe_sees_blocks_and_no_more_than_whole_ones():
    y, x = np.mgrid[:64, :80]
    plain = np.rint(128 + 90 * np.sin(x * y / 40) * np.cos(y / 3)).clip(0, 255)
    means = plain.reshape(8, 8, 10, 8).mean((1, 3)).repeat(8, 0).repeat(8, 1)
    coded = np.rint(means + 0.3 * (plain - means))
    coded[0, 0] = 255
    assert piqe_of_luma(coded) == pytest.approx(55.999812, abs=1e-4)
    noisy_luma = luma_of(60)
    # What stands beyond the last whole block is smoothed in at the border alone.
    more = np.pad(noisy_luma, [(0, 15), (0, 15)], mode="edge")
    assert piqe_of_luma(more) == pytest.approx(piqe_of_luma(noisy_luma), abs=1e-9)


def test_piqe_has_no_left_and_no_right():
    y, x = np.mgrid[:64, :64]
    luma = luma_of(30)[:, 8:72] + 5 * np.sin(x * y / 9)
    plain = piqe_of_luma(luma)
    for turned in (luma[:, ::-1], luma[::-1]):
        assert piqe_of_luma(turned) == pytest.approx(plain, abs=1e-9)


def test_piqe_of_a_block_with_all_its_structure_in_the_middle():
    """The rest is even: no deviation to divide by."""
    luma = np.full((48, 48), 128.0)
    luma[16:32:2, 23:25] = 255
    assert 0 <= piqe_of_luma(luma) <= 100


def test_red_is_not_taken_for_blue():
    """PIQE sees luma: a red picture with texture is the grey one of the same luma."""
    texture = noisy(np.full((64, 64, 1), 0.5, np.float32), 0.2)
    red = np.concatenate([texture, 0 * texture, 0 * texture], axis=2)
    luma = np.rint(red.astype(np.float64) @ [0.299, 0.587, 0.114] * 255) / 255
    grey = np.repeat(luma[..., None], 3, axis=2).astype(np.float32)
    assert value("piqe", red, red) == value("piqe", grey, grey)


def test_detail_is_what_its_formula_says():
    reference = scene()
    mean = np.full_like(reference, reference.mean())
    assert detail_kept(mean, reference) == 0
    low = smoothed(reference, 40)
    faded = low + 0.6 * (reference - low)
    assert detail_kept(faded, reference) == pytest.approx(0.6, abs=0.03)
    sharpened = (low + 1.5 * (reference - low)).clip(0, 1)
    assert 0.95 < detail_kept(sharpened, reference) <= 1
    assert detail_kept(np.roll(reference, 1, axis=1), reference) < 0.9
    moved = (0.5 * reference + 0.25).astype(np.float32)
    brighter = (0.5 * reference + 0.4).astype(np.float32)
    assert detail_kept(brighter, moved) == pytest.approx(1, abs=1e-5)
    flat = np.full_like(reference, 0.5)
    assert detail_kept(noisy(flat, 0.1), flat) is None
    assert measure(named_metrics(["detail"]), flat, flat) == {}


def test_names():
    assert list(named_metrics(["detail", "detail"])) == ["detail"]
    with pytest.raises(DataError, match=r"no metric 'fllip' \(did you mean 'flip'"):
        named_metrics(["fllip"])


@pytest.mark.parametrize(
    ("name", "module", "package"),
    [
        ("ssimulacra2", "ssimulacra2", "ssimulacra2"),
        ("flip", "flip_evaluator", "flip-evaluator"),
    ],
)
def test_a_missing_package_is_told(monkeypatch, name, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    words = rf"{package}, which the metric {name} needs, is not .*pip install 'urushi\[metrics\]'"
    with pytest.raises(MissingExtraError, match=words):
        named_metrics(["detail", name])


class Softer:
    def restore(self, image):
        return smoothed(image, 1)


@pytest.fixture
def pairs(tmp_path):
    for index in range(2):
        target = scene(seed=index)
        for folder, picture in (("input", noisy(target, 0.1)), ("target", target)):
            (tmp_path / folder).mkdir(exist_ok=True)
            write_picture(tmp_path / folder / f"{index}.png", picture)
    return tmp_path


def test_a_benchmark_has_them_in_rows_means_and_tables(pairs, tmp_path):
    benchmark = paired_benchmark(pairs / "input", pairs / "target")
    result = evaluate(Softer(), benchmark, metrics=["detail", "flip"])
    for row in result.pictures:
        assert list(row.metrics_input) == list(row.metrics) == ["detail", "flip"]
        assert row.metrics["flip"] < row.metrics_input["flip"]
        assert row.metrics["detail"] < row.metrics_input["detail"]
    means = result.means
    assert means.metrics["flip"] == np.mean([row.metrics["flip"] for row in result.pictures])
    path = tmp_path / "scores.json"
    path.write_text(Report(results=(result,)).to_json())
    assert read_report(path).results == (result,)
    table = metric_table([result])
    assert table is not None
    assert [list(column.cells) for column in table.columns][1] == ["detail", "flip"]
    names = [column.header for column in picture_table(result).columns]
    assert names[-4:] == ["detail in", "detail out", "flip in", "flip out"]
    plain = evaluate(None, benchmark)
    assert metric_table([plain]) is None
    assert (plain.means.metrics, plain.means.metrics_input) == ({}, {})


def test_clean_pictures_stay_as_they_are(tmp_path):
    write_picture(tmp_path / "clean.png", scene())
    result = evaluate(Softer(), clean_benchmark(tmp_path, None), metrics=["detail"])
    assert result.means.metrics_input == {"detail": pytest.approx(1)}
    assert 0.2 < result.means.metrics["detail"] < 0.9


def test_the_command(pairs, monkeypatch):
    shared = ["evaluate", "--pairs", pairs, "--as-is", "--metric", "detail", "--metric", "flip"]
    document = json.loads(run(*shared, "--json", "-").stdout)
    row = document["results"][0]
    assert set(row["means"]["metrics_input"]) == {"detail", "flip"}
    assert row["means"]["metrics"] == {}
    shown = run(*shared, "--per-picture").stdout
    assert "Further metrics" in shown
    monkeypatch.setitem(sys.modules, "flip_evaluator", None)
    missing = run(*shared)
    assert missing.exit_code != 0
    assert "urushi[metrics]" in missing.stderr
