"""Networks that enlarge: tiles, the restorer, files."""

import numpy as np
import pytest
import pyvips
from commands import run
from networks import GOLDEN, RepeatingEngine
from pictures import picture, reader, repeated, write_pictures
from safetensors.numpy import load_file

from urushi.backbones import create_backbone
from urushi.errors import EngineError
from urushi.files.model import ModelHeader, write_model
from urushi.image import PictureWriter, inspect_picture, write_picture
from urushi.image.enlarge import enlarge, enlarge_rows
from urushi.inference.arrays import enlarged_alpha
from urushi.inference.before_after import before_after
from urushi.inference.engines.base import working_memory
from urushi.inference.picture_files import restore_picture
from urushi.inference.restorer import Restorer
from urushi.inference.tiling import plan_tiles, stream_tiles

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
    told = b'exif:PixelXDimension="%d" tiff:XResolution="600/1"' % result.width
    assert told in result.get("xmp-data")
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


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_enlarged_transparency_stays_between_nothing_and_all(dtype):
    white = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    alpha = np.zeros((8, 10, 1), dtype)
    alpha[:, 5:] = white
    # Interpolation reaches beyond both sides of a step, which integers would wrap around.
    assert enlarge(alpha.astype(np.float32), 2).max() > white
    found = enlarged_alpha(alpha, 2)
    assert found.shape == (16, 20, 1)
    assert (found.min(), found.max()) == (0, white)
    assert (np.diff(found, axis=1) >= 0).all()
