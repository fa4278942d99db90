"""Networks that enlarge, from tiles and files to benchmarks and training."""

import numpy as np
import pytest
import pyvips
import torch
from cli_support import picture, run, write_pictures
from method_support import GOLDEN
from safetensors.numpy import load_file

from urushi.backbones import create_backbone
from urushi.data.pack import pack_pairs, pack_pictures
from urushi.data.packed import PackedPairs, PackedPictures
from urushi.degradations import create_degradation
from urushi.errors import DataError, DegradationError, EngineError, FileFormatError, RecipeError
from urushi.evaluation.benchmark import clean_benchmark, evaluate, paired_benchmark
from urushi.evaluation.catalog import BENCHMARKS
from urushi.files.model import ModelHeader, write_model
from urushi.image import PictureWriter, inspect_picture, read_picture, write_picture
from urushi.image.enlarge import enlarge, enlarge_rows
from urushi.inference.compare import before_after
from urushi.inference.engines.base import working_memory
from urushi.inference.picture_files import restore_picture
from urushi.inference.restorer import Restorer
from urushi.inference.tiling import plan_tiles, stream_tiles
from urushi.training.batches import DegradedBatches, PairBatches
from urushi.training.build import build_stages, check_scale
from urushi.training.recipe import Recipe

CPU = torch.device("cpu")
TINY = {
    "depths": [2], "embed_dim": 8, "num_heads": [2], "window_size": 4, "upscale": 2,
    "upsampler": "pixelshuffledirect",
}  # fmt: skip


class RepeatingEngine:
    """Repeats every pixel; local, so tiles must not be seen in its result."""

    name, device, precision = "repeating", "cpu", "float32"
    bytes_per_pixel = 1000.0

    def __init__(self, scale=2, size_multiple=1, fixed_patch=None, most_pixels=None):
        self.scale, self.size_multiple, self.fixed_patch = scale, size_multiple, fixed_patch
        self.most_pixels = most_pixels
        self.shapes = []

    def run(self, batch):
        from urushi.errors import OutOfMemoryError

        if self.most_pixels is not None and batch[0, 0].size > self.most_pixels:
            raise OutOfMemoryError("too large")
        self.shapes.append(batch.shape[2:])
        return batch.repeat(self.scale, axis=2).repeat(self.scale, axis=3)

    def in_float32(self):
        return self


def repeated(image, scale):
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def reader(rows):
    position = 0

    def read(count):
        nonlocal position
        position += count
        return rows[position - count : position]

    return read


@pytest.fixture(scope="module")
def x2_model(tmp_path_factory):
    """A tiny SwinIR that enlarges: its result is near plain interpolation."""
    torch.manual_seed(0)
    network = create_backbone("swinir", TINY)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = tmp_path_factory.mktemp("x2") / "x2.safetensors"
    write_model(path, tensors, ModelHeader(backbone="swinir", config=TINY))
    return path


# --- enlarging without a network ---


def test_interpolation_equals_matlabs():
    golden = load_file(GOLDEN / "imresize.safetensors")
    image = golden["img0.input"].astype(np.float32)
    np.testing.assert_allclose(enlarge(image, 2), golden["img0.up2"], atol=1e-6)
    assert enlarge(image, 1) is image


@pytest.mark.parametrize("step", [1, 2, 7, 100])
@pytest.mark.parametrize("shape", [(23, 17, 1), (1, 5, 3), (2, 1, 2)])
def test_interpolation_row_by_row_is_the_same(step, shape):
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    read = reader(image)
    pieces = list(enlarge_rows(lambda count: read(min(count, step)), 3))
    np.testing.assert_array_equal(np.concatenate(pieces), enlarge(image, 3))


