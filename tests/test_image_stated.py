"""Colours that are stated without an ICC profile: by PNG chunks, nclx, and EXIF."""

import io
import struct
import zlib

import numpy as np
import pytest
import pyvips
from networks import DarkenEngine
from pictures import light_of
from PIL import Image
from test_image_profiles import P3, SPACES, SRGB_CURVE, space
from test_image_round_trip import load, profile_of, store

from urushi.errors import UnreadableError
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.image.libvips import can_write
from urushi.inference.inspection import inspect_file
from urushi.inference.picture_files import restore_picture
from urushi.inference.restorer import Restorer

ADOBE = (31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000)
LINEAR = (b"gAMA", struct.pack(">I", 100000))
MAC = (b"gAMA", struct.pack(">I", 55556))
GAMMA = (b"gAMA", struct.pack(">I", 45455))
WIDE = (b"cHRM", struct.pack(">8I", *ADOBE))
CICP_P3 = (b"cICP", bytes((12, 13, 0, 1)))


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(path, values, *chunks, **options):
    """A PNG of Pillow's with chunks behind its header."""
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG", **options)
    content = data.getvalue()
    path.write_bytes(content[:33] + b"".join(chunk(*c) for c in chunks) + content[33:])


def chunks_of(path):
    data, at, found = path.read_bytes(), 8, {}
    while at < len(data):
        (size,) = struct.unpack_from(">I", data, at)
        assert data[at + 8 + size :][:4] == struct.pack(
            ">I", zlib.crc32(data[at + 4 :][: size + 4])
        )
        found[data[at + 4 :][:4]] = data[at + 8 :][:size]
        at += 12 + size
    return found


def values(bands=3):
    y, x = np.mgrid[0:40, 0:60]
    planes = np.stack([4 * x + 10, 5 * y + 20, 2 * (x + y) + 30], axis=-1).astype(np.uint8)
    return planes if bands == 3 else planes[..., 0]


def darken(source, target):
    return restore_picture(Restorer.from_engine(DarkenEngine()), source, target)


def as_srgb(path):
    """What a program makes of a picture that honours its profile."""
    image = pyvips.Image.new_from_file(str(path))
    assert "icc-profile-data" in image.get_fields()
    return image.icc_transform("srgb", embedded=True, intent="relative").numpy().astype(float)


# PNG.


@pytest.mark.parametrize("stated", [[LINEAR], [MAC], [GAMMA, WIDE], [CICP_P3]])
@pytest.mark.parametrize("bands", [1, 3])
def test_chunks_stay_and_their_samples_with_them(tmp_path, stated, bands):
    source, target = tmp_path / "in.png", tmp_path / "out.png"
    png(source, values(bands), *stated)
    write_picture(target, read_picture(source), like=source)
    found = chunks_of(target)
    assert {name: found[name] for name, _ in stated} == dict(stated)
    assert b"iCCP" not in found
    np.testing.assert_array_equal(load(target), load(source))


def test_the_chunks_tell_what_is_read(tmp_path):
    png(tmp_path / "linear.png", values(), LINEAR)
    expected = values() / 255
    light = light_of(read_picture(tmp_path / "linear.png"))
    np.testing.assert_allclose(light, expected, atol=5e-4)
    for stated, profile in (([CICP_P3], profile_of("p3")), ([GAMMA, WIDE], SPACES["adobe"])):
        png(tmp_path / "stated.png", values(), *stated)
        png(tmp_path / "profiled.png", values(), icc_profile=profile)
        pixels = [read_picture(tmp_path / f"{name}.png") for name in ("stated", "profiled")]
        assert np.abs(pixels[0] - values() / 255).max() > 0.02
        np.testing.assert_allclose(*pixels, atol=0.004)


