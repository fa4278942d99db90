"""What `--dry-run` says of a file is what the real run says; and formats that cannot be written."""

import json

import numpy as np
import pytest
from commands import run
from networks import darkening
from pictures import write_pictures
from PIL import Image
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import TargetError
from urushi.image import libvips, target
from urushi.inference import foretold as telling
from urushi.inference import jobs
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.jobs import suffix_of_format

DONE = {"restore": "restored", "skip": "skipped", "fail": "failed"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture
def photo(tmp_path):
    (path,) = write_pictures(tmp_path / "in", 1)
    return path


CASES = {
    "missing": ("no.png", "-o", "out.png"),
    "empty": ("empty.png", "-o", "out.png"),
    "words": ("words", "-o", "out.png"),
    "one of two": ("in", "words", "-o", "new"),
    "cut": ("cut.png", "-o", "out.png"),
    "huge": ("in/picture0.png", "-o", "out.png", "--max-pixels", "10"),
    "page": ("in/picture0.png", "-o", "out.png", "--pages", "3"),
    "transparent": ("clear.png", "-o", "out.jpg"),
    "format": ("in/picture0.png", "-o", "out.bmp"),
    "in place": ("in/picture0.png", "-o", "in/picture0.png"),
    "pages lost": ("two.tif", "-o", "two.tif", "--overwrite", "--pages", "1"),
    "below a file": ("in/picture0.png", "-o", "words/below/"),
}
WELL = {
    "no folder": ("in/picture0.png", "-o", "new/deep/out.png"),
    "a folder's name": ("in/picture0.png", "-o", "folder.png"),
    "there": ("in/picture0.png", "-o", "two.tif"),
    "replaced": ("in/picture0.png", "-o", "two.tif", "--overwrite"),
    "well": ("in/picture0.png", "-o", "out.png"),
}


@pytest.mark.parametrize("case", [*CASES, *WELL])
def test_a_dry_run_says_what_the_real_one_says(tmp_path, photo, model, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words").write_bytes(b"words that are no picture at all")
    (tmp_path / "cut.png").write_bytes(photo.read_bytes()[:20])
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.full((8, 9, 4), 128, np.uint8)).save(tmp_path / "clear.png")
    page = Image.new("L", (9, 8))
    page.save(tmp_path / "two.tif", save_all=True, append_images=[page])
    before = sorted(tmp_path.rglob("*"))
    told = []
    for more in ("--dry-run", "--quiet"):
        words = ("--model", model, "--engine", "torch", "--json", more)
        result = run("restore", *{**CASES, **WELL}[case], *words)
        files = json.loads(result.stdout)["files"] if result.stdout else []
        told.append((result.exit_code, [(file["source"], file["message"]) for file in files]))
        if more == "--dry-run":
            assert sorted(tmp_path.rglob("*")) == before
            stated = [file["would"] for file in files]
    assert told[0] == told[1]
    assert told[0][0] == (
        {"format": EXIT_USAGE}.get(case, EXIT_FAILED) if case in CASES else EXIT_WELL
    )
    assert [file["status"] for file in files] == [DONE[one] for one in stated]


def test_a_dry_run_writes_nothing(tmp_path, photo, model):
    left = photo.parent / ".a-01234567.urushi.part"
    left.touch()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    words = ("restore", photo, "-o", tmp_path / "in" / "b.png", "--model", model, "--dry-run")
    assert run(*words).exit_code == EXIT_WELL
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_folders_without_the_right_to_write_are_told(tmp_path, photo, model, monkeypatch):
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(telling, "_writable", lambda folder: folder.name != "locked")
    for out, word in (("locked/a.png", "permission denied"), ("locked/new/", "Permission denied")):
        words = ("restore", photo, "-o", f"{tmp_path}/{out}", "--model", model, "--dry-run")
        result = run(*words)
        assert result.exit_code == EXIT_FAILED
        assert "would fail" in result.stdout
        assert word in result.stdout


def test_a_pipe_is_not_read(tmp_path, model):
    words = ("restore", "-", "-o", tmp_path / "a.png", "--model", model, "--dry-run")
    result = run(*words)
    assert (result.exit_code, "would restore -" in result.stdout) == (EXIT_WELL, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("-", "-o", "-"), "would restore - -> -\n"),
        (("in/picture0.png", "-o", "-", "--format", "webp"), "restore in/picture0.png -> -\n"),
        (("no.png", "-o", "/dev/stdout"), "would fail no.png -> -: 'no.png' does not exist"),
        (("-", "-o", "new/", "--format", "jpg"), "would restore - -> new/stdin.jpg\n"),
        (("-", "in", "-o", "new/"), "would restore - -> new/stdin.*\n"),
        (("-",), "a picture from a pipe needs a place"),
        (("in", "-o", "-"), "one picture can be written to standard output"),
        (("in/*.png", "-o", "-"), "one picture can be written to standard output"),
    ],
    ids=str,
)
def test_what_goes_through_a_pipe_is_called_so(tmp_path, photo, model, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    result = run("restore", *words, "--model", model, "--dry-run")
    assert told in result.output
    assert "-/" not in result.output


def test_a_quiet_dry_run_tells_failures(tmp_path, photo, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("restore", "in", "no.png", "-o", "new", "--model", model, "--dry-run", "--quiet")
    result = run(*words)
    assert (result.exit_code, result.stdout) == (EXIT_FAILED, "")
    assert result.stderr.startswith("would fail no.png -> new/no.png: 'no.png' does not exist")
    assert result.stderr.count("\n") == 1


@pytest.fixture
def without(monkeypatch):
    """A libvips that writes no WebP."""
    able = libvips.can_write
    for module in (target, jobs):
        monkeypatch.setattr(module, "can_write", lambda name: name != "webp" and able(name))


def test_what_cannot_be_written_here_is_told_before_any_work(tmp_path, photo, model, without):
    restorer = darkening()
    restorer.engine.run = lambda batch: pytest.fail("it has been restored")
    report = run_batch(restorer, plan_batch([photo], tmp_path / "a.webp"))
    (result,) = report.results
    assert result.status == "failed"
    assert "has no WebP encoder: choose another format, one of jpg, png, tif" in result.message
    dry = run("restore", photo, "-o", tmp_path / "a.webp", "--model", model, "--dry-run")
    assert (dry.exit_code, "has no WebP encoder" in dry.stdout) == (EXIT_FAILED, True)
    for more in ((), ("--dry-run",)):
        asked = run("restore", photo, "--format", "webp", "-o", f"{tmp_path}/out/", *more)
        assert asked.exit_code == EXIT_FAILED
        assert "format 'webp' is not written by the libvips that is installed" in asked.stderr
    with pytest.raises(TargetError, match=r"expected one of jpg, .*png(?!.*webp)"):
        suffix_of_format("webp")


def test_what_cannot_be_read_is_told_rather_than_another_format(tmp_path, without):
    (tmp_path / "a.webp").write_bytes(b"RIFF....WEBP and nothing more")
    report = run_batch(darkening(), plan_batch([tmp_path / "a.webp"], tmp_path / "b.webp"))
    assert "a.webp" in report.results[0].message
    assert "encoder" not in report.results[0].message


def test_others_of_a_folder_are_restored(tmp_path, without):
    write_pictures(tmp_path / "in", 2)
    Image.new("RGB", (9, 8)).save(tmp_path / "in" / "c.webp")
    report = run_batch(darkening(), plan_batch([tmp_path / "in"], tmp_path / "out"))
    assert (report.count("restored"), report.count("failed")) == (2, 1)
