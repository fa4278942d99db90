"""Networks that enlarge: what makes small pictures, benchmarks, training."""

import numpy as np
import pytest
import torch
from commands import run
from networks import RepeatingEngine
from pictures import picture, repeated, write_pictures
from world import TINY_X2

from urushi.backbones import create_backbone
from urushi.data.pack import pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import create_degradation
from urushi.errors import DataError, DegradationError, FileFormatError, RecipeError
from urushi.evaluation.benchmark import clean_benchmark, evaluate, paired_benchmark
from urushi.evaluation.catalog import BENCHMARKS
from urushi.image import read_picture, write_picture
from urushi.image.enlarge import enlarge
from urushi.inference.restorer import Restorer
from urushi.training.batches import DegradedBatches, PairBatches
from urushi.training.build import build_stages, check_scale
from urushi.training.recipe import LossSettings, Recipe

CPU = torch.device("cpu")


# --- degradations and benchmarks ---


@pytest.mark.parametrize("name", ["downsample", "downsample_noise", "downsample_jpeg"])
def test_low_resolution_divides_by_its_scale(name):
    options = {"scales": (4,)} if name == "downsample" else {}
    degradation = create_degradation(name, **options)
    assert degradation.scale == 4
    images = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    draws = [degradation.sample((3, 3, 32, 48), torch.Generator().manual_seed(5)) for _ in "ab"]
    first, again = (degradation.apply(images, parameters) for parameters in draws)
    assert first.shape == (3, 3, 8, 12)
    assert torch.equal(first, again)
    # A row of numbers makes its picture alone.
    row = {key: value[1:2] for key, value in draws[0].items()}
    assert torch.equal(degradation.apply(images[1:2], row), first[1:2])


def test_hybrids_are_low_resolution_and_then_the_other():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = create_degradation("downsample", scales=[4])
    small = plain.apply(images, plain.sample((2, 3, 64, 64), torch.Generator()))
    for name, second, options in (
        ("downsample_noise", "gaussian_noise", {"sigma_255": [30, 30], "grey_share": 0.0}),
        ("downsample_jpeg", "jpeg", {"quality": [30, 30], "subsampled_share": 1.0}),
    ):
        hybrid, other = create_degradation(name), create_degradation(second, **options)
        worse = hybrid.apply(
            images, hybrid.sample((2, 3, 64, 64), torch.Generator().manual_seed(1))
        )
        drawn = other.sample((2, 3, 16, 16), torch.Generator().manual_seed(1))
        expected = other.apply((small * 255).round() / 255, drawn)
        torch.testing.assert_close(worse, expected)


@pytest.mark.parametrize("options", [{"factor": 1}, {"factor": 17}, {"sigma_255": [5, 1]}])
def test_hybrids_check_their_values(options):
    with pytest.raises(DegradationError):
        create_degradation("downsample_noise", **options)


def test_scores_of_what_is_enlarged(tmp_path):
    write_pictures(tmp_path / "clean", 2, height=61, width=83)
    benchmark = clean_benchmark(tmp_path / "clean", {"name": "downsample", "scales": [2]})
    assert benchmark.crop_border == 2
    seen = []
    restorer = Restorer.from_engine(RepeatingEngine(2))
    result = evaluate(restorer, benchmark, on_picture=lambda *event: seen.append(event[3]))
    (first, second) = result.pictures
    assert (first.width, first.height) == (82, 60)
    assert result.protocol == "rgb-8bit-crop2"
    # Repeating pixels is worse than interpolating them.
    assert first.psnr < first.psnr_input
    assert seen[0].input.shape == (30, 41, 3)
    assert seen[0].interpolated.shape == seen[0].restored.shape == (60, 82, 3)
    assert evaluate(None, benchmark).pictures[1].psnr_input == second.psnr_input
    with pytest.raises(DataError, match="only networks that enlarge by 2 can be measured"):
        evaluate(Restorer.from_engine(RepeatingEngine(1)), benchmark)
    plain = clean_benchmark(tmp_path / "clean", None)
    with pytest.raises(DataError, match="only networks that keep the size can be measured"):
        evaluate(restorer, plain)
    with pytest.raises(DegradationError, match="of several sizes"):
        clean_benchmark(tmp_path / "clean", {"name": "downsample", "scales": [2, 3]})


def test_low_resolution_is_in_the_catalog():
    for data in ("set5", "set14", "cbsd68", "kodak24"):
        for name, scale in (("x2", 2), ("x3", 3), ("x4", 4), ("x4-noise30", 4), ("x4-jpeg30", 4)):
            benchmark = BENCHMARKS[f"{data}-{name}"]
            assert (benchmark.protocol, benchmark.crop_border) == ("y-matlab", scale)
            options = dict(benchmark.degradation or {})
            assert create_degradation(options.pop("name"), **options).scale == scale


# --- training ---


def write_scaled_pairs(folder, scale, count=4, height=48, width=40):
    for index in range(count):
        clean = picture(scale * height, scale * width, shift=index)
        small = clean.reshape(height, scale, width, scale, 3).mean((1, 3))
        for side, pixels in (("input", small), ("target", clean)):
            path = folder / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, pixels.astype(np.float32))
    return folder


def packed_pairs(folder, target):
    rows = [
        (path.stem, path, folder / "target" / path.name)
        for path in sorted((folder / "input").iterdir())
    ]
    return PackedPairs(pack_pairs(rows, target).path)