def test_a_profile_counts_more_than_gama_and_less_than_cicp(tmp_path):
    path = tmp_path / "in.png"
    png(path, values(), LINEAR, WIDE, icc_profile=profile_of("p3"))
    assert inspect_picture(path).stated is None
    png(path, values(), CICP_P3, LINEAR, icc_profile=SPACES["prophoto"])
    stated = inspect_picture(path).stated
    assert stated is not None
    assert stated.by == "cICP"
    write_picture(tmp_path / "out.png", read_picture(path), like=path)
    found = chunks_of(tmp_path / "out.png")
    assert (found[b"cICP"], b"gAMA" in found) == (CICP_P3[1], False)
    assert load(tmp_path / "out.png").tolist() == values().tolist()


@pytest.mark.parametrize(
    "stated",
    [
        [GAMMA],
        [(b"sRGB", b"\0"), LINEAR],
        [(b"cICP", bytes((1, 13, 0, 1)))],
        [(b"cICP", bytes((2, 2, 0, 1)))],
        [(b"gAMA", struct.pack(">I", 0))],
        [(b"cHRM", bytes(32))],
    ],
    ids=["gamma", "srgb", "cicp", "unspecified", "nonsense", "no-colours"],
)
def test_srgb_in_all_but_name_is_left_alone(tmp_path, stated):
    png(tmp_path / "in.png", values(), *stated)
    assert inspect_picture(tmp_path / "in.png").stated is None
    np.testing.assert_allclose(read_picture(tmp_path / "in.png"), values() / 255, atol=1e-6)


@pytest.mark.parametrize("suffix", [".jpg", ".tif", ".webp"])
def test_other_formats_get_a_profile_that_says_the_same(tmp_path, suffix):
    target = tmp_path / f"out{suffix}"
    png(tmp_path / "p3.png", values(), CICP_P3)
    png(tmp_path / "profiled.png", values(), icc_profile=profile_of("p3"))
    write_picture(target, read_picture(tmp_path / "p3.png"), like=tmp_path / "p3.png")
    assert np.abs(as_srgb(target) - as_srgb(tmp_path / "profiled.png")).mean() < 2


def test_linear_light_becomes_srgb_in_other_formats(tmp_path):
    png(tmp_path / "in.png", values(), LINEAR)
    write_picture(tmp_path / "out.tif", read_picture(tmp_path / "in.png"), like=tmp_path / "in.png")
    assert not inspect_picture(tmp_path / "out.tif").has_profile
    np.testing.assert_allclose(
        light_of(load(tmp_path / "out.tif") / 255), values() / 255, atol=0.006
    )


def test_a_change_is_made_under_the_right_curve(tmp_path):
    png(tmp_path / "in.png", values(), LINEAR)
    darken(tmp_path / "in.png", tmp_path / "out.png")
    encoded = read_picture(tmp_path / "in.png") / 2
    np.testing.assert_allclose(load(tmp_path / "out.png") / 255, light_of(encoded), atol=0.003)


def test_what_is_stated_can_be_inspected(tmp_path):
    png(tmp_path / "in.png", values(), CICP_P3)
    assert inspect_file(tmp_path / "in.png")["stated_by"] == "cICP"


# HDR.


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused_whatever_states_it(tmp_path, transfer, name):
    png(tmp_path / "a.png", values(), (b"cICP", bytes((9, transfer, 0, 1))))
    cicp = b"cicp" + bytes(4) + bytes((9, transfer, 0, 1))
    png(tmp_path / "b.png", values(), icc_profile=space(P3, SRGB_CURVE, cicp=cicp))
    avif(tmp_path / "c.avif", 9, transfer)
    for file in ("a.png", "b.png", "c.avif"):
        with pytest.raises(UnreadableError, match=rf"{file}.* HDR .*{name}.* as SDR"):
            read_picture(tmp_path / file)


def test_samples_over_a_part_of_their_range_are_refused(tmp_path):
    png(tmp_path / "in.png", values(), (b"cICP", bytes((1, 1, 0, 0))))
    with pytest.raises(UnreadableError, match="full range"):
        read_picture(tmp_path / "in.png")


# AVIF.


