"""`urushi restore`, and the before/after sheets it writes."""

import json
import signal

import numpy as np
import pytest
from commands import run, run_python
from pictures import Page, picture, write_pictures, write_tiff
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import PictureError
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.image.preview import read_part, read_preview
from urushi.inference.before_after import before_after, sheet_paths, write_before_after
from urushi.inference.jobs import Job


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def photos(tmp_path):
    write_pictures(tmp_path / "photos", 2)
    write_pictures(tmp_path / "photos" / "more", 1, suffix=".tif")
    return tmp_path / "photos"


def test_a_folder_keeps_its_structure_and_is_skipped_the_second_time(photos, model, tmp_path):
    out = tmp_path / "out"
    result = run("restore", photos, "-o", out, "--model", model)
    assert result.exit_code == EXIT_WELL, result.stderr
    made = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*"))
    assert made == ["more/picture0.tif", "picture0.png", "picture1.png"]
    assert "3 restored" in result.stdout
    assert "\x1b" not in result.stdout
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.*")}

    result = run("restore", photos, "-o", out, "--model", model)
    assert result.exit_code == EXIT_WELL
    assert "3 skipped" in result.stdout
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.*")} == before

    result = run("restore", photos, "-o", out, "--model", model, "--overwrite")
    assert "3 restored" in result.stdout


def test_what_fails_is_told_and_stops_nothing(photos, model, tmp_path):
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (photos / "empty.png").touch()
    out = tmp_path / "out"
    result = run("restore", photos, photos / "none.png", "-o", out, "--model", model)
    assert result.exit_code == EXIT_FAILED
    assert "3 restored, 3 failed" in result.stdout
    for name in ("broken.jpg", "empty.png", "none.png"):
        assert sum(name in line for line in result.stderr.splitlines()) == 1
        assert not (out / name).exists()


def test_json_is_all_there_is_on_stdout(photos, model, tmp_path):
    (photos / "empty.png").touch()
    result = run("restore", photos, "-o", tmp_path / "out", "--model", model, "--json", "--compare")
    assert result.exit_code == EXIT_FAILED
    document = json.loads(result.stdout)
    assert (document["restored"], document["failed"]) == (3, 1)
    assert document["restorer"]["engine"] == "torch"
    assert {file["status"] for file in document["files"]} == {"restored", "failed"}
    assert len(document["sheets"]) == 3
    assert "3 restored" in result.stderr


def test_pages_are_chosen_and_told(model, tmp_path):
    scans = [(255 * picture(shift=k)[..., 0]).astype(np.uint8) for k in range(3)]
    source, out = write_tiff(tmp_path / "scan.tif", *map(Page, scans)), tmp_path / "out.tif"
    result = run("restore", source, "-o", out, "--model", model, "--json")
    assert json.loads(result.stdout)["files"][0]["pixels"] == 3 * scans[0].size
    assert inspect_picture(out).pages == 3
    one = tmp_path / "one.png"
    result = run("restore", source, "-o", one, "--model", model)
    assert result.exit_code == EXIT_WELL
    assert "note: " in result.stderr
    assert "first of 3 pages" in result.stderr
    result = run("restore", source, "-o", one, "--model", model, "--overwrite", "--pages", "2")
    assert result.stderr == ""
    result = run("restore", source, "-o", out, "--model", model, "--pages", "no")
    assert result.exit_code == EXIT_USAGE
    assert "pages are 'no'" in result.stderr
    result = run("restore", source, "-o", source, "--model", model, "--overwrite", "--pages", "1")
    assert result.exit_code == EXIT_FAILED
    assert "only the first would remain" in result.stderr


def test_sheets_show_the_page_that_was_restored(model, tmp_path):
    scans = [(255 * picture(shift=k)[..., 0]).astype(np.uint8) for k in range(2)]
    source, folder = write_tiff(tmp_path / "scan.tif", *map(Page, scans)), tmp_path / "out"
    options = ("-o", folder / "scan.png", "--model", model, "--compare", "--pages", "2")
    folder.mkdir()
    assert run("restore", source, *options).exit_code == EXIT_WELL
    sheet = read_picture(next(folder.rglob("*_compare.*")))
    other = before_after(source, folder / "scan.png", page=1)
    assert np.abs(sheet - other).mean() < 0.02


def test_quiet_says_only_what_failed(photos, model, tmp_path):
    (photos / "empty.png").touch()
    result = run("restore", photos, "-o", tmp_path / "out", "--model", model, "-q")
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "empty.png" in result.stderr


