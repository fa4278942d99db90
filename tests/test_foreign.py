"""Formats that are read besides libvips' own, and those that are known and not read."""

import base64
import json
import shutil
import struct

import numpy as np
import pytest
from commands import run
from pictures import jpeg, pixels, write_pictures
from PIL import Image
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.errors import TargetError, TooLargeError, UnreadableError
from urushi.image import (
    foreign_name,
    inspect_picture,
    is_picture_name,
    left_out_sentence,
    open_picture,
    read_picture,
    write_picture,
)
from urushi.image.formats.causes import _TRIAL
from urushi.inference.naming import passed_over


def refusal(path):
    with pytest.raises(UnreadableError) as raised:
        read_picture(path)
    sentence = str(raised.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    return sentence


# --- BMP and PNM ---


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA"])
@pytest.mark.parametrize("suffix", [".bmp", ".ppm"])
def test_bitmaps(tmp_path, mode, suffix):
    if suffix == ".ppm" and mode in ("P", "RGBA"):
        pytest.skip("PNM has neither")
    path = tmp_path / f"a{suffix}"
    picture = Image.fromarray(pixels(20, 31)).convert(mode)
    picture.save(path)
    info = inspect_picture(path)
    assert (info.format, info.width, info.height) == ("bmp" if suffix == ".bmp" else "pnm", 31, 20)
    assert (info.kind, info.bits) == ("grey" if mode in ("L", "1") else "rgb", 8)
    expected = np.asarray(picture.convert("RGB"), np.float32) / 255
    assert np.allclose(read_picture(path), expected, atol=1e-6)
    with open_picture(path) as reader:
        assert np.array_equal(
            np.concatenate([reader.read(7) for _ in range(3)]), read_picture(path)
        )


@pytest.mark.parametrize("white", [65535, 1023, 255, 100])
@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_binary_pnm_of_any_depth(tmp_path, white, kind):
    path, shape = tmp_path / "a.pnm", (9, 7, 3 if kind == "P6" else 1)
    values = np.random.default_rng(0).integers(0, white, shape, endpoint=True)
    stored = values.astype("u1" if white < 256 else ">u2").tobytes()
    path.write_bytes(f"{kind}\n# a comment\n7 9\n{white}\n".encode() + stored)
    assert inspect_picture(path).bits == (8 if white < 256 else 16)
    expected = np.broadcast_to(values / white, (9, 7, 3))
    assert np.allclose(read_picture(path), expected, atol=0.51 / (255 if white < 256 else 65535))


def test_a_bitmap_becomes_a_png_with_its_resolution(tmp_path):
    source, target = tmp_path / "a.bmp", tmp_path / "a.png"
    Image.fromarray(pixels()).save(source, dpi=(300, 300))
    write_picture(target, read_picture(source), like=source)
    with Image.open(target) as picture:
        assert np.array_equal(np.asarray(picture), pixels())
        assert picture.info["dpi"][0] == pytest.approx(300, abs=0.1)
    with pytest.raises(TargetError, match="use one of"):
        write_picture(tmp_path / "b.bmp", read_picture(source))


@pytest.mark.parametrize("suffix", [".bmp", ".ppm", ".pgm", ".pbm"])
def test_damaged_bitmaps(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    Image.fromarray(pixels()).convert(mode).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cut short" in refusal(path)
    for count in (3, 8, 15, 20, 30):
        path.write_bytes(whole[:count])
        refusal(path)


def test_the_limit_of_pixels_comes_before_decoding(tmp_path):
    path = tmp_path / "a.ppm"
    path.write_bytes(b"P6 100000 100000 255\n")
    with pytest.raises(TooLargeError):
        inspect_picture(path)


def test_text_that_begins_like_a_bitmap(tmp_path):
    for name, text in (("a.ppm", b"P5 is a paper size"), ("b.bmp", b"BM is short for bitmap...")):
        (tmp_path / name).write_bytes(text)
        assert "not a picture of a known format" in refusal(tmp_path / name)


# --- known and not read ---


@pytest.mark.parametrize(
    ("name", "head", "expected"),
    [
        ("a.gif", b"GIF89a" + bytes(20), "GIF, which is not read: convert it to PNG or TIFF first"),
        ("a.jpg", b"GIF89a" + bytes(20), "not JPEG, as its name says, but of the format GIF"),
        ("a.jxl", b"\xff\x0a" + bytes(20), "JPEG XL"),
        (
            "a.png",
            b"\0\0\0\x0cJXL \r\n\x87\n",
            "not PNG, as its name says, but of the format JPEG XL",
        ),
        ("a.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        ("a.psd", b"8BPS\0\1" + bytes(20), "Photoshop"),
        ("a.exr", b"\x76\x2f\x31\x01" + bytes(20), "OpenEXR"),
        ("a.hdr", b"#?RADIANCE\n" + bytes(20), "Radiance HDR"),
        ("a.pfm", b"PF\n2 2\n-1.0\n" + bytes(48), "PFM or PAM"),
        ("a.svg", b'<?xml version="1.0"?>\n<svg width="1"/>', "vector drawing"),
        (
            "a.cr2",
            b"II*\0\x10\0\0\0CR\2\0" + bytes(20),
            "camera raw, which is not read: develop it",
        ),
        ("a.cr3", b"\0\0\0\x18ftypcrx " + bytes(20), "camera raw"),
        ("a.raf", b"FUJIFILMCCD-RAW " + bytes(20), "camera raw"),
        ("a.orf", b"IIRO\x08\0\0\0" + bytes(20), "camera raw"),
        ("a.nef", b"MM\0*\0\0\0\x08" + bytes(20), "camera raw"),
        ("a.jpg", b"\0\0\0\x18ftypmp42" + bytes(20), "a video, which is not read: take single"),
        ("a.dcm", bytes(128) + b"DICM", "DICOM"),
        ("a.tga", b"\0\0\2" + bytes(40), "TGA"),
    ],
)
def test_each_is_named_with_the_way_out(tmp_path, name, head, expected):
    (tmp_path / name).write_bytes(head)
    assert expected in refusal(tmp_path / name)


def test_names():
    assert is_picture_name("a.BMP")
    assert is_picture_name("scan.pgm")
    assert not is_picture_name("a.gif")
    assert foreign_name("a.GIF") == "GIF"
    assert foreign_name("DSC1.NEF") == "camera raw"
    assert foreign_name(".a.gif") is None
    assert foreign_name("notes.txt") is None
    assert foreign_name("a.jpg") is None
    assert left_out_sentence([]) == ""


def test_a_misnamed_picture_is_read_with_a_note(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels()).save(path, "PNG")
    with open_picture(path) as reader:
        assert reader.notes == ["The file is a PNG, although its name ends in .jpg."]


# --- variants ---


def tiff(path, **tags):
    """A TIFF of 3 x 2 pixels whose tags are not to be believed."""
    values = {256: 3, 257: 2, 258: (8, 8, 8), 259: 1, 262: 2, 273: 8, 277: 3, 278: 2, 279: 18}
    values.update({int(name[1:]): value for name, value in tags.items()})
    entries, rest = b"", b""
    for tag, value in sorted(values.items()):
        numbers = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"<{len(numbers)}H", *numbers)
        if len(data) > 4:
            place = struct.pack("<I", 200 + 2 + 12 * len(values) + 4 + len(rest))
            data, rest = place, rest + data
        entries += struct.pack("<HHI", tag, 3, len(numbers)) + data.ljust(4, b"\0")
    directory = struct.pack("<H", len(values)) + entries + bytes(4) + rest
    path.write_bytes(b"II*\0" + struct.pack("<I", 200) + bytes(192) + directory)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"t262": 8}, "holds CIE Lab colours"),
        ({"t262": 9}, "holds ICC Lab colours"),
        ({"t262": 32845}, "holds LogLuv colours"),
        ({"t262": 32803, "t258": 8, "t277": 1}, "mosaic of"),
        ({"t259": 50000}, "compressed with Zstandard"),
        ({"t259": 50002}, "compressed with JPEG XL"),
        ({"t259": 34887}, "compressed with LERC"),
        ({"t258": (12, 12, 12)}, "is a TIFF of 12 bits a sample"),
        ({"t258": (64, 64, 64), "t339": (3, 3, 3)}, "is a TIFF of 64 bits a sample"),
        ({"t258": (64, 64, 64), "t339": (3, 3, 3)}, "convert it to a TIFF of 32-bit floating"),
    ],
)
def test_variants_of_tiff_are_named(tmp_path, tags, expected):
    path = tmp_path / "a.tif"
    tiff(path, **tags)
    sentence = refusal(path)
    assert expected in sentence
    assert "get a whole copy" not in sentence
    assert "first" in sentence