def avif(path, primaries, transfer):
    """A lossless AVIF whose nclx box has other numbers put in."""
    if not can_write("avif"):
        pytest.skip("libvips without an encoder of AVIF")
    image = pyvips.Image.new_from_array(values()).copy(interpretation="srgb")
    data = bytearray(image.heifsave_buffer(compression="av1", lossless=True, effort=0))
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", [".avif", ".png", ".jpg"])
def test_nclx_is_honoured_and_becomes_a_profile(tmp_path, suffix):
    avif(tmp_path / "in.avif", 12, 13)
    png(tmp_path / "same.png", values(), icc_profile=profile_of("p3"))
    pixels = read_picture(tmp_path / "in.avif")
    np.testing.assert_allclose(pixels, read_picture(tmp_path / "same.png"), atol=0.004)
    write_picture(tmp_path / f"out{suffix}", pixels, like=tmp_path / "in.avif")
    expected = as_srgb(tmp_path / "same.png")
    assert np.abs(as_srgb(tmp_path / f"out{suffix}") - expected).mean() < 2


@pytest.mark.parametrize("damage", [b"", b"\0\0\0\1", b"\xff" * 40])
def test_damaged_boxes_state_nothing(tmp_path, damage):
    avif(tmp_path / "in.avif", 12, 13)
    data = (tmp_path / "in.avif").read_bytes()
    at = data.index(b"ipma")
    (tmp_path / "in.avif").write_bytes(data[: at + 4] + damage + data[at + 4 + len(damage) :])
    try:
        info = inspect_picture(tmp_path / "in.avif")
    except UnreadableError:
        return
    assert info.stated is None or info.stated.by == "nclx"


# EXIF.


def exif(space, index=b"R03\0"):
    """Colour space and interoperability index, as cameras write them."""
    interoperability = struct.pack("<HHHI4sI", 1, 1, 2, 4, index, 0)
    photo = struct.pack("<H", 2)
    photo += struct.pack("<HHIHH", 40961, 3, 1, space, 0)
    photo += struct.pack("<HHII", 40965, 4, 1, 26 + 30)
    main = struct.pack("<HHHIII", 1, 34665, 4, 1, 26, 0)
    return b"Exif\0\0II*\0" + struct.pack("<I", 8) + main + photo + bytes(4) + interoperability


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_adobe_rgb_of_a_camera_is_honoured(tmp_path, suffix):
    source, target = tmp_path / f"in{suffix}", tmp_path / "out.png"
    options = {"quality": 100, "lossless": True, "subsampling": 0}
    Image.fromarray(values()).save(source, exif=exif(65535), **options)
    Image.fromarray(values()).save(tmp_path / "same.png", icc_profile=SPACES["adobe"])
    pixels = read_picture(source)
    assert np.abs(pixels - read_picture(tmp_path / "same.png")).mean() < 0.005
    write_picture(target, pixels, like=source)
    assert np.abs(as_srgb(target) - as_srgb(tmp_path / "same.png")).mean() < 2


@pytest.mark.parametrize(("space", "index"), [(1, b"R98\0"), (65535, b"R98\0"), (65535, b"\0" * 4)])
def test_other_exif_says_srgb_or_nothing(tmp_path, space, index):
    Image.fromarray(values()).save(tmp_path / "in.jpg", exif=exif(space, index))
    assert inspect_picture(tmp_path / "in.jpg").stated is None


def test_an_enlarged_or_deeper_picture_keeps_what_was_stated(tmp_path):
    store(tmp_path / "deep.png", (values().astype(np.uint16) * 257), "rgb")
    content = (tmp_path / "deep.png").read_bytes()
    (tmp_path / "in.png").write_bytes(content[:33] + chunk(*CICP_P3) + content[33:])
    restorer = Restorer.from_engine(DarkenEngine())
    restore_picture(restorer, tmp_path / "in.png", tmp_path / "out.png")
    assert chunks_of(tmp_path / "out.png")[b"cICP"] == CICP_P3[1]
    # In primaries of its own, half is half.
    half = values().astype(float) * 257 / 2
    np.testing.assert_allclose(load(tmp_path / "out.png"), half, atol=40)
