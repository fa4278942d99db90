"""Benchmarks: what is measured, how it is reported, and what happens when data is missing."""

import json
import math
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from urushi.errors import DataError, DegradationError
from urushi.evaluation.benchmark import BenchmarkResult, evaluate
from urushi.evaluation.catalog import (
    BENCHMARKS,
    DATA_VARIABLE,
    Benchmark,
    clean_benchmark,
    find_benchmark,
    paired_benchmark,
)
from urushi.evaluation.metrics import PROTOCOLS, mean_psnr, score
from urushi.evaluation.score_report import Gallery, Report, picture_table, read_report, score_table
from urushi.image import read_picture, write_picture
from urushi.settings import parse_settings

NOISE = {"name": "gaussian_noise", "sigma_255": [25, 25], "grey_share": 0.0}


class Brighter:
    """A restorer that adds a constant."""

    def __init__(self, by):
        self.by = np.float32(by)

    def restore(self, image):
        return image + self.by

    def describe(self):
        return {"engine": "constant", "by": float(self.by)}


class Cropping:
    def restore(self, image):
        return image[:-1]


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, pixels)


def grey_picture(value, height=24, width=32):
    picture = np.full((height, width, 3), value / 255, dtype=np.float32)
    picture[::2] += 10 / 255
    return picture


@pytest.fixture
def pairs(tmp_path):
    """Three pairs; the inputs are darker than the targets by 20, 30 and 40 of 255."""
    for i in range(3):
        write(tmp_path / "set" / "input" / f"{i}.png", grey_picture(80 - 10 * i))
        write(tmp_path / "set" / "target" / f"{i}.png", grey_picture(100))
    return tmp_path


@pytest.fixture
def clean(tmp_path):
    for i in range(4):
        write(tmp_path / "clean" / f"{i}.png", grey_picture(60 + 20 * i))
    return tmp_path / "clean"


def decibels(error):
    return 20 * math.log10(255 / error)


def test_scores_of_pairs(pairs):
    benchmark = Benchmark(name="mine", title="Mine", input="set/input", target="set/target")
    seen = []
    result = evaluate(
        Brighter(20 / 255),
        benchmark,
        root=pairs,
        on_picture=lambda done, total, row, pictures: seen.append((done, total, row.name)),
    )
    assert seen == [(1, 3, "0"), (2, 3, "1"), (3, 3, "2")]
    assert result.protocol == "rgb-8bit"
    assert [row.psnr_input for row in result.pictures] == pytest.approx(
        [decibels(20), decibels(30), decibels(40)]
    )
    assert [row.psnr for row in result.pictures] == pytest.approx(
        [math.inf, decibels(10), decibels(20)]
    )
    assert result.means.psnr == pytest.approx((100 + decibels(10) + decibels(20)) / 3)
    assert result.means.ssim is not None
    assert result.means.ssim > result.means.ssim_input
    assert result.worse == 0
    assert result.restorer == {"engine": "constant", "by": pytest.approx(20 / 255)}
    assert all(row.seconds is not None and row.seconds >= 0 for row in result.pictures)
    assert evaluate(Brighter(-20 / 255), benchmark, root=pairs).worse == 3


def test_inputs_as_they_are(pairs):
    result = evaluate(None, paired_benchmark(pairs / "set" / "input", pairs / "set" / "target"))
    assert result.benchmark == "set"
    assert result.means.psnr is None
    assert result.means.psnr_input == pytest.approx(
        mean_psnr([decibels(20), decibels(30), decibels(40)])
    )
    assert result.restorer == {}


def test_a_degraded_picture_depends_on_seed_and_name_alone(clean, tmp_path):
    benchmark = clean_benchmark(clean, NOISE)
    inputs = {sample.name: sample.load()[0] for sample in benchmark.samples()}
    assert not np.array_equal(inputs["0"] - inputs["0"].mean(), inputs["1"] - inputs["1"].mean())
    fewer = tmp_path / "fewer"
    write(fewer / "2.tif", read_picture(clean / "2.png"))
    (sample,) = clean_benchmark(fewer, NOISE).samples()
    np.testing.assert_array_equal(sample.load()[0], inputs["2"])
    other = clean_benchmark(clean, NOISE, seed=1).samples()[2].load()[0]
    assert np.abs(other - inputs["2"]).max() > 0.05
    spread = np.std(inputs["2"] - read_picture(clean / "2.png"))
    assert spread == pytest.approx(25 / 255, rel=0.1)


