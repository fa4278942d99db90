"""Files into files: one of them, and many, with broken ones among them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from commands import as_nobody
from networks import DarkenEngine, darkening

from urushi.errors import EngineError, PictureError, TargetError, TooLargeError, UnreadableError
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.picture_files import FileOptions, restore_picture
from urushi.inference.restorer import Restorer


def picture(path, height=40, width=50, bits=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(height).random((height, width, 3), dtype=np.float32)
    write_picture(path, rows, bits=bits)
    return path


def files_below(folder):
    return sorted(
        str(path.relative_to(folder)).replace(os.sep, "/")
        for path in folder.rglob("*")
        if path.is_file()
    )


def as_pairs(jobs, root):
    return {
        (
            job.source.relative_to(root).as_posix(),
            job.target.relative_to(root).as_posix(),
        )
        for job in jobs
    }


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    picture(folder / "a.png")
    picture(folder / "deep/er/b.tif")
    picture(folder / "deep/C.JPG")
    (folder / "notes.txt").write_text("no picture")
    picture(folder / ".hidden/d.png")
    picture(folder / "e.png").rename(folder / ".e.png")
    return folder


# One file.


@pytest.mark.parametrize("bits", [8, 16])
def test_a_streamed_file_equals_the_array(tmp_path, bits):
    source = picture(tmp_path / "in.png", 150, 170, bits)
    outcome = restore_picture(darkening(), source, tmp_path / "out.png")
    whole = darkening().restore(read_picture(source))
    full = 2**bits - 1
    expected = np.rint(whole * full).astype(int)
    written = np.rint(read_picture(tmp_path / "out.png") * full).astype(int)
    np.testing.assert_array_equal(written, expected)
    assert (outcome.width, outcome.height, outcome.pixels) == (170, 150, 170 * 150)
    assert outcome.seconds > 0
    assert inspect_picture(tmp_path / "out.png").bits == bits


def test_an_existing_target_is_kept_unless_told(tmp_path):
    source = picture(tmp_path / "in.png")
    target = tmp_path / "out.png"
    target.write_bytes(b"precious")
    with pytest.raises(TargetError):
        restore_picture(darkening(), source, target)
    assert target.read_bytes() == b"precious"
    restore_picture(darkening(), source, target, overwrite=True)
    assert inspect_picture(target).width == 50


def test_a_source_can_be_replaced_by_its_restoration(tmp_path):
    source = picture(tmp_path / "in.png", 150, 60)
    before = read_picture(source)
    restore_picture(darkening(), source, source, overwrite=True)
    np.testing.assert_allclose(read_picture(source), before / 2, atol=0.6 / 255)
    assert files_below(tmp_path) == ["in.png"]


@pytest.mark.parametrize("failure", [EngineError("broken"), KeyboardInterrupt()])
def test_a_failure_midway_leaves_nothing(tmp_path, failure):
    source = picture(tmp_path / "in.png", 300, 60)
    with pytest.raises(type(failure)):
        restore_picture(darkening(healthy=3, failure=failure), source, tmp_path / "out.png")
    assert files_below(tmp_path) == ["in.png"]


def test_a_picture_beyond_the_limit_is_refused(tmp_path):
    source = picture(tmp_path / "in.png")
    with pytest.raises(TooLargeError):
        restore_picture(
            darkening(), source, tmp_path / "out.png", options=FileOptions(max_pixels=1999)
        )
    restore_picture(darkening(), source, tmp_path / "out.png", options=FileOptions(max_pixels=2000))


def test_progress_is_told_in_pixels(tmp_path):
    source = picture(tmp_path / "in.png", 150, 60)
    seen = []
    restore_picture(
        darkening(),
        source,
        tmp_path / "out.png",
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert len(seen) > 1
    assert seen[-1] == (9000, 9000)


# Planning.


def test_a_folder_keeps_its_structure_and_its_formats(photos):
    jobs = plan_batch([photos], photos.parent / "out")
    assert as_pairs(jobs, photos.parent) == {
        ("photos/a.png", "out/a.png"),
        ("photos/deep/C.JPG", "out/deep/C.JPG"),
        ("photos/deep/er/b.tif", "out/deep/er/b.tif"),
    }


@pytest.mark.parametrize("format", ["png", ".PNG"])
def test_a_format_changes_the_suffixes(photos, format):
    jobs = plan_batch([photos], photos.parent / "out", format=format)
    assert {job.target.name for job in jobs} == {"a.png", "C.png", "b.png"}


def test_a_format_keeps_other_spellings_of_itself(photos):
    jobs = plan_batch([photos / "deep"], photos.parent / "out", format="jpeg")
    assert {job.target.name for job in jobs} == {"C.JPG", "b.jpeg"}


def test_an_unknown_format_is_refused(photos):
    with pytest.raises(TargetError, match=r"'bmq'.*png"):
        plan_batch([photos], photos.parent / "out", format="bmq")


def test_an_output_inside_the_input_is_not_read_again(photos):
    output = photos / "mended"
    first = plan_batch([photos], output)
    run_batch(darkening(), first)
    assert {job.source for job in plan_batch([photos], output)} == {job.source for job in first}
    pattern = plan_batch([str(photos / "**/*.png")], output)
    assert as_pairs(pattern, photos) == {("a.png", "mended/a.png")}
    pattern = plan_batch([str(photos / "*")], output)
    assert {job.source.name for job in pattern} == {"a.png", "b.tif", "C.JPG"}


def test_an_output_above_the_input_is_no_reason_to_skip(photos):
    jobs = plan_batch([photos / "deep"], photos)
    assert {job.source.name for job in jobs} == {"C.JPG", "b.tif"}


def test_patterns_are_resolved_here_when_the_shell_did_not(photos):
    jobs = plan_batch([str(photos / "**/*.[tJ]*")], photos.parent / "out")
    assert as_pairs(jobs, photos.parent) == {
        ("photos/deep/C.JPG", "out/deep/C.JPG"),
        ("photos/deep/er/b.tif", "out/deep/er/b.tif"),
    }
    flat = plan_batch([str(photos / "*")], photos.parent / "out")
    assert {job.source.name for job in flat} == {"a.png", "b.tif", "C.JPG"}


def test_a_name_with_pattern_characters_is_a_name(tmp_path):
    source = picture(tmp_path / "scan[1].png")
    jobs = plan_batch([str(source)], tmp_path / "out")
    assert [job.source for job in jobs] == [source]


def test_what_is_named_twice_is_restored_once(photos):
    sources = [photos / "a.png", photos, photos / "deep/../a.png"]
    jobs = plan_batch(sources, photos.parent / "out")
    assert len(jobs) == 3
    assert jobs[0].source == photos / "a.png"


@pytest.mark.parametrize(
    ("output", "target"),
    [
        ("new.jpg", "new.jpg"),
        ("folder", "folder/a.png"),
        ("there.png", "there.png/a.png"),
        ("fresh.tif/", "fresh.tif/a.png"),
        (None, "photos/a_restored.png"),
    ],
)
def test_a_single_file_goes_to_a_file_or_a_folder(photos, output, target):
    root = photos.parent
    (root / "there.png").mkdir()
    place = None if output is None else f"{root}/{output}"
    jobs = plan_batch([photos / "a.png"], place)
    assert as_pairs(jobs, root) == {("photos/a.png", target)}


@pytest.mark.parametrize(
    ("sources", "output", "options", "match"),
    [
        (["photos/a.png"], "out.xyz", {}, r"\.xyz.*\.png"),
        (["photos/a.png"], "out.jpg", {"format": "png"}, "contradicts"),
        (["photos"], "out.png", {}, "folder"),
        (["photos/a.png", "photos/deep/C.JPG"], "out.png", {}, "folder"),
        (["photos"], "photos/a.png", {"overwrite": True}, "folder"),
        (["photos"], "photos/notes.txt", {}, "folder"),
        (["photos"], None, {}, "--output"),
        (["photos/a.png", "photos/deep/C.JPG"], None, {}, "--output"),
        (["photos/a.png"], "photos/a.png", {}, "replace itself"),
        (["photos"], "photos", {}, "replace itself"),
    ],
)
def test_outputs_that_cannot_be_are_refused(photos, sources, output, options, match):
    root = photos.parent
    place = None if output is None else root / output
    with pytest.raises(TargetError, match=match):
        plan_batch([root / source for source in sources], place, **options)


def test_a_folder_may_be_restored_in_place_when_told(photos):
    jobs = plan_batch([photos], photos, overwrite=True)
    assert all(job.source == job.target for job in jobs)
    assert len(jobs) == 3


def test_names_that_would_meet_are_kept_apart(tmp_path):
    for name in ("a.jpg", "a.png", "b.png"):
        picture(tmp_path / "in" / name)
    jobs = plan_batch([tmp_path / "in"], tmp_path / "out", format="png")
    assert {job.target.name for job in jobs} == {"a_jpg.png", "a_png.png", "b.png"}


def test_names_that_meet_for_good_are_refused(tmp_path):
    sources = [picture(tmp_path / folder / "a.png") for folder in ("one", "two")]
    with pytest.raises(TargetError, match=r"both become.*different folders"):
        plan_batch(sources, tmp_path / "out")


def test_one_source_may_not_replace_another(tmp_path):
    picture(tmp_path / "in/x/a.png")
    other = picture(tmp_path / "x/a.png")
    with pytest.raises(TargetError, match="an input as well"):
        plan_batch([tmp_path / "in", other], tmp_path, overwrite=True)


@pytest.mark.parametrize("sources", [[], ["empty"], ["empty/*.png"]])
def test_nothing_to_restore_is_told(tmp_path, sources):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/readme.txt").write_text("nothing")
    with pytest.raises(UnreadableError, match="no pictures"):
        plan_batch([str(tmp_path / source) for source in sources], tmp_path / "out")


# Running.


def test_a_batch_restores_all_and_reports(photos):
    output = photos.parent / "out"
    events = []
    report = run_batch(darkening(), plan_batch([photos], output), on_event=events.append)
    assert files_below(output) == ["a.png", "deep/C.JPG", "deep/er/b.tif"]
    assert report.ok
    assert report.count("restored") == 3
    content = json.loads(json.dumps(report.to_json()))
    assert content["pixels"] == 3 * 2000
    assert {entry["status"] for entry in content["files"]} == {"restored"}
    finished = [event.result for event in events if event.result is not None]
    assert finished == report.results
    assert events[0].index == 0
    assert events[0].result is None
    assert {event.total for event in events} == {3}
    assert any(event.done == event.pixels == 2000 for event in events if event.result is None)


def test_what_is_done_is_skipped_and_redone_when_told(photos):
    output = photos.parent / "out"
    run_batch(darkening(), plan_batch([photos / "deep"], output / "deep"))
    report = run_batch(darkening(), plan_batch([photos], output))
    assert (report.count("restored"), report.count("skipped")) == (1, 2)
    assert report.ok
    assert all("--overwrite" in r.message for r in report.results if r.status == "skipped")
    again = run_batch(darkening(), plan_batch([photos], output, overwrite=True))
    assert again.count("restored") == 3


def test_broken_files_do_not_stop_the_batch(photos):
    (photos / "0.png").write_bytes(b"")
    (photos / "1.png").write_text("this is no picture")
    whole = (photos / "a.png").read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    (photos / "3.png").symlink_to(photos / "nowhere.png")
    output = photos.parent / "out"
    jobs = plan_batch([photos, photos / "missing.png", photos / "notes.txt"], output)
    report = run_batch(darkening(), jobs)
    failed = {result.source.name: result.message for result in report.results if result.message}
    assert set(failed) == {"0.png", "1.png", "2.png", "3.png", "missing.png", "notes.txt"}
    assert all(name in message for name, message in failed.items())
    assert not any("\n" in message for message in failed.values())
    assert files_below(output) == ["a.png", "deep/C.JPG", "deep/er/b.tif"]
    assert not report.ok


def test_an_engine_that_fails_once_costs_one_picture(photos):
    class Hiccup(DarkenEngine):
        def run(self, batch):
            self.healthy -= 1
            if self.healthy == 0:
                raise self.failure
            return batch / 2

    for failure in (EngineError("hiccup"), ZeroDivisionError("hiccup")):
        output = photos.parent / type(failure).__name__
        engine = Hiccup(healthy=2, failure=failure)
        report = run_batch(Restorer.from_engine(engine), plan_batch([photos], output))
        assert (report.count("restored"), report.count("failed")) == (2, 1)
        assert "hiccup" in report.results[1].message
        assert len(files_below(output)) == 2


def test_an_interruption_leaves_no_part_and_can_be_taken_up(photos):
    picture(photos / "b.png", 300, 60)
    output = photos.parent / "out"
    jobs = plan_batch([photos], output)
    report = run_batch(darkening(healthy=3, failure=KeyboardInterrupt()), jobs)
    assert report.interrupted
    assert not report.ok
    assert files_below(output) == ["a.png"]
    assert report.to_json()["interrupted"] is True
    rest = run_batch(darkening(), jobs)
    assert (rest.count("restored"), rest.count("skipped")) == (3, 1)


def test_a_target_folder_that_cannot_be_made_is_told(photos):
    blocked = photos.parent / "out"
    blocked.mkdir()
    (blocked / "deep").write_text("a file where a folder should be")
    report = run_batch(darkening(), plan_batch([photos], blocked))
    assert (report.count("restored"), report.count("failed")) == (1, 2)
    assert all("deep" in r.message for r in report.results if r.status == "failed")


def test_a_folder_that_may_not_be_read_is_told(photos):
    out = photos.parent / "out"
    out.mkdir()
    out.chmod(0o777)
    (photos / "deep").chmod(0)
    try:
        with as_nobody(photos):
            report = run_batch(darkening(), plan_batch([photos], out))
    finally:
        (photos / "deep").chmod(0o755)
    assert (report.count("restored"), report.count("failed")) == (1, 1)
    assert "deep" in report.results[-1].message


def test_options_reach_the_file(tmp_path):
    source = picture(tmp_path / "in.jpg", 64, 64)
    with pytest.raises(PictureError):
        restore_picture(darkening(), source, tmp_path / "x.jpg", options=FileOptions(quality=101))
    sizes = []
    for quality in (30, 95):
        jobs = plan_batch([source], tmp_path / str(quality))
        assert run_batch(darkening(), jobs, options=FileOptions(quality=quality)).ok
        sizes.append(Path(jobs[0].target).stat().st_size)
    assert sizes[0] < sizes[1]
    report = run_batch(
        darkening(), plan_batch([source], tmp_path / "big"), options=FileOptions(max_pixels=10)
    )
    assert report.count("failed") == 1