def test_the_same_tiff_without_them_is_read(tmp_path):
    tiff(tmp_path / "a.tif")
    assert read_picture(tmp_path / "a.tif").shape == (2, 3, 3)


@pytest.mark.parametrize(
    ("marker", "bits", "expected"),
    [(0xC1, 12, "JPEG of 12 bits a sample"), (0xF7, 8, "is a JPEG-LS")],
)
def test_variants_of_jpeg_are_named(tmp_path, marker, bits, expected):
    path, data = tmp_path / "a.jpg", jpeg()
    at = data.index(b"\xff\xc0")
    path.write_bytes(
        data[:at] + bytes([0xFF, marker, data[at + 2], data[at + 3], bits]) + data[at + 5 :]
    )
    sentence = refusal(path)
    assert expected in sentence
    assert "get a whole copy" not in sentence


def test_heic_without_a_decoder_is_not_called_damaged(tmp_path):
    path, data = tmp_path / "iphone.heic", base64.b64decode(_TRIAL)
    path.write_bytes(data)
    try:
        read_picture(path)
    except UnreadableError as error:
        sentence = str(error)
    else:
        pytest.skip("this libvips decodes HEVC")
    for ask in (inspect_picture, open_picture):
        with pytest.raises(UnreadableError, match="coded in HEVC"):
            ask(path)
    assert "coded in HEVC, which the installed libvips does not decode: convert" in sentence
    path.write_bytes(data[:400])
    assert "cut short" in refusal(path)