@pytest.mark.parametrize("rounded", [True, False])
def test_rounding_of_the_input(clean, rounded):
    picture, _ = clean_benchmark(clean, NOISE, input_8bit=rounded).samples()[0].load()
    levels = picture.astype(np.float64) * 255
    assert (np.abs(levels - np.rint(levels)).max() < 1e-4) == rounded


def test_clean_pictures_as_they_are(clean):
    result = evaluate(Brighter(5 / 255), clean_benchmark(clean, None))
    assert all(math.isinf(row.psnr_input) for row in result.pictures)
    assert result.means.psnr_input == 100.0
    assert result.means.psnr == pytest.approx(decibels(5))
    assert result.worse == 4


def test_limit_spreads_over_the_names(clean):
    result = evaluate(None, clean_benchmark(clean, NOISE), limit=2)
    assert [row.name for row in result.pictures] == ["0", "2"]
    assert result.total == 4
    assert len(evaluate(None, clean_benchmark(clean, NOISE), limit=9).pictures) == 4
    with pytest.raises(DataError, match="limit is 0"):
        evaluate(None, clean_benchmark(clean, NOISE), limit=0)


def test_protocol_and_border_are_used(pairs):
    benchmark = Benchmark(
        name="m", title="M", input="set/input", target="set/target", crop_border=2, protocol="rgb"
    )
    result = evaluate(None, benchmark, root=pairs, protocol="y-matlab")
    assert result.protocol == "y-matlab-crop2"
    part = (slice(2, -2), slice(2, -2))
    expected = score(
        read_picture(pairs / "set/input/0.png")[part],
        read_picture(pairs / "set/target/0.png")[part],
        PROTOCOLS["y-matlab"],
    )
    assert result.pictures[0].psnr_input == pytest.approx(expected.psnr)
    assert result.pictures[0].ssim_input == pytest.approx(expected.ssim)


def test_data_root(pairs, monkeypatch):
    benchmark = Benchmark(name="m", title="M", input="set/input", target="set/target", pictures=3)
    monkeypatch.delenv(DATA_VARIABLE, raising=False)
    with pytest.raises(DataError, match=DATA_VARIABLE):
        evaluate(None, benchmark)
    monkeypatch.setenv(DATA_VARIABLE, str(pairs))
    assert len(evaluate(None, benchmark).pictures) == 3
    with pytest.raises(DataError, match="nowhere does not exist"):
        evaluate(None, benchmark, root=pairs / "nowhere")
    with pytest.raises(DataError, match="needs the folder"):
        evaluate(None, benchmark, root=pairs / "set")


def test_incomplete_and_unmatched_data(pairs):
    benchmark = Benchmark(name="m", title="M", input="set/input", target="set/target")
    with pytest.raises(DataError, match="has 3 pictures here, expected 4"):
        benchmark.model_copy(update={"pictures": 4}).samples(pairs)
    (pairs / "set" / "target" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png has no target"):
        benchmark.samples(pairs)
    write(pairs / "set" / "target" / "1.png", grey_picture(3, width=30))
    with pytest.raises(DataError, match="input of 1 is 32x24 pixels and its reference 30x24"):
        evaluate(None, benchmark, root=pairs)
    (pairs / "none").mkdir()
    with pytest.raises(DataError, match="no pictures"):
        clean_benchmark(pairs / "none", None).samples()


def test_a_restorer_that_changes_the_size(clean):
    with pytest.raises(DataError, match="32x24 pixels was restored to 32x23"):
        evaluate(Cropping(), clean_benchmark(clean, None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protcol": "rgb"}, "did you mean 'protocol'"),
        ({"protocol": "rgb8bit"}, "did you mean 'rgb-8bit'"),
        ({"input": "a"}, "either input and target, or clean, or data"),
        ({"clean": None}, "either input and target, or clean, or data"),
        ({"clean": None, "input": "a", "target": "b", "degradation": NOISE}, "goes with clean"),
        ({"crop_border": -1}, "greater than or equal to 0"),
        ({"name": ""}, "at least 1 character"),
    ],
)
def test_wrong_descriptions(change, said):
    with pytest.raises(DataError, match=said):
        parse_settings(
            {"name": "x", "title": "X", "clean": "c", **change}, Benchmark, DataError, "x"
        )


def test_wrong_degradation(clean):
    with pytest.raises(DegradationError, match="gaussian_nois"):
        clean_benchmark(clean, {"name": "gaussian_nois"}).samples()
    with pytest.raises(DegradationError, match="sigma"):
        clean_benchmark(clean, {"name": "gaussian_noise", "sigma": 3}).samples()


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if BENCHMARKS[name].data is None])
def test_catalog(name, tmp_path):
    benchmark = find_benchmark(name)
    assert benchmark.pictures
    assert "not stated" not in (benchmark.source, benchmark.licence)
    if benchmark.clean is not None:
        folder = tmp_path / benchmark.clean
        for i in range(benchmark.pictures):
            (folder / f"{i}.png").parent.mkdir(parents=True, exist_ok=True)
            (folder / f"{i}.png").touch()
        assert len(benchmark.samples(tmp_path)) == benchmark.pictures