# --- tiles and the restorer ---


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (50, 90), (97, 61)])
def test_tiles_of_an_enlarged_picture_leave_no_trace(scale, size):
    image = np.random.default_rng(1).random((*size, 3), dtype=np.float32)
    plan = plan_tiles(*size, tile=32, overlap=8, multiple=4)

    def run_tile(tile):
        return tile.repeat(scale, axis=1).repeat(scale, axis=2)

    rows = np.concatenate(list(stream_tiles(reader(image), plan, run_tile, scale=scale)))
    np.testing.assert_allclose(rows, repeated(image, scale), atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_a_restored_array_is_larger(dtype, channels):
    shape = (30, 50) if channels is None else (30, 50, channels)
    full = {"uint8": 255, "uint16": 65535}.get(dtype, 1)
    image = (np.random.default_rng(0).random(shape) * full).astype(dtype)
    if channels == 4:
        image[..., 3] = full
        image[:, :25, 3] = 0
    restorer = Restorer.from_engine(RepeatingEngine(3), tile=16, overlap=4)
    done = []
    result = restorer.restore(image, lambda *event: done.append(event))
    assert result.dtype == image.dtype
    assert result.shape == (90, 150, *shape[2:])
    assert done[-1] == (30 * 50, 30 * 50)
    tolerance = 1 if full > 1 else 1e-6
    expected = repeated(image, 3).astype(np.float64)
    colours = np.s_[..., :3] if channels == 4 else np.s_[...]
    np.testing.assert_allclose(result[colours], expected[colours], atol=tolerance)
    if channels == 4:
        alpha = result[..., 3]
        assert (alpha[:, :60] == 0).all()
        assert (alpha[:, 90:] == full).all()
        assert len(np.unique(alpha[45, 70:80])) > 2
    assert restorer.describe()["scale"] == restorer.scale == 3


def test_running_out_of_memory_shrinks_tiles():
    image = np.random.default_rng(0).random((150, 260, 3), dtype=np.float32)
    engine = RepeatingEngine(2, size_multiple=8, most_pixels=80 * 80)
    result = Restorer.from_engine(engine, tile=128, overlap=16).restore(image)
    np.testing.assert_allclose(result, repeated(image, 2), atol=1e-6)
    assert max(max(shape) for shape in engine.shapes) <= 80


def test_wide_pictures_get_low_tiles():
    restorer = Restorer.from_engine(RepeatingEngine(4), tile=384)
    plan = restorer.plan(5000, 40_000)
    waiting = plan.rows.size * 4 * 40_000 * 4 * 3 * 4
    assert waiting < 0.6e9
    assert plan.columns.size > plan.rows.size
    plain = Restorer.from_engine(RepeatingEngine(1), tile=384).plan(5000, 40_000)
    assert plain.rows.size > 300


@pytest.mark.parametrize("size", [(48, 48), (20, 100), (101, 60)])
def test_networks_of_one_square_get_that_square(size):
    image = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    engine = RepeatingEngine(2, size_multiple=48, fixed_patch=48)
    result = Restorer.from_engine(engine).restore(image)
    np.testing.assert_allclose(result, repeated(image, 2), atol=1e-6)
    assert set(engine.shapes) == {(48, 48)}


@pytest.mark.parametrize(
    ("options", "match"),
    [({"tile": 96, "overlap": 16}, "squares of 48 pixels"), ({"overlap": 30}, "expected 0 to 24")],
)
def test_other_tiles_are_refused_there(options, match):
    with pytest.raises(EngineError, match=match):
        Restorer.from_engine(RepeatingEngine(1, 48, 48), **options)


def test_a_random_ipt_restores_with_overlapping_squares(tmp_path):
    config = {
        "n_feats": 1, "patch_size": 12, "num_layers": 1, "num_heads": 3, "heads": ["x2"],
        "rgb_range": 1.0,
    }  # fmt: skip
    network = create_backbone("ipt", config)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(tmp_path / "i.safetensors", tensors, ModelHeader(backbone="ipt", config=config))
    restorer = Restorer(tmp_path / "i.safetensors", engine="torch", overlap=4)
    assert (restorer.scale, restorer.tile) == (2, 12)
    assert restorer.restore(picture(30, 25)).shape == (60, 50, 3)
    assert len(restorer.plan(30, 25).rows.starts) == 4


@pytest.mark.parametrize(
    ("backbone", "small", "large"),
    [
        ("restormer", {"dim": 24}, {}),
        ("swinir", {"embed_dim": 60}, {"embed_dim": 180}),
        ("edt", {"embed_dim": 60, "heads": ["sr_x2"]}, {"embed_dim": 240, "heads": ["sr_x2"]}),
        ("edt", {"embed_dim": 180, "heads": ["dn_g15"]}, {"heads": ["sr_x2", "dn_g15"]}),
        ("ipt", {"n_feats": 4}, {}),
    ],
)
def test_memory_is_estimated_for_each_backbone(backbone, small, large):
    needs = [
        working_memory(ModelHeader(backbone=backbone, config=config), "torch", "float32")
        for config in (small, large)
    ]
    assert 500 < needs[0] < needs[1] < 50_000


def test_networks_of_other_channels_are_refused(tmp_path):
    config = {"width": 4, "enc_blk_nums": [1], "middle_blk_num": 1, "dec_blk_nums": [1]}
    config |= {"img_channel": 6}
    network = create_backbone("nafnet", config)
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    write_model(tmp_path / "a.safetensors", tensors, ModelHeader(backbone="nafnet", config=config))
    with pytest.raises(EngineError, match="takes pictures of 6 channels"):
        Restorer(tmp_path / "a.safetensors", engine="torch")


# --- files ---


def restored(source, target, scale=2):
    restorer = Restorer.from_engine(RepeatingEngine(scale), tile=32, overlap=8)
    restore_picture(restorer, source, target)
    return pyvips.Image.new_from_file(str(target))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
@pytest.mark.parametrize("bits", [8, 16])
def test_transparency_is_enlarged_with_the_picture(tmp_path, suffix, bits):
    full = 2**bits - 1
    alpha = np.zeros((40, 60, 1))
    alpha[:, 30:] = 1
    samples = (np.concatenate([picture(40, 60), alpha], axis=2) * full).round()
    image = pyvips.Image.new_from_array(samples.astype(f"uint{bits}"))
    image.copy(interpretation="srgb" if bits == 8 else "rgb16").write_to_file(
        str(tmp_path / "a.png")
    )
    result = restored(tmp_path / "a.png", tmp_path / f"b{suffix}").numpy()
    assert result.shape == (80, 120, 4)
    full = np.iinfo(result.dtype).max
    assert (result[:, :56, 3] == 0).all()
    assert (result[:, 64:, 3] == full).all()
    assert 0 < result[40, 60, 3] < full
    with PictureWriter(
        tmp_path / "c.png", like=inspect_picture(tmp_path / "a.png"), width=120, height=80
    ) as writer:
        writer.write(repeated(picture(40, 60), 2))


@pytest.mark.parametrize("turned", [1, 6])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_it_is_printed_as_large_as_before(tmp_path, suffix, turned):
    image = pyvips.Image.new_from_array((picture(40, 60) * 255).astype(np.uint8))
    image = image.copy(xres=300 / 25.4, yres=300 / 25.4, interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", turned)
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/" exif:PixelXDimension="60" tiff:XResolution="300/1"/>'
    )
    image.set_type(pyvips.GValue.blob_type, "xmp-data", xmp)
    image.write_to_file(str(tmp_path / "a.jpg"))
    result = restored(tmp_path / "a.jpg", tmp_path / f"b{suffix}")
    size = (120, 80) if turned == 1 else (80, 120)
    assert (result.width, result.height) == size
    assert result.xres == pytest.approx(600 / 25.4, rel=1e-4)
    assert result.yres == pytest.approx(600 / 25.4, rel=1e-4)
    assert b'exif:PixelXDimension="120" tiff:XResolution="600/1"' in result.get("xmp-data")
    if suffix != ".tif":
        assert result.get("exif-ifd2-PixelXDimension").startswith(f"{size[0]} ")
        assert result.get("exif-ifd0-XResolution").startswith("600")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_no_resolution_is_made_up(tmp_path, suffix):
    image = pyvips.Image.new_from_array((picture(40, 60) * 255).astype(np.uint8))
    image.copy(interpretation="srgb").write_to_file(str(tmp_path / f"a{suffix}"), keep=0)
    before = pyvips.Image.new_from_file(str(tmp_path / f"a{suffix}"))
    result = restored(tmp_path / f"a{suffix}", tmp_path / f"b{suffix}")
    assert result.xres == pytest.approx(before.xres)


def test_before_and_after_of_one_that_is_larger(tmp_path):
    (source,) = write_pictures(tmp_path, 1, height=150, width=200)
    restored(source, tmp_path / "b.png", 3)
    sheet = before_after(source, tmp_path / "b.png", cell_size=(256, 192))
    assert sheet.shape[0] > 2 * 192
    # Below, both show the same part: interpolated, and as it was restored.
    assert np.isfinite(sheet).all()
    assert (sheet.min(), sheet.max()) >= (0, 0.5)
    write_picture(tmp_path / "c.png", picture(151, 400))
    from urushi.errors import PictureError

    with pytest.raises(PictureError, match="one a whole multiple of the other"):
        before_after(source, tmp_path / "c.png")


def test_the_command_enlarges(tmp_path, x2_model):
    write_pictures(tmp_path / "in", 2, height=30, width=40)
    words = ["restore", tmp_path / "in", "-o", tmp_path / "out", "--model", x2_model]
    assert "would restore" in run(*words, "--dry-run").stdout
    done = run(*words, "--compare")
    assert done.exit_code == 0, done.stderr
    info = inspect_picture(tmp_path / "out" / "picture0.png")
    assert (info.width, info.height) == (80, 60)
    assert (tmp_path / "out" / "compare" / "picture0_compare.jpg").is_file()
    assert run("doctor", "--model", x2_model, "--json").exit_code in (0, 1)


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
    inputs, targets = pack.pair_crops(np.array([1]), np.array([2]), np.array([3]), 8)
    assert (inputs.shape, targets.shape) == ((1, 8, 8, 3), (1, 24, 24, 3))
    np.testing.assert_array_equal(targets[0], pack.pair(1)[1][6:30, 9:33])


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
            "backbone": {"name": "swinir", "config": {**TINY, "upscale": 3}},
            "data": {"pictures": ["."], "patch": 16, "batch": 2},
            "degradation": {"name": "downsample", "scales": [2]},
            "schedule": {"steps": 1},
        }
    )
    network = create_backbone("swinir", {**TINY, "upscale": 3})
    with pytest.raises(RecipeError, match="3 times as long, and the clean pictures are 2 times"):
        check_scale(network, build_stages(recipe, pack, CPU))


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
    assert (
        "enlarges 2 times, and the targets are for a network that enlarges 3 times" in done.stderr
    )
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
