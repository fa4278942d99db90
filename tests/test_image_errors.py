"""What cannot be read or written is said in one sentence, and nothing is lost."""

import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import pyvips
from commands import as_nobody

from urushi.errors import TargetError, TooLargeError, UnreadableError
from urushi.image import (
    PictureWriter,
    inspect_picture,
    is_picture_name,
    open_picture,
    read_picture,
    write_picture,
)

PIXELS = np.random.default_rng(3).random((160, 200, 3), dtype=np.float32)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "in.png"
    write_picture(path, PIXELS)
    return path


def one_sentence(message: str, path: Path) -> None:
    assert str(path) in message
    assert "\n" not in message
    assert "VipsForeign" not in message
    assert message.endswith(".")


def content_of(kind: str, suffix: str, tmp_path: Path) -> bytes:
    whole = tmp_path / f"whole{suffix}"
    write_picture(whole, PIXELS)
    data = whole.read_bytes()
    return {
        "empty": b"",
        "text": b"this is not a picture, whatever its name says\n" * 20,
        "gif": b"GIF89a" + b"\0" * 100,
        "start only": data[:40],
        "half": data[: len(data) // 2],
        "nearly whole": data[: len(data) * 9 // 10],
    }[kind]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp", ".avif"])
@pytest.mark.parametrize("kind", ["empty", "text", "gif", "start only", "half", "nearly whole"])
def test_damaged_files_are_named(tmp_path, capfd, kind, suffix):
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content_of(kind, suffix, tmp_path))
    with pytest.raises(UnreadableError) as raised:
        read_picture(path)
    one_sentence(str(raised.value), path)
    assert capfd.readouterr() == ("", "")


def test_missing_folder_and_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path, what in [
        (tmp_path / "none.jpg", "does not exist"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe.png", "not a regular file"),
    ]:
        with pytest.raises(UnreadableError, match=what) as raised:
            inspect_picture(path)
        one_sentence(str(raised.value), path)


def test_forbidden_file(tmp_path, picture):
    picture.chmod(0)
    with as_nobody(tmp_path), pytest.raises(UnreadableError, match="permission denied") as raised:
        inspect_picture(picture)
    one_sentence(str(raised.value), picture)


def test_camera_raw_is_not_taken_for_its_preview(tmp_path):
    write_picture(tmp_path / "a.tif", PIXELS)
    (tmp_path / "a.tif").rename(tmp_path / "a.nef")
    with pytest.raises(UnreadableError, match="camera raw, which is not read: develop it"):
        inspect_picture(tmp_path / "a.nef")


def test_content_decides_not_the_suffix(tmp_path, picture):
    picture.rename(tmp_path / "in.jpg")
    assert inspect_picture(tmp_path / "in.jpg").format == "png"


def test_too_many_pixels_are_refused_from_the_header(tmp_path, picture):
    bomb = tmp_path / "bomb.png"
    data = bytearray(picture.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = __import__("zlib").crc32(bytes(data[12:29])).to_bytes(4, "big")
    bomb.write_bytes(data)
    with pytest.raises(TooLargeError, match=r"60000 x 60000 = 3,600,000,000.*1,073,741,824") as big:
        open_picture(bomb)
    one_sentence(str(big.value), bomb)
    with pytest.raises(TooLargeError):
        read_picture(picture, max_pixels=31999)
    assert read_picture(picture, max_pixels=32000).shape == (160, 200, 3)
    assert inspect_picture(picture, max_pixels=None).width == 200


@pytest.mark.parametrize("name", ["photo[1].png", "a b [n=2].png", "üñï.png", "-x.png", "%d.png"])
def test_any_name_will_do(tmp_path, name):
    write_picture(tmp_path / name, PIXELS)
    assert inspect_picture(tmp_path / name).width == 200


def test_existing_target_is_not_touched(picture):
    before = picture.read_bytes()
    with pytest.raises(TargetError, match="exists already") as raised:
        write_picture(picture, PIXELS * 0, like=picture)
    one_sentence(str(raised.value), picture)
    assert picture.read_bytes() == before


def test_source_may_be_replaced_when_asked(picture):
    picture.chmod(0o640)
    write_picture(picture, PIXELS * 0, like=picture, overwrite=True)
    assert read_picture(picture).max() == 0
    assert picture.stat().st_mode & 0o777 == 0o640
    assert [p.name for p in picture.parent.iterdir()] == ["in.png"]


def test_links_are_followed(tmp_path, picture):
    link = tmp_path / "link.png"
    link.symlink_to(picture)
    write_picture(link, PIXELS * 0, overwrite=True)
    assert link.is_symlink()
    assert read_picture(picture).max() == 0


def test_new_files_get_the_usual_permissions(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_picture(tmp_path / "a.png", PIXELS)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_left_after_an_exception(tmp_path, picture, overwrite):
    before = picture.read_bytes()
    target = picture if overwrite else tmp_path / "out.png"

    def stop_halfway():
        with PictureWriter(target, like=None, width=200, height=160, overwrite=overwrite) as writer:
            writer.write(PIXELS[:50])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop_halfway()
    assert [p.name for p in tmp_path.iterdir()] == ["in.png"]
    assert picture.read_bytes() == before


def test_target_that_appears_meanwhile_is_kept(tmp_path):
    target = tmp_path / "out.png"

    def be_late():
        with PictureWriter(target, like=None, width=200, height=160) as writer:
            writer.write(PIXELS)
            target.write_bytes(b"someone else's")

    with pytest.raises(TargetError, match="appeared"):
        be_late()
    assert target.read_bytes() == b"someone else's"
    assert [p.name for p in tmp_path.iterdir()] == ["out.png"]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("out.xyz", "names no known picture format"),
        ("out", "names no known picture format"),
        ("out.bmp", "would be a BMP, which is read and not written"),
        ("none/out.png", "does not exist"),
        ("dir.png", "is a folder"),
    ],
)
def test_unusable_targets(tmp_path, name, match):
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(TargetError, match=match) as raised:
        write_picture(tmp_path / name, PIXELS)
    one_sentence(str(raised.value), tmp_path / name)


def test_forbidden_folder(tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir()
    folder.chmod(0o555)
    with as_nobody(folder), pytest.raises(TargetError, match="permission denied") as raised:
        write_picture(folder / "out.png", PIXELS)
    one_sentence(str(raised.value), folder / "out.png")


def test_folders_that_may_not_be_searched(tmp_path, picture):
    folder = tmp_path / "closed"
    folder.mkdir()
    picture.rename(folder / "in.png")
    folder.chmod(0o600)
    with as_nobody(tmp_path):
        with pytest.raises(UnreadableError, match="permission denied") as raised:
            inspect_picture(folder / "in.png")
        one_sentence(str(raised.value), folder / "in.png")
        with pytest.raises(TargetError, match="permission denied") as raised:
            write_picture(folder / "out.png", PIXELS)
        one_sentence(str(raised.value), folder / "out.png")


@pytest.mark.parametrize("room", [1000, 120_000])
def test_no_room_left(tmp_path, capfd, room):
    """A limit on the size of files stands in for a full disk, while rows come and when encoding."""
    source, target = tmp_path / "in.tif", tmp_path / "out.tif"
    image = pyvips.Image.new_from_array((PIXELS * 255).astype(np.uint8))
    image.set_type(pyvips.GValue.gstr_type, "image-description", "x" * 60_000)
    image.copy(interpretation="srgb").tiffsave(str(source))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(TargetError, match="cannot be written") as raised:
            write_picture(target, PIXELS, like=source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    one_sentence(str(raised.value), target)
    assert [p.name for p in tmp_path.iterdir()] == ["in.tif"]
    assert capfd.readouterr().err == ""


def test_formats_say_where_they_end(tmp_path):
    with pytest.raises(TargetError, match="16383"):
        PictureWriter(tmp_path / "wide.webp", like=None, width=20000, height=10)
    with pytest.raises(TargetError, match=r"choose 8, 16 or 32"):
        PictureWriter(tmp_path / "deep.png", like=None, width=20, height=10, bits=12)
    with pytest.raises(TargetError, match=r"1\.\.100"):
        PictureWriter(tmp_path / "a.jpg", like=None, width=20, height=10, quality=0)
    assert list(tmp_path.iterdir()) == []


def test_likeness_of_another_size(tmp_path, picture):
    with pytest.raises(TargetError, match="200 x 160"):
        write_picture(tmp_path / "out.png", PIXELS[:50], like=picture)


def test_pictures_read_at_once_are_told_of_with_their_own_reasons(tmp_path):
    """libvips 8.18 has one buffer of errors for all threads, and empties it for the first."""
    files = [tmp_path / name for name in ("a.jpg", "b.png", "c.tif")]
    for file, size in zip(files, (300, 20, 300), strict=True):
        write_picture(file, PIXELS)
        file.write_bytes(file.read_bytes()[:size])

    def told(file):
        with pytest.raises(UnreadableError) as raised:
            inspect_picture(file)
        return str(raised.value)

    alone = [told(file) for file in files]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(told, 40 * files))
    assert set(together) == set(alone)
    assert not any("unable to call" in sentence for sentence in alone)


def test_several_pages_are_not_lost(tmp_path):
    source = tmp_path / "pages.tif"
    frames = (np.arange(3 * 20 * 30 * 3) % 251).astype(np.uint8).reshape(60, 30, 3)
    image = pyvips.Image.new_from_array(frames)
    image.tiffsave(str(source), page_height=20)
    info = inspect_picture(source)
    assert (info.pages, info.height) == (3, 20)
    pixels = read_picture(source)
    np.testing.assert_allclose(pixels * 255, frames[:20], atol=1e-4)
    with pytest.raises(TargetError, match="holds 3 pictures"):
        write_picture(source, pixels, like=info, overwrite=True)
    write_picture(tmp_path / "first.tif", pixels, like=info)
    assert inspect_picture(tmp_path / "first.tif").pages == 1


def test_picture_names():
    assert all(is_picture_name(n) for n in ("a.JPG", "b.tiff", "c/d.HEIC", "e.avif"))
    assert not any(
        is_picture_name(n) for n in ("a.txt", "png", "b.png.part", ".hidden.png", "c.nef")
    )
