"""A picture that is read and written unchanged is the picture it was."""

from pathlib import Path

import numpy as np
import pytest
import pyvips
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from urushi.image import (
    PictureWriter,
    inspect_picture,
    open_picture,
    read_picture,
    write_picture,
)

BLOB = pyvips.GValue.blob_type
DTYPES = {8: np.uint8, 16: np.uint16, 32: np.float32}
CHANNELS = {"grey": 1, "rgb": 3, "cmyk": 4}
MEANING = {
    ("grey", 8): "b-w",
    ("grey", 16): "grey16",
    ("grey", 32): "b-w",
    ("rgb", 8): "srgb",
    ("rgb", 16): "rgb16",
    ("rgb", 32): "scrgb",
    ("cmyk", 8): "cmyk",
    ("cmyk", 16): "cmyk",
}
SUFFIX_DEPTHS = {".png": (8, 16), ".tif": (8, 16, 32)}
CASES = [
    (suffix, kind, bits, alpha)
    for suffix, depths in SUFFIX_DEPTHS.items()
    for kind in CHANNELS
    for bits in depths
    for alpha in (False, True)
    if (kind, bits) in MEANING and not (kind == "cmyk" and suffix == ".png")
]


def samples(kind: str, bits: int, alpha: bool, seed: int = 0, size=(23, 31)) -> np.ndarray:
    """Random samples; transparency with all of nothing, some and everything in it."""
    rng = np.random.default_rng(seed)
    bands = CHANNELS[kind] + alpha
    values = rng.random((*size, bands))
    if alpha:
        values[..., -1] = np.clip(values[..., -1] * 3 - 1, 0, 1)
    if bits == 32:
        return values.astype(np.float32)
    return np.rint(values * np.iinfo(DTYPES[bits]).max).astype(DTYPES[bits])


def store(path: Path, values: np.ndarray, kind: str, profile: bytes | None = None, **options):
    bits = 8 * values.dtype.itemsize
    image = pyvips.Image.new_from_array(values).copy(interpretation=MEANING[kind, bits])
    if profile is not None:
        image.set_type(BLOB, "icc-profile-data", profile)  # pyright: ignore[reportArgumentType]
    image.write_to_file(str(path), **options)


def load(path: Path) -> np.ndarray:
    image = pyvips.Image.new_from_file(str(path))
    return image.numpy().reshape(image.height, image.width, image.bands)


def profile_of(name: str) -> bytes:
    """A profile with a wide gamut, or of greys with another curve, or of inks."""
    if name in ("p3", "cmyk", "srgb"):
        # The operation gives bytes that start with the profile.
        return bytes(pyvips.Operation.call("profile_load", name))
    patch = {"adobe": _adobe_rgb, "grey": _grey_gamma}[name]
    return patch()


