"""JPEGs that break off or are corrupt: read with a note, or refused where most is missing."""

import numpy as np
import pytest
from commands import run
from pictures import jpeg, pixels
from PIL import Image
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.data.check import check_folder
from urushi.errors import UnreadableError
from urushi.image import open_picture, read_picture

END = b"\xff\xd9"


def cut(share, *, end=b"", **options):
    """The first part of a JPEG's scan."""
    data = jpeg(pixels(192, 256), **options)
    start = data.index(b"\xff\xda") + 14
    return data[: start + int(share * (len(data) - start))] + end


def notes_of(path):
    with open_picture(path) as reader:
        rows = reader.read(reader.info.height)
        assert rows.shape[0] == reader.info.height
        return reader.notes


@pytest.mark.parametrize("end", [b"", END])
@pytest.mark.parametrize("subsampling", [0, 2])
def test_a_part_is_missing(tmp_path, end, subsampling):
    path = tmp_path / "a.jpg"
    path.write_bytes(cut(0.8, end=end, subsampling=subsampling))
    (note,) = notes_of(path)
    assert "is cut off" in note
    assert "of its 192 rows are missing" in note
    missing = int(note.split("the last ")[1].split()[0])
    assert 16 <= missing <= 56
    with pytest.raises(UnreadableError, match=r"is damaged\. The JPEG is cut off"):
        read_picture(path)


@pytest.mark.parametrize("end", [b"", END])
def test_most_is_missing(tmp_path, end):
    path = tmp_path / "a.jpg"
    path.write_bytes(cut(0.3, end=end))
    with pytest.raises(UnreadableError, match=r"only \d+ of its 192 rows are there"):
        notes_of(path)


def test_the_end_marker_alone_is_missing(tmp_path):
    path, whole = tmp_path / "a.jpg", jpeg(pixels())
    path.write_bytes(whole[:-2])
    assert notes_of(path) == ["The JPEG lacks its end marker; all its pixels are there."]
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert notes_of(tmp_path / "whole.jpg") == []
    assert np.array_equal(read_picture(path), read_picture(tmp_path / "whole.jpg"))


@pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 1}, {"progressive": True}])
def test_a_hole(tmp_path, options):
    path, data = tmp_path / "a.jpg", jpeg(pixels(192, 256), **options)
    start = data.rindex(b"\xff\xda") + 400
    path.write_bytes(data[:start] + bytes(300) + data[start + 300 :])
    (note,) = notes_of(path)
    assert "corrupt data" in note


def test_a_progressive_one_without_its_last_scans(tmp_path):
    path, data = tmp_path / "a.jpg", jpeg(pixels(192, 256), progressive=True)
    path.write_bytes(data[: data.rindex(b"\xff\xda")])
    (note,) = notes_of(path)
    assert "its last details may be missing" in note


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_turned_ones_too(tmp_path, orientation):
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.write_bytes(cut(0.8, exif=exif))
    assert len(notes_of(path)) == 1


def test_what_stands_behind_the_picture_does_no_harm(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg() + b"a video, perhaps" * 100)
    assert notes_of(path) == []


def test_restore_tells_and_the_others_go_on(tmp_path):
    folder, model = tmp_path / "in", write_tiny_model(tmp_path / "tiny.safetensors")
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(cut(0.8, end=END))
    (folder / "most.jpg").write_bytes(cut(0.2, end=END))
    (folder / "whole.jpg").write_bytes(jpeg())
    result = run("restore", folder, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == EXIT_FAILED
    assert "2 restored, 1 failed" in result.stdout
    assert "note: " in result.stderr
    assert "cut.jpg: The JPEG is cut off" in result.stderr
    assert "most.jpg' is cut off: only" in result.stderr
    (folder / "most.jpg").unlink()
    result = run("restore", folder, "-o", tmp_path / "again", "--model", model)
    assert result.exit_code == EXIT_WELL, result.stderr


def test_a_training_takes_none(tmp_path):
    (tmp_path / "cut.jpg").write_bytes(cut(0.8, end=END))
    (tmp_path / "whole.jpg").write_bytes(jpeg())
    report = check_folder(tmp_path)
    assert [name for name, _ in report.unreadable] == ["cut.jpg"]
