"""Transparency is kept bit for bit, and what it hides neither darkens nor confuses."""

import numpy as np
import pytest
import pyvips
from PIL import Image

from urushi.errors import TargetError
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.image.alpha import Transparency


def disc(bits: int = 8, hidden: int = 0) -> np.ndarray:
    """A soft-edged orange disc; where nothing is visible, all channels are `hidden`."""
    y, x = np.mgrid[0:48, 0:64]
    alpha = np.clip(18.5 - np.hypot(y - 24, x - 30), 0, 1)
    colour = np.stack([0.9 + 0 * x, 0.4 + 0.004 * x, 0.1 + 0.004 * y], axis=-1)
    colour[alpha == 0] = hidden / 255
    full = 255 if bits == 8 else 65535
    values = np.rint(np.concatenate([colour, alpha[..., None]], axis=-1) * full)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


def store(path, values):
    meaning = "srgb" if values.dtype == np.uint8 else "rgb16"
    pyvips.Image.new_from_array(values).copy(interpretation=meaning).write_to_file(str(path))


def load(path):
    return pyvips.Image.new_from_file(str(path)).numpy()


@pytest.mark.parametrize("hidden", [0, 255])
@pytest.mark.parametrize("bits", [8, 16])
def test_network_sees_no_wall_at_the_edge(tmp_path, bits, hidden):
    source = tmp_path / "in.png"
    store(source, disc(bits, hidden))
    pixels = read_picture(source)
    assert pixels[..., 0].min() > 0.85
    steps = np.abs(np.diff(pixels, axis=0)).max(), np.abs(np.diff(pixels, axis=1)).max()
    assert max(steps) < 0.05


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
def test_unchanged_picture_composes_as_before(tmp_path, bits, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    values = disc(bits)
    store(source, values)
    write_picture(target, read_picture(source), like=source)
    written = load(target)
    np.testing.assert_array_equal(written[..., 3], values[..., 3])
    visible = values[..., 3] > 0
    np.testing.assert_array_equal(written[visible], values[visible])
    full = float(np.iinfo(values.dtype).max)
    for ground in (0.0, 1.0):
        before, after = (
            v[..., :3] / full * (v[..., 3:] / full) + ground * (1 - v[..., 3:] / full)
            for v in (values, written)
        )
        np.testing.assert_array_equal(before, after)
    # Scaling without regard to transparency is what makes dark fringes visible.
    hidden = written[~visible][:, 0] / full
    assert hidden.min() > 0.85


def test_hidden_colours_that_mean_something_are_kept(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    values = disc()
    values[:20, :20, :3] = np.random.default_rng(0).integers(0, 256, (20, 20, 3))
    store(source, values)
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)


def test_profile_and_hollow_transparency_together(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    values = disc()
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb")
    profile = bytes(pyvips.Operation.call("profile_load", "p3"))
    kind = pyvips.GValue.blob_type
    image.set_type(kind, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType]
    image.write_to_file(str(source))
    write_picture(target, read_picture(source), like=source)
    visible = values[..., 3] > 0
    np.testing.assert_array_equal(load(target)[visible], values[visible])
    assert load(target)[~visible][:, 0].min() > 215


def test_nothing_visible_at_all(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    values = np.zeros((9, 7, 4), np.uint8)
    store(source, values)
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)


def test_palette_with_transparency(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    palette = Image.fromarray((np.arange(24 * 24) % 5).astype(np.uint8).reshape(24, 24), "P")
    palette.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200, 90, 90, 90, 0, 0, 0])
    palette.save(source, transparency=bytes([255, 128, 3, 255, 0]))
    write_picture(target, read_picture(source), like=source)
    before, after = load(source), load(target)
    visible = before[..., 3] > 0
    np.testing.assert_array_equal(after[visible], before[visible])
    np.testing.assert_array_equal(after[..., 3], before[..., 3])


@pytest.mark.parametrize("suffix", [".webp", ".avif"])
def test_lossy_formats_keep_transparency_exactly(tmp_path, suffix):
    source, target = tmp_path / "in.png", tmp_path / f"out{suffix}"
    store(source, disc())
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target)[..., 3], disc()[..., 3])


def test_jpeg_refuses_transparency_but_not_an_opaque_alpha(tmp_path):
    source = tmp_path / "in.png"
    store(source, disc())
    with pytest.raises(TargetError, match=r"transparency.*choose PNG"):
        write_picture(tmp_path / "out.jpg", read_picture(source), like=source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.png"]
    opaque = disc()
    opaque[..., 3] = 255
    store(source, opaque)
    write_picture(tmp_path / "out.jpg", read_picture(source), like=source)
    assert not inspect_picture(tmp_path / "out.jpg").has_alpha


def test_colours_behind_lie_where_the_squares_lie_that_they_are_means_of():
    """Each is that of the middle of its square of 4 pixels; between them lie straight slopes."""
    y, x = np.mgrid[0:6, 0:5].astype(np.float32)
    known = Transparency(False, True, np.stack([y, x, 0 * x], axis=-1), 4)
    pixels, alpha = np.full((10, 20, 3), 9, np.float32), np.zeros((10, 20))
    alpha[3, 7] = 1
    filled = known.fill(pixels, alpha, top=8)
    rows, columns = np.mgrid[8:18, 0:20]
    expected = np.stack(
        [
            np.clip((rows - 1.5) / 4, 0, 5),
            np.clip((columns - 1.5) / 4, 0, 4),
            np.zeros((10, 20)),
        ],
        axis=-1,
    )
    expected[3, 7] = 9
    np.testing.assert_allclose(filled, expected, atol=1e-5)