def make_profile(space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """A small ICC v2 profile of matrix and curves."""
    table, data = b"", b""
    start = 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        value += b"\0" * (-len(value) % 4)
        table += name + (start + len(data)).to_bytes(4, "big") + len(value).to_bytes(4, "big")
        data += value
    head = bytearray(128)
    head[0:4] = (start + len(data)).to_bytes(4, "big")
    head[8:12] = b"\x02\x40\0\0"
    head[12:24] = b"mntr" + space + b"XYZ "
    head[36:40] = b"acsp"
    head[68:80] = _fixed(0.9642, 1.0, 0.8249)
    return bytes(head) + len(tags).to_bytes(4, "big") + table + data


def _fixed(*values: float) -> bytes:
    return b"".join(round(v * 65536).to_bytes(4, "big", signed=True) for v in values)


def xyz_tag(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + _fixed(*values)


def gamma_curve(value: float) -> bytes:
    return b"curv\0\0\0\0\0\0\0\1" + round(value * 256).to_bytes(2, "big")


def _adobe_rgb() -> bytes:
    return make_profile(
        b"RGB ",
        {
            b"desc": b"desc\0\0\0\0\0\0\0\2A\0" + b"\0" * 78,
            b"wtpt": xyz_tag(0.9642, 1.0, 0.8249),
            b"rXYZ": xyz_tag(0.60974, 0.31111, 0.01947),
            b"gXYZ": xyz_tag(0.20528, 0.62567, 0.06087),
            b"bXYZ": xyz_tag(0.14919, 0.06322, 0.74457),
            b"rTRC": gamma_curve(2.2),
            b"gTRC": gamma_curve(2.2),
            b"bTRC": gamma_curve(2.2),
        },
    )


def _grey_gamma() -> bytes:
    return make_profile(
        b"GRAY",
        {
            b"desc": b"desc\0\0\0\0\0\0\0\2G\0" + b"\0" * 78,
            b"wtpt": xyz_tag(0.9642, 1.0, 0.8249),
            b"kTRC": gamma_curve(1.8),
        },
    )


@pytest.mark.parametrize(("suffix", "kind", "bits", "alpha"), CASES)
def test_unchanged_picture_is_equal(tmp_path, suffix, kind, bits, alpha):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    values = samples(kind, bits, alpha)
    store(source, values, kind)
    info = inspect_picture(source)
    assert (info.kind, info.bits, info.has_alpha) == (kind, bits, alpha)
    pixels = read_picture(source)
    assert pixels.shape == (23, 31, 3)
    assert pixels.dtype == np.float32
    write_picture(target, pixels, like=info)
    assert inspect_picture(target).bits == bits
    np.testing.assert_array_equal(load(target), values)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("name", "kind"), [("p3", "rgb"), ("adobe", "rgb"), ("srgb", "rgb"), ("grey", "grey")]
)
def test_profile_is_honoured_and_kept(tmp_path, name, kind, bits):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    values = samples(kind, bits, True)
    store(source, values, kind, profile_of(name))
    pixels = read_picture(source)
    as_plain = values[..., : CHANNELS[kind]] / np.iinfo(values.dtype).max
    moved = np.abs(pixels - as_plain).max()
    assert moved == pytest.approx(0, abs=1e-6) if name == "srgb" else moved > 0.02
    write_picture(target, pixels, like=source)
    np.testing.assert_array_equal(load(target), values)
    kept = pyvips.Image.new_from_file(str(target)).get("icc-profile-data")
    assert kept == profile_of(name)


@pytest.mark.parametrize("name", ["p3", "adobe"])
def test_change_lands_where_it_was_meant(tmp_path, name):
    """What is written through a profile reads back as the same colours."""
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    # Not near the ends, so that the changed colours exist in the profile.
    values = samples("rgb", 16, False) // 2 + 15000
    store(source, values.astype(np.uint16), "rgb", profile_of(name))
    meant = read_picture(source) * 0.7 + 0.1
    write_picture(target, meant, like=source)
    assert np.abs(read_picture(target) - meant).max() < 0.5 / 255


def test_colours_outside_srgb_survive(tmp_path):
    source = tmp_path / "red.png"
    store(source, np.full((4, 4, 3), (255, 0, 0), np.uint8), "rgb", profile_of("p3"))
    pixels = read_picture(source)
    assert pixels[0, 0] == pytest.approx((1.093, -0.227, -0.150), abs=0.01)


def test_known_colour_of_a_profile(tmp_path):
    """Neutral greys of Display P3 are those of sRGB: the same curve and the same white."""
    source = tmp_path / "grey.png"
    ramp = np.arange(0, 256, 5, dtype=np.uint8)
    store(source, np.repeat(ramp[None, :, None], 3, axis=2), "rgb", profile_of("p3"))
    assert np.abs(read_picture(source)[0] - ramp[:, None] / 255).max() < 0.5 / 255


@pytest.mark.parametrize("damage", ["kind", "content"])
def test_unusable_profile_changes_no_colour(tmp_path, damage):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    profile = profile_of("cmyk") if damage == "kind" else profile_of("p3")[:140] + b"\7" * 400
    values = samples("rgb", 8, False)
    store(source, values, "rgb", profile)
    np.testing.assert_allclose(read_picture(source), values / 255, atol=1e-6)
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)


