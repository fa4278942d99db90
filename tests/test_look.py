"""`urushi restore --look`: a sheet of what would be done, and nothing restored."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import run
from pictures import Page, picture, write_pictures, write_tiff
from PIL import Image
from world import SEEN

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import TargetError
from urushi.image import read_picture, write_picture
from urushi.inference import look_sheet
from urushi.inference.auto import AutoRestorer
from urushi.inference.jobs import plan_batch
from urushi.inference.look import Looked, Looking, look_at
from urushi.inference.look_sheet import LookSheets, is_look_sheet, sheet_path
from urushi.inference.naming import Found
from urushi.inference.picture_files import FileOptions
from urushi.sheet import is_sheet, write_sheet


@pytest.fixture(scope="module")
def auto(world):
    return AutoRestorer(world / "all-in-one.safetensors", engine="torch", device="cpu")


@pytest.fixture
def here(tmp_path, monkeypatch):
    write_pictures(tmp_path / "photos", 2)
    write_pictures(tmp_path / "photos" / "more", 1, suffix=".tif")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def look(world, *words):
    router = ("--router", world / "all-in-one.safetensors", "--engine", "torch")
    return run("restore", *words, "--look", *router, "--device", "cpu")


def one(path, name=None):
    return Found(path, Path(name or path.name), named=True)


def size_of(path):
    with Image.open(path) as sheet:
        return sheet.size


def flat(text):
    return " ".join(text.replace("│", " ").split())


# --- what it does ---


def test_nothing_is_written_where_no_place_is_given(world, here):
    before = set(here.rglob("*"))
    result = look(world, "photos")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert set(here.rglob("*")) == before
    lines = result.stdout.splitlines()
    assert lines[3].endswith(f": {SEEN} expert 3")
    assert lines[4] == "nothing was restored; -o NAME.jpg draws a sheet of this"
    document = json.loads(look(world, "photos", "--json").stdout)
    assert (document["looked_at"], document["sheets"]) == (3, [])
    assert set(here.rglob("*")) == before


def test_a_sheet_is_written_and_nothing_restored(world, here):
    before = set(here.rglob("*"))
    result = look(world, "photos", "-o", ".")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert set(here.rglob("*")) - before == {here / "urushi_look.jpg"}
    assert is_sheet(here / "urushi_look.jpg")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"[1/3] photos/picture0.png: {SEEN} (")
    assert lines[3].startswith("3 looked at in ")
    assert lines[3].endswith(f": {SEEN} expert 3")
    assert lines[4] == "sheet: urushi_look.jpg; nothing was restored"
    assert len(lines) == 5


def test_it_says_what_restoring_says(world, here):
    seen = json.loads(look(world, "photos", "-o", ".", "--json").stdout)
    router = ("--router", world / "all-in-one.safetensors", "--engine", "torch")
    words = ("restore", "photos", "-o", "out", "--json", *router, "--device", "cpu")
    done = json.loads(run(*words).stdout)
    assert [row["router"] for row in seen["files"]] == [row["router"] for row in done["files"]]
    assert [row["source"] for row in seen["files"]] == [row["source"] for row in done["files"]]
    assert seen["looked_at"] == 3
    assert seen["sheets"] == ["urushi_look.jpg"]


def test_rules_of_the_router_hold_and_suggestions_are_told(world, here):
    result = look(world, "photos", "--threshold", 0.999, "--json")
    document = json.loads(result.stdout)
    assert document["suggestions"][0]["task"] == SEEN
    assert len(document["suggestions"][0]["files"]) == 3
    assert all(row["router"]["route"] == {} for row in document["files"])
    assert (
        f"3 pictures look hazy but would be left alone: --task {SEEN}, if so, for" in result.stderr
    )
    assert "base alone 3" in result.stderr


def test_what_cannot_be_read_is_named_on_the_sheet_and_beside_it(world, here):
    whole = look(world, "photos", "-o", "whole.png")
    assert whole.exit_code == EXIT_WELL
    (here / "photos" / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    result = look(world, "photos", "none.png", "-o", "a.png", "--json")
    assert result.exit_code == EXIT_FAILED
    document = json.loads(result.stdout)
    assert (document["looked_at"], document["failed"]) == (3, 2)
    assert [row["status"] for row in document["files"]].count("failed") == 2
    for name in ("broken.jpg", "none.png"):
        assert sum(name in line and "failed" in line for line in result.stderr.splitlines()) == 1

    # Drawn in the colour of failures, which is nowhere else but in the legend.
    def red(path):
        with Image.open(here / path) as sheet:
            pixels = np.asarray(sheet)
        return (np.abs(pixels.astype(int) - look_sheet._FAILED).max(2) < 3).sum()

    assert red("a.png") > red("whole.png") + 2 * look_sheet._WIDTH


def test_quiet_says_only_what_failed(world, here):
    (here / "photos" / "empty.png").touch()
    result = look(world, "photos", "-q", "-o", ".")
    assert result.exit_code == EXIT_FAILED
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert (here / "urushi_look.jpg").exists()


def test_pages_are_looked_at_one_by_one(world, here):
    scans = [(255 * picture(shift=k)[..., 0]).astype(np.uint8) for k in range(3)]
    write_tiff(here / "scan.tif", *map(Page, scans))

    def pages(*words):
        result = look(world, "scan.tif", "--json", "--overwrite", *words)
        assert result.exit_code == EXIT_WELL, result.stderr
        return [row["page"] for row in json.loads(result.stdout)["files"]]

    assert pages() == [1, 2, 3]
    assert pages("--pages", "2-3") == [2, 3]
    # As a PNG takes only the first, which is told.
    assert pages("--format", "png") == [None]
    assert look(world, "scan.tif", "--overwrite", "--pages", "7").exit_code == EXIT_FAILED


def test_a_picture_from_a_pipe_is_looked_at(world, here):
    os.mkfifo(here / "pipe")
    source = here / "photos" / "picture0.png"
    writer = threading.Thread(target=lambda: (here / "pipe").write_bytes(source.read_bytes()))
    writer.start()
    result = look(world, "pipe", "--json", "-o", ".")
    writer.join()
    assert result.exit_code == EXIT_WELL, result.stderr
    assert json.loads(result.stdout)["files"][0]["source"] == "pipe"
    assert "[1/1] pipe: " in result.stderr
    assert "/urushi-" not in result.output
    assert (here / "urushi_look.jpg").exists()


def test_an_interruption_leaves_a_sheet_of_what_was_seen(world, here, monkeypatch):
    plain, seen = AutoRestorer.choose_rows, []

    def stopped(self, *args):
        seen.append(args)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(AutoRestorer, "choose_rows", stopped)
    result = look(world, "photos", "--json", "-o", ".")
    assert result.exit_code == 130
    document = json.loads(result.stdout)
    assert (document["interrupted"], document["looked_at"]) == (True, 2)
    assert "interrupted: this is what was looked at before" in result.stderr
    assert is_sheet(here / "urushi_look.jpg")


# --- names ---


def test_nothing_is_replaced_unasked(world, here):
    (here / "urushi_look.jpg").write_bytes(b"mine")
    result = look(world, "photos", "-o", ".")
    assert result.exit_code == EXIT_FAILED
    assert "exists already" in result.stderr
    # Nobody gave that name, so that --overwrite is for sheets.
    result = look(world, "photos", "-o", ".", "--overwrite")
    assert "is no sheet of Urushi" in flat(result.stderr)
    assert (here / "urushi_look.jpg").read_bytes() == b"mine"
    (here / "named.png").write_bytes(b"mine")
    assert look(world, "photos", "-o", "named.png").exit_code == EXIT_FAILED
    assert (here / "named.png").read_bytes() == b"mine"
    assert look(world, "photos", "-o", "named.png", "--overwrite").exit_code == EXIT_WELL
    assert is_sheet(here / "named.png")
    with Image.open(here / "named.png") as sheet:
        assert sheet.format == "PNG"


def test_a_picture_is_never_replaced_by_the_sheet_of_it(world, here):
    before = (here / "photos" / "picture0.png").read_bytes()
    words = ("photos", "-o", "photos/picture0.png", "--overwrite")
    result = look(world, *words)
    assert result.exit_code == EXIT_FAILED
    assert "the sheet would replace it" in flat(result.stderr)
    assert (here / "photos" / "picture0.png").read_bytes() == before


def test_a_sheet_is_no_picture_to_restore(world, here):
    for name in ("photos/urushi_look.jpg", "photos/mine.png"):
        for words in ((), ("--overwrite",)):
            result = look(world, "photos", "-o", name, *words, "--json")
            assert result.exit_code == EXIT_WELL, result.stderr
            assert len(json.loads(result.stdout)["files"]) == 3
        (here / "photos" / "mine.png").unlink(missing_ok=True)
    # The next command passes it over, too; but not a photograph of that name.
    assert len(plan_batch(["photos"], "out")) == 3
    assert len(plan_batch(["photos/*.*"], "out")) == 2
    write_picture(here / "photos" / "urushi_look-2.jpg", picture())
    assert not is_look_sheet(here / "photos" / "urushi_look-2.jpg")
    assert len(plan_batch(["photos"], "out")) == 4


@pytest.mark.parametrize(
    ("output", "path", "named"),
    [
        (".", "urushi_look.jpg", False),
        ("there", "there/urushi_look.jpg", False),
        ("new", "new/urushi_look.jpg", False),
        ("new.v2/", "new.v2/urushi_look.jpg", False),
        ("a.JPG", "a.JPG", True),
        ("b/a.png", "b/a.png", True),
    ],
)
def test_where_a_sheet_goes(tmp_path, monkeypatch, output, path, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert sheet_path(output) == (Path(path), named)


def test_a_sheet_has_the_name_of_one():
    with pytest.raises(TargetError, match=r"'a\.tif' is not a name for a sheet"):
        sheet_path("a.tif")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--dry-run",), "--dry-run looks at no picture"),
        (("--compare",), "--compare shows results"),
        (("--task", SEEN), f"--task {SEEN} says it"),
        (("-o", "-"), "--look writes a sheet"),
        (("-o", "-", "--json"), "--look writes a sheet"),
    ],
)
def test_what_goes_not_with_it_is_told(world, here, words, said):
    result = look(world, "photos", *words)
    assert result.exit_code == EXIT_USAGE
    assert said in flat(result.stderr)
    assert not (here / "urushi_look.jpg").exists()


def test_it_is_for_routers(world, here):
    result = run("restore", "photos", "--look", "--model", world / "tiny.safetensors")
    assert result.exit_code == EXIT_USAGE
    assert "--look is for a router" in flat(result.stderr)


# --- the sheet ---


def test_many_pictures_take_several_sheets(monkeypatch, here):
    monkeypatch.setattr(look_sheet, "PER_SHEET", 2)
    items = [one(Path(f"{n}.png")) for n in range(5)]
    sheets = LookSheets(here / "s.jpg", items, overwrite=False, named=True)
    for item in items:
        sheets.add(Looked(item.source, item.source.name, message="it is broken"))
    assert sheets.finish() == [here / "s.jpg", here / "s-2.jpg", here / "s-3.jpg"]
    first, second, last = map(size_of, sheets.written)
    assert first == second
    assert last[1] <= first[1]
    # All names have to be free before anything is looked at.
    (here / "s.jpg").unlink()
    with pytest.raises(TargetError, match=r"s-2\.jpg.*exists already"):
        LookSheets(here / "s.jpg", items, overwrite=False, named=True)


def test_names_of_any_kind_are_drawn(auto, here):
    looked = [
        Looked(Path("x"), name, message="y" * 2000)
        for name in ("a\nb\x1b[31m\udcff", "雪" * 200, "m" * 400 + ".jpg", "")
    ]
    sheets = LookSheets(here / "s.jpg", [one(Path("x"))], overwrite=False, named=True)
    for row in looked:
        sheets.add(row)
    (path,) = sheets.finish()
    assert size_of(path)[0] < 2000


def test_several_experts_and_parts_are_told(auto):
    def done(*route):
        return look_sheet.would_be_done(type(auto.choose(picture()))(route, ""))

    assert done() == "base alone"
    assert done(("noise", 1.0)) == "noise expert"
    assert done(("noise", 0.583)) == "noise expert, in part (58 %)"
    assert done(("noise", 0.6), ("haze", 0.25)) == "noise and haze experts"
    assert look_sheet.would_be_done(None) == "cannot be read"


# --- looking ---


@pytest.mark.parametrize("size", [(48, 64), (700, 30), (1, 1500), (1500, 1), (601, 997)])
def test_the_small_picture_is_the_picture_reduced(auto, tmp_path, size):
    pixels = np.random.default_rng(0).random((*size, 3), dtype=np.float32)
    pixels[: size[0] // 2] *= 0.3
    write_picture(tmp_path / "a.png", pixels)
    reading = Looking(most=(100, 80))
    (looked,) = look_at(auto, one(tmp_path / "a.png"), reading)
    assert (looked.height, looked.width) == size
    small = looked.small
    factor = -(-max(size[0] / 80, size[1] / 100) // 1)
    factor = int(min(max(1, factor), *size))
    assert small.shape[:2] == (size[0] // factor, size[1] // factor)
    whole = read_picture(tmp_path / "a.png")[: small.shape[0] * factor, : small.shape[1] * factor]
    means = whole.reshape(small.shape[0], factor, small.shape[1], factor, 3).mean((1, 3))
    assert np.abs(small / 255 - means).max() < 0.004
    assert looked.choice.describe() == auto.choose_file(tmp_path / "a.png").describe()


def test_a_picture_is_read_once(auto, tmp_path, monkeypatch):
    from urushi.image.reader import PictureReader

    write_pictures(tmp_path, 1, height=900)
    rows = []
    plain = PictureReader.read

    def counted(self, count):
        found = plain(self, count)
        rows.append(len(found))
        return found

    monkeypatch.setattr(PictureReader, "read", counted)
    (looked,) = look_at(auto, one(tmp_path / "picture0.png"), Looking())
    assert looked.choice is not None
    assert sum(rows) == 900


def test_faults_of_one_picture_are_told(auto, tmp_path, monkeypatch):
    write_pictures(tmp_path, 1)
    for error, said in (
        (MemoryError(), "too little memory"),
        (KeyError("x"), "unexpected KeyError"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(auto, "choose_rows", fail)
        (looked,) = look_at(auto, one(tmp_path / "picture0.png"), Looking())
        assert looked.choice is None
        assert said in looked.message
        assert "picture0.png" in looked.message


def test_large_pictures_are_refused_as_told(auto, tmp_path):
    write_pictures(tmp_path, 1)
    (looked,) = look_at(auto, one(tmp_path / "picture0.png"), Looking(FileOptions(max_pixels=10)))
    assert "10" in looked.message
    pages = Looking(FileOptions(pages="3"))
    (looked,) = look_at(auto, one(tmp_path / "picture0.png"), pages)
    assert looked.message


def test_a_sheet_of_either_format_is_known_again(tmp_path):
    for name in ("a.jpg", "a.png"):
        write_sheet(tmp_path / name, np.zeros((8, 8, 3), np.float32))
        assert is_sheet(tmp_path / name)
        write_picture(tmp_path / f"other_{name}", picture())
        assert not is_sheet(tmp_path / f"other_{name}")