def test_benchmarks_by_name_and_by_file(tmp_path):
    with pytest.raises(DataError, match="did you mean 'cbsd68-noise25'"):
        find_benchmark("cbsd68-nois25")
    own = tmp_path / "own.yaml"
    own.write_text("name: own\ntitle: Own\nclean: somewhere\n")
    assert find_benchmark(str(own)).title == "Own"
    with pytest.raises(DataError, match="cannot be read"):
        find_benchmark(str(tmp_path / "none.yaml"))


def test_published_scores_stand_beside_what_can_be_compared(clean):
    published = [{"method": "Other", "psnr": 31.5, "source": "somewhere"}]
    benchmark = clean_benchmark(clean, {"name": "jpeg"})
    benchmark = parse_settings(
        {**benchmark.model_dump(), "published": published}, type(benchmark), DataError, "test"
    )
    (other,) = evaluate(None, benchmark).published
    assert (other.method, other.psnr) == ("Other", 31.5)
    assert not evaluate(None, benchmark, limit=1).published
    assert not evaluate(None, benchmark, protocol="y-matlab").published


def rendered(table):
    text = StringIO()
    Console(width=160, file=text).print(table)
    return text.getvalue()


def test_report(pairs, tmp_path):
    benchmark = paired_benchmark(pairs / "set" / "input", pairs / "set" / "target")
    restored = evaluate(Brighter(20 / 255), benchmark)
    as_is = evaluate(None, benchmark, limit=2)
    text = rendered(score_table([restored, as_is]))
    for word in (
        "set",
        "rgb-8bit",
        f"{restored.means.psnr_input:.2f}",
        f"{restored.means.psnr:.2f}",
        "2 of 3",
        "+",
    ):
        assert word in text
    text = rendered(picture_table(restored))
    for word in ("32x24", f"{decibels(30):.2f}", "inf", f"+{decibels(10) - decibels(30):.2f}"):
        assert word in text
    report = Report(results=(restored, as_is))
    document = json.loads(report.to_json(), parse_constant=pytest.fail)
    assert document["kind"] == "urushi-scores"
    assert document["results"][0]["means"]["psnr"] == pytest.approx(restored.means.psnr)
    assert document["results"][0]["pictures"][0]["psnr"] == "Infinity"
    path = tmp_path / "scores.json"
    path.write_text(report.to_json())
    assert read_report(path) == report
    assert BenchmarkResult.model_validate_json(restored.to_json()) == restored


def test_other_documents_are_refused(tmp_path):
    path = tmp_path / "scores.json"
    with pytest.raises(DataError, match="cannot be read"):
        read_report(path)
    for text in ("", "{}", '{"kind": "urushi-scores", "version": 2, "results": []}'):
        path.write_text(text)
        with pytest.raises(DataError, match="version 1"):
            read_report(path)


def test_gallery_shows_the_part_that_differs(tmp_path):
    target = grey_picture(100, 90, 120)
    damaged = target.copy()
    damaged[50:60, 80:90] = [1, 0, 0]
    write(tmp_path / "input" / "a.png", damaged)
    write(tmp_path / "target" / "a.png", target)
    write(tmp_path / "input" / "b.png", grey_picture(90))
    write(tmp_path / "target" / "b.png", grey_picture(100))
    benchmark = paired_benchmark(tmp_path / "input", tmp_path / "target")
    whole, single = Gallery(cell_size=(40, 30)), Gallery(rows=1, cell_size=(40, 30))
    with pytest.raises(DataError, match="no pictures"):
        whole.sheet()

    def both(*arguments):
        whole.add(*arguments)
        single.add(*arguments)

    evaluate(Brighter(0), benchmark, on_picture=both)
    assert (len(whole), len(single)) == (2, 1)
    sheet, less = whole.sheet("title"), single.sheet("title")
    assert sheet.shape[0] > less.shape[0]
    red = (less[..., 0] > 0.95) & (less[..., 1] < 0.05)
    assert red.sum() == 2 * 100  # the whole square, in the input and in the restored picture
    as_is = Gallery(rows=1, cell_size=(40, 30))
    evaluate(None, benchmark, on_picture=as_is.add)
    assert as_is.sheet().shape[1] < less.shape[1]