def test_cmyk_keeps_its_inks_and_takes_changes(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    values = (samples("cmyk", 8, False) // 2).astype(np.uint8)
    store(source, values, "cmyk", profile_of("cmyk"))
    pixels = read_picture(source)
    write_picture(target, pixels, like=source)
    np.testing.assert_array_equal(load(target), values)
    meant = pixels * 0.9 + 0.05
    write_picture(target, meant, like=source, overwrite=True)
    assert np.abs(read_picture(target) - meant).mean() < 2 / 255


@pytest.mark.parametrize("profile", [None, "cmyk"])
def test_cmyk_becomes_rgb_where_the_format_has_no_inks(tmp_path, profile):
    source, target = tmp_path / "in.tif", tmp_path / "out.png"
    store(source, samples("cmyk", 8, False), "cmyk", profile and profile_of(profile))
    pixels = read_picture(source)
    write_picture(target, pixels, like=source)
    info = inspect_picture(target)
    assert (info.kind, info.has_profile) == ("rgb", False)
    assert np.abs(read_picture(target) - np.clip(pixels, 0, 1)).max() <= 0.51 / 255


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".avif"])
def test_lossy_formats_stay_close_and_sharp_in_colour(tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    y, x = np.mgrid[0:64, 0:96] / 96.0
    pixels = np.stack([0.2 + 0.6 * x, 0.8 - 0.6 * y, 0.5 + 0.3 * np.sin(9 * x)], axis=-1)
    write_picture(target, pixels.astype(np.float32), like=None)
    assert np.abs(read_picture(target) - pixels).mean() < 1.5 / 255
    if suffix == ".jpg":
        header = pyvips.Image.new_from_file(str(target))
        assert header.get("jpeg-chroma-subsample") == "4:4:4"


def test_cmyk_jpeg_keeps_kind(tmp_path):
    source, target = tmp_path / "in.jpg", tmp_path / "out.jpg"
    values = np.full((24, 32, 4), (40, 90, 160, 20), np.uint8)
    store(source, values, "cmyk", profile_of("cmyk"), Q=100)
    write_picture(target, read_picture(source), like=source)
    assert inspect_picture(target).kind == "cmyk"
    assert np.abs(load(target).astype(int) - values).max() <= 2


def test_avif_of_16_bits_keeps_12(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.avif"
    values = samples("rgb", 16, True, size=(16, 16))
    store(source, values, "rgb")
    write_picture(target, read_picture(source), like=source)
    info = inspect_picture(target)
    assert (info.bits, info.has_alpha) == (16, True)
    assert np.abs(read_picture(target) - read_picture(source)).max() <= 0.51 / 4095


@pytest.mark.parametrize(
    ("bits", "suffix", "expected"),
    [(32, ".png", 16), (32, ".jpg", 8), (16, ".jpg", 8), (16, ".webp", 8), (32, ".tif", 32)],
)
def test_depth_is_the_most_the_format_has(tmp_path, bits, suffix, expected):
    source, target = tmp_path / "in.tif", tmp_path / f"out{suffix}"
    store(source, samples("rgb", bits, False), "rgb")
    write_picture(target, read_picture(source), like=source)
    assert inspect_picture(target).bits == expected


def test_depth_can_be_asked_for(tmp_path):
    source = tmp_path / "in.png"
    store(source, samples("rgb", 8, True), "rgb")
    write_picture(tmp_path / "out.png", read_picture(source), like=source, bits=16)
    np.testing.assert_array_equal(
        load(tmp_path / "out.png"), load(source).astype(np.uint16) * np.uint16(257)
    )


def test_floating_point_leaves_the_unit_range(tmp_path):
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    values = samples("rgb", 32, False) * 3 - 1
    store(source, values, "rgb")
    write_picture(target, read_picture(source), like=source)
    np.testing.assert_array_equal(load(target), values)


def test_grey_is_the_mean_of_the_three_channels(tmp_path):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    store(source, samples("grey", 8, False), "grey")
    pixels = read_picture(source)
    assert (pixels[..., 0] == pixels[..., 2]).all()
    pixels = np.stack([pixels[..., 0], pixels[..., 0], pixels[..., 0] * 0 + 0.3], axis=-1)
    write_picture(target, pixels, like=source)
    assert np.abs(load(target)[..., 0] - pixels.mean(axis=-1) * 255).max() <= 0.51


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg"])
def test_orientation_is_applied_once(tmp_path, orientation, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / f"out{suffix}"
    values = np.zeros((40, 56, 3), np.uint8)
    values[:16, :16], values[:16, 40:], values[24:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    image = pyvips.Image.new_from_array(values).copy(interpretation="srgb")
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    image.write_to_file(str(source))
    expected = pyvips.Image.new_from_file(str(source)).autorot()
    info = inspect_picture(source)
    assert info.orientation == orientation
    assert (info.width, info.height) == (expected.width, expected.height)
    write_picture(target, read_picture(source), like=source)
    written = pyvips.Image.new_from_file(str(target))
    assert "orientation" not in written.get_fields() or written.get("orientation") == 1
    difference = np.abs(written.numpy().astype(int) - expected.numpy())
    assert difference.max() <= (12 if suffix == ".jpg" else 0)
    again = inspect_picture(target)
    assert (again.width, again.height, again.orientation) == (info.width, info.height, 1)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    steps=st.lists(st.integers(1, 17), min_size=1, max_size=4),
    bits=st.sampled_from([8, 16]),
    alpha=st.booleans(),
    orientation=st.integers(1, 8),
    profile=st.sampled_from([None, "p3"]),
)
def test_any_bands_give_the_same_picture(
    tmp_path, height, width, steps, bits, alpha, orientation, profile
):
    """Rows may be taken and given in bands of any height."""
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    image = pyvips.Image.new_from_array(samples("rgb", bits, alpha, 1, (height, width)))
    image = image.copy(interpretation=MEANING["rgb", bits])
    image.set_type(pyvips.GValue.gint_type, "orientation", orientation)
    if profile is not None:
        image.set_type(BLOB, "icc-profile-data", profile_of(profile))  # pyright: ignore[reportArgumentType]
    image.write_to_file(str(source))
    with (
        open_picture(source) as reader,
        PictureWriter(
            target,
            like=reader.info,
            width=reader.info.width,
            height=reader.info.height,
            overwrite=True,
        ) as writer,
    ):
        seen = []
        while True:
            rows = reader.read(steps[len(seen) % len(steps)])
            if rows.shape[0] == 0:
                break
            seen.append(rows)
            writer.write(rows)
    np.testing.assert_allclose(np.concatenate(seen), read_picture(source), atol=1e-6)
    expected = pyvips.Image.new_from_file(str(source)).autorot().numpy()
    found = load(target).reshape(expected.shape)
    if alpha:
        # What a fully transparent pixel hides is filled from its neighbours.
        np.testing.assert_array_equal(found[..., -1], expected[..., -1])
        shown = expected[..., -1] > 0
        found, expected = found[shown], expected[shown]
    np.testing.assert_array_equal(found, expected)