def test_dry_run_does_nothing(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "picture0.png").write_bytes(b"there")
    result = run("restore", photos, "-o", out, "--dry-run", "--format", "png")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "would skip" in result.stdout
    assert f"-> {out / 'more' / 'picture0.png'}" in result.stdout
    assert [path.name for path in out.rglob("*")] == ["picture0.png"]
    listed = json.loads(run("restore", photos, "-o", out, "--dry-run", "--json").stdout)
    assert [file["would"] for file in listed["files"]].count("skip") == 1


def test_options_reach_the_writer(photos, model, tmp_path):
    source = photos / "picture0.png"
    write_picture(tmp_path / "deep.tif", picture(), bits=16)
    target = tmp_path / "deep.png"
    result = run("restore", tmp_path / "deep.tif", "-o", target, "--model", model, "--tile", 32)
    assert result.exit_code == EXIT_WELL, result.stderr
    assert inspect_picture(target).bits == 16
    sizes = []
    for quality in (20, 95):
        target = tmp_path / f"q{quality}.jpg"
        run("restore", source, "-o", target, "--model", model, "--quality", quality)
        sizes.append(target.stat().st_size)
    assert sizes[0] < sizes[1]
    result = run("restore", source, "-o", tmp_path / "x", "--model", model, "--max-pixels", 100)
    assert result.exit_code == EXIT_FAILED
    assert "100" in result.stderr