@pytest.mark.parametrize("resident", [False, True])
def test_patches_of_pairs_lie_on_each_other(tmp_path, resident):
    pack = packed_pairs(write_scaled_pairs(tmp_path / "pairs", 3), tmp_path / "p.safetensors")
    assert pack.scale == 3
    assert pack.sizes.tolist() == [[48, 40]] * 4
    pixels = pack.to_tensor() if resident else None
    batch = PairBatches(pack, 16, 6, True, 0, CPU, pixels)(2)
    degraded, clean = batch.degraded, batch.clean
    assert degraded.shape == (6, 3, 16, 16)
    assert clean.shape == (6, 3, 48, 48)
    means = clean.unflatten(3, (16, 3)).unflatten(2, (16, 3)).mean((3, 5))
    torch.testing.assert_close(means, degraded, atol=0.006, rtol=0)


def test_pairs_of_several_scales_are_told(tmp_path):
    for name, scale in (("a", 2), ("b", 1)):
        write_scaled_pairs(tmp_path / name, scale, count=1)
    rows = [(n, tmp_path / n / "input" / "0.png", tmp_path / n / "target" / "0.png") for n in "ab"]
    pack = PackedPairs(pack_pairs(rows, tmp_path / "p.safetensors").path)
    with pytest.raises(FileFormatError, match="'b' is not 2 times as large as its input"):
        _ = pack.scale


def test_clean_patches_are_as_much_larger(tmp_path):
    paths = write_pictures(tmp_path / "clean", 3, height=70, width=90)
    pack = PackedPictures(pack_pictures(paths, tmp_path / "p.safetensors").path)
    degradation = create_degradation("downsample_jpeg", factor=2)
    batches = DegradedBatches(pack, 16, 4, True, 0, CPU, degradation=degradation)
    batch = batches(0)
    assert (batches.scale, batch.degraded.shape[2:], batch.clean.shape[2:]) == (
        2,
        (16, 16),
        (32, 32),
    )
    with pytest.raises(DataError, match="is 72 pixels on its shorter side"):
        DegradedBatches(pack, 36, 4, True, 0, CPU, degradation=degradation)


def test_a_network_of_another_scale_is_not_trained(tmp_path):
    paths = write_pictures(tmp_path / "clean", 2, height=70, width=90)
    pack = PackedPictures(pack_pictures(paths, tmp_path / "p.safetensors").path)
    recipe = Recipe.model_validate(
        {
            "name": "a",
            "backbone": {"name": "swinir", "config": {**TINY_X2, "upscale": 3}},
            "data": {"pictures": ["."], "patch": 16, "batch": 2},
            "degradation": {"name": "downsample", "scales": [2]},
            "schedule": {"steps": 1},
        }
    )
    network = create_backbone("swinir", {**TINY_X2, "upscale": 3})
    with pytest.raises(RecipeError, match="3 times as long, and the clean pictures are 2 times"):
        check_scale(network, build_stages(recipe, pack, CPU), recipe.loss)
    network = create_backbone("swinir", {**TINY_X2, "upscale": 2})
    check_scale(network, build_stages(recipe, pack, CPU), recipe.loss)
    with pytest.raises(RecipeError, match=r"loss\.damaged is 1, .* leave it out"):
        check_scale(network, build_stages(recipe, pack, CPU), LossSettings(damaged=1))


@pytest.mark.parametrize("kind", ["pairs", "clean"])
def test_adapting_a_network_that_enlarges(tmp_path, x2_model, kind):
    if kind == "pairs":
        words = ["--pairs", write_scaled_pairs(tmp_path / "mine", 2)]
    else:
        write_pictures(tmp_path / "mine", 4, height=128, width=140)
        words = ["--clean", tmp_path / "mine", "--degrade", "downsample", "--set", "scales=[2]"]
    target = tmp_path / "mine.safetensors"
    tail = ["--steps", 3, "--method", "lora", "--device", "cpu", "-o", target]
    done = run("adapt", *words, "--model", x2_model, *tail)
    assert "the base alone" in done.stdout, done.stderr
    # Three steps need not make it better; but nothing else may stand in the way.
    assert done.exit_code == 0 or "no adapter was better" in done.stderr


def test_pairs_that_do_not_fit_the_network_are_told(tmp_path, x2_model):
    write_scaled_pairs(tmp_path / "mine", 3)
    words = ["adapt", "--pairs", tmp_path / "mine", "--model", x2_model, "--steps", 1]
    done = run(*words, "--device", "cpu", "-o", tmp_path / "a.safetensors")
    assert done.exit_code == 1
    assert "enlarges 2 times, and the targets need a network that enlarges 3 times" in done.stderr
    assert paired_benchmark(tmp_path / "mine/input", tmp_path / "mine/target").samples()


def test_shifted_pairs_of_two_sizes_are_put_right(tmp_path):
    from urushi.training.examples import pair_examples

    rng = np.random.default_rng(0)
    for index in range(3):
        coarse = rng.random((24, 28, 3), dtype=np.float32)
        small = enlarge(coarse, 4).clip(0, 1)
        clean = repeated(small, 2)
        for side, pixels in (("input", small[3:, 2:]), ("target", clean[: -2 * 3, : -2 * 2])):
            path = tmp_path / "pairs" / side / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_picture(path, pixels)
    found = pair_examples(tmp_path / "pairs", tmp_path / "run", align=True)
    assert isinstance(found.pack, PackedPairs)
    assert found.scale == found.pack.scale == 2
    for index in range(len(found.pack)):
        degraded, clean = found.pack.pair(index)
        np.testing.assert_array_equal(clean[::2, ::2], degraded)
    sample = found.validation.samples()[0]
    assert read_picture(sample.target).shape[0] == 2 * read_picture(sample.input).shape[0]