# --- folders ---


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "scans"
    write_pictures(folder, 1)
    Image.fromarray(pixels(48, 64)).save(folder / "scan.bmp")
    for name in ("old.gif", "DSC1.NEF", "DSC2.nef", "notes.txt", ".hidden.gif", "sub/deep.jxl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"GIF89a")
    return folder


def test_restore_counts_and_names_what_it_leaves_out(folder, tmp_path):
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    result = run("restore", folder, "-o", tmp_path / "out", "--model", model, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    document = json.loads(result.stdout)
    assert document["restored"] == 2
    names = [path.rpartition("scans/")[2] for path in document["left_out"]]
    assert names == ["DSC1.NEF", "DSC2.nef", "old.gif", "sub/deep.jxl"]
    assert result.stderr.count("note: 4 pictures left out") == 1
    assert "2 camera raw, 1 GIF, 1 JPEG XL" in result.stderr
    assert (tmp_path / "out" / "scan.png").exists()

    result = run("restore", folder / "*.gif", "-o", tmp_path / "out2", "--model", model)
    assert result.exit_code == EXIT_FAILED
    assert "1 picture left out, of a format that is not read: 1 GIF (old.gif)" in result.stderr

    result = run(
        "restore", folder, "-o", tmp_path / "out3", "--model", model, "--dry-run", "--json"
    )
    assert len(json.loads(result.stdout)["left_out"]) == 4
    result = run("restore", folder, "-o", tmp_path / "out4", "--model", model, "--quiet")
    assert "left out" not in result.stderr


def test_the_output_folder_is_not_looked_into(folder, tmp_path):
    from urushi.inference.naming import passed_over

    (folder / "out").mkdir()
    (folder / "out" / "b.gif").write_bytes(b"GIF89a")
    assert len(passed_over([folder], folder / "out")) == 4
    assert len(passed_over([folder], tmp_path / "other")) == 5
    assert len(passed_over([folder, folder], tmp_path / "other")) == 5


def test_data_check_tells_and_does_not_mind(folder):
    result = run("data", "check", folder, "--min-side", "8")
    assert result.exit_code == EXIT_WELL, result.stdout
    assert "note: 4 pictures left out, of a format that is not read" in result.stdout
    result = run("data", "check", folder, "--min-side", "8", "--json")
    assert json.loads(result.stdout)["left_out"] == [
        "DSC1.NEF", "DSC2.nef", "old.gif", "sub/deep.jxl",
    ]  # fmt: skip
    result = run("data", "check", folder / "sub")
    assert result.exit_code == EXIT_FAILED
    assert "no picture can be read. 1 picture left out" in result.stderr


def test_examples_tell_it(tmp_path):
    from urushi.errors import DataError
    from urushi.training.examples import pair_examples

    for side in ("input", "target"):
        write_pictures(tmp_path / side, 3)
        (tmp_path / side / "more.cr2").write_bytes(b"II*\0")
    found = pair_examples(tmp_path, tmp_path / "run")
    assert any(note.startswith("2 pictures left out") for note in found.notes)
    for path in [*tmp_path.glob("*/picture1.png"), *tmp_path.glob("*/picture2.png")]:
        path.unlink()
    with pytest.raises(DataError, match="2 pictures left out"):
        pair_examples(tmp_path, tmp_path / "run")


def test_pictures_without_a_suffix_and_linked_folders_are_named(tmp_path):
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in/good.png", np.random.default_rng(0).random((9, 9, 3), np.float32))
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "in/good.png", tmp_path / "in/scan0001")
    shutil.copy(tmp_path / "in/good.png", tmp_path / "other")
    (tmp_path / "in/README").write_text("no picture")
    (tmp_path / "in/.hidden").write_bytes((tmp_path / "in/good.png").read_bytes())
    (tmp_path / "in/linked").symlink_to(tmp_path / "other")
    (tmp_path / "in/empty").symlink_to(tmp_path)
    found = passed_over([tmp_path / "in"])
    assert [path.name for path in found] == ["linked", "scan0001"]
    said = left_out_sentence(found)
    assert "without a suffix are left out (scan0001)" in said
    assert "links are not followed (linked)" in said