def test_one_picture_goes_beside_its_source(photos, model):
    result = run("restore", photos / "picture0.png", "--model", model)
    assert result.exit_code == EXIT_WELL
    assert (photos / "picture0_restored.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["nothing*.png", "-o", "out"], "no pictures"),
        (["{photos}"], "--output"),
        (["{photos}", "-o", "{photos}/picture0.png"], "folder"),
        (["{photos}", "-o", "out", "--format", "gif"], "gif"),
        (["{photos}", "-o", "out", "--model", "no-such-model"], "no-such-model"),
        (["{photos}", "-o", "out", "--model", "{photos}/picture0.png"], "picture0.png"),
        (["{photos}", "-o", "out", "--model", "{model}", "--device", "abacus"], "abacus"),
        (["{photos}", "-o", "out", "--model", "{model}", "--engine", "openvino"], "graph"),
        (["{photos}", "-o", "out", "--model", "{model}", "--tile", "8", "--overlap", "9"], "9"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, word, photos, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filled = [text.format(photos=photos, model=model) for text in arguments]
    result = run("restore", *filled)
    assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
    assert word in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_compare_writes_a_sheet_per_picture(photos, model, tmp_path):
    out = tmp_path / "out"
    result = run("restore", photos, "-o", out, "--model", model, "--compare")
    assert result.exit_code == EXIT_WELL, result.stderr
    sheets = sorted(path.relative_to(out).as_posix() for path in out.rglob("*_compare.jpg"))
    names = ["more/picture0_compare", "picture0_compare", "picture1_compare"]
    assert sheets == [f"compare/{name}.jpg" for name in names]
    assert f"3 in {out / 'compare'}\n" in result.stdout
    # A sheet that was lost is made again, without restoring anything.
    (out / sheets[0]).unlink()
    result = run("restore", photos, "-o", out, "--model", model, "--compare")
    assert "3 skipped" in result.stdout
    assert (out / sheets[0]).is_file()


def test_compare_cannot_show_what_replaced_itself(photos, model):
    target = photos / "picture0.png"
    result = run("restore", target, "-o", target, "--model", model, "--overwrite", "--compare")
    assert result.exit_code == EXIT_FAILED
    assert "was overwritten by its own result" in result.stderr


def test_the_sheet_shows_what_changed_most_pixel_for_pixel(tmp_path):
    before = np.full((300, 400, 3), 0.5, np.float32)
    after = before.copy()
    after[200:216, 320:336] = 1.0
    paths = tmp_path / "before.png", tmp_path / "after.png"
    for path, pixels in zip(paths, (before, after), strict=True):
        write_picture(path, pixels)
    sheet = before_after(*paths, cell_size=(96, 80))
    white = (sheet[:, 100:] > 0.995).all(axis=2)
    # In the lower right cell the square of 16 pixels has its own size.
    assert white.sum() >= 16 * 16
    small = before_after(*paths, cell_size=(400, 300))
    assert small.shape[0] < 2 * 300, "a picture that fits needs no part"


def test_sheets_of_unlike_pictures_are_refused(tmp_path):
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    write_picture(first, picture(20, 30))
    write_picture(second, picture(20, 31))
    with pytest.raises(PictureError, match="31 x 20"):
        write_before_after(first, second, tmp_path / "sheet.jpg")
    (tmp_path / "file").touch()
    with pytest.raises(PictureError, match="cannot be created"):
        write_before_after(first, first, tmp_path / "file" / "sheet.jpg")


def test_sheets_have_names_of_their_own(tmp_path):
    jobs = [Job(tmp_path / "x", tmp_path / "out" / name) for name in ("a.png", "a.jpg", "b/a.png")]
    names = [
        path.relative_to(tmp_path / "out" / "compare")
        for path in sheet_paths(jobs, tmp_path / "out")
    ]
    assert [path.as_posix() for path in names] == [
        "a_compare.jpg",
        "a_jpg_compare.jpg",
        "b/a_compare.jpg",
    ]
    single = sheet_paths(jobs[:1], tmp_path / "out" / "a.png")
    assert single == [tmp_path / "out" / "compare" / "a_compare.jpg"]


@pytest.mark.parametrize("size", [(1, 1), (7, 500), (301, 203)])
def test_previews_and_parts_are_those_of_the_whole(size, tmp_path):
    path = tmp_path / "p.tif"
    write_picture(path, picture(*size), bits=16)
    whole = read_picture(path)
    small = read_preview(path, (50, 40))
    factor = min(max(-(-size[1] // 50), -(-size[0] // 40), 1), *size)
    assert small.shape[:2] == (size[0] // factor, size[1] // factor)
    np.testing.assert_allclose(small[0, 0], whole[:factor, :factor].mean(axis=(0, 1)), atol=1e-5)
    top, left = size[0] // 2, size[1] // 3
    part = read_part(path, top, left, size[0] - top, size[1] - left)
    np.testing.assert_array_equal(part, whole[top:, left:])


# Terminates itself while the third picture is being restored.
TERMINATED = """
import os, signal, sys
from urushi.app.cli import main
from urushi.inference.restorer import Restorer
plain, calls = Restorer.restore_rows, []
def restore_rows(self, *arguments):
    calls.append(1)
    for rows in plain(self, *arguments):
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        yield rows
Restorer.restore_rows = restore_rows
main()
"""


def test_being_terminated_leaves_only_whole_files(model, tmp_path):
    write_pictures(tmp_path / "photos", 4)
    out = tmp_path / "out"
    done = run_python(TERMINATED, "restore", tmp_path / "photos", "-o", out, "--model", model)
    assert done.returncode == 128 + signal.SIGTERM, done.stderr
    assert "goes on where it was stopped" in done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["picture0.png", "picture1.png"]
    assert all(inspect_picture(path).width == 64 for path in out.iterdir())


def test_no_command_is_wrong_usage():
    assert run().exit_code == EXIT_USAGE


def test_a_mixed_folder_restored_onto_itself_tells_each_reason(model, tmp_path):
    folder = tmp_path / "mx"
    for name in ("1.jpg", "2.png"):
        write_picture_of(folder / name)
    words = ("restore", folder, "-o", folder, "--format", "png", "--model", model)
    first = run(*words)
    assert first.exit_code == EXIT_WELL, first.stderr
    itself = "would replace itself: choose another output, or give --overwrite"
    assert f"skipped {folder / '2.png'}: {itself}" in first.stdout
    assert "1 skipped picture has the format asked for and would replace itself" in first.stdout
    assert "target exists" not in first.stdout

    second = run(*words)
    assert "3 skipped" in second.stdout
    assert "1 skipped picture would replace one among the sources" in second.stdout
    assert "restores it again" not in second.stdout  # --overwrite would not
    assert "1 skipped picture is taken for what another beside it became" in second.stdout
    assert "1 of them" not in second.stdout

    # What may be a picture of its own is not replaced, and nothing has gone wrong.
    made = (folder / "1.png").read_bytes()
    third = run(*words, "--overwrite")
    assert third.exit_code == EXIT_WELL, third.stderr
    assert "1 restored, 2 skipped" in third.stdout
    assert "1 skipped picture would replace one among the sources" in third.stdout
    assert (folder / "1.png").read_bytes() == made
    planned = run(*words, "--dry-run").stdout
    assert f"would skip {folder / '2.png'} -> {folder / '2.png'}: would replace itself" in planned


def write_picture_of(path):
    path.parent.mkdir(exist_ok=True)
    write_picture(path, picture(shift=float(len(path.name) + ord(path.name[0]))))
