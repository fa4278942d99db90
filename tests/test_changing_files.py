"""Files that change while they are read, names of any bytes, pipes, and names in place."""

import io
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import pyvips
from commands import environment, run
from networks import DarkenEngine, darkening
from pictures import write_pictures
from PIL import Image

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import TargetError, TooLargeError, UnreadableError
from urushi.image import inspect_picture, open_picture, read_picture, write_picture
from urushi.image.formats.decoding import memory_ran_out
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.picture_files import restore_picture
from urushi.inference.restorer import Restorer

ODD = b"caf\xe9.png"


def picture(path, height=40, width=50, alpha=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = np.random.default_rng(height).integers(0, 255, (height, width, 3 + alpha), np.uint8)
    Image.fromarray(rows).save(path)
    return path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- a source that is replaced or shortened meanwhile ---


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_source_replaced_meanwhile_is_told(tmp_path, suffix, alpha):
    alpha = alpha and suffix == ".png"
    source = picture(tmp_path / f"a{suffix}", 300, 60, alpha)
    other = picture(tmp_path / f"b{suffix}", 300, 60, alpha)

    def replace(_done, _total):
        if other.exists():
            other.replace(source)

    with pytest.raises(UnreadableError, match="was replaced or changed"):
        restore_picture(darkening(), source, tmp_path / f"out{suffix}", on_progress=replace)
    assert names(tmp_path) == [source.name]


def test_a_source_replaced_by_another_before_it_is_opened_again(tmp_path):
    source = picture(tmp_path / "a.png", alpha=True)
    info = inspect_picture(source)
    picture(tmp_path / "b.png", alpha=True).replace(source)
    with pytest.raises(UnreadableError, match="was replaced or changed"):
        write_picture(tmp_path / "out.png", np.zeros((40, 50, 3), np.float32), like=info)


# Of each file it reads some rows, or none, shortens it, and reads on.
SHORTENED = """
import os, sys
from urushi.errors import UnreadableError
from urushi.image import open_picture
for path in sys.argv[1:]:
    with open_picture(path) as reader:
        reader.read(8) if os.path.basename(path).startswith("some") else None
        os.truncate(path, 500)
        try:
            while len(reader.read(64)):
                pass
        except UnreadableError as error:
            print(error)
    print("alive after", path)
"""


def test_a_source_shortened_while_it_is_read_ends_nothing(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (1200, 1200, 3), np.uint8)
    paths = []
    for name in ("a.jpg", "p.jpg", "a.webp", "a.tif"):
        for read in ("some", "none"):
            paths.append(tmp_path / f"{read}-{name}")
            options = {"progressive": True} if name == "p.jpg" else {}
            Image.fromarray(pixels).save(paths[-1], **options)
    command = [sys.executable, "-c", SHORTENED, *map(str, paths)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in paths:
        assert f"alive after {path}\n" in done.stdout


def test_two_processes_on_one_output_are_both_well(tmp_path):
    source = picture(tmp_path / "in/a.png")
    jobs = plan_batch([tmp_path / "in"], tmp_path / "out")

    class Elsewhere(DarkenEngine):
        def run(self, batch):
            picture(tmp_path / "out/a.png")
            return super().run(batch)

    report = run_batch(Restorer.from_engine(Elsewhere()), jobs)
    assert report.ok
    assert report.results[0].status == "skipped"
    assert "appeared while" in report.results[0].message
    assert (tmp_path / "out/a.png").read_bytes() == source.read_bytes()


def test_nothing_is_made_for_a_source_that_is_not_there(tmp_path):
    report = run_batch(darkening(), plan_batch([tmp_path / "photos"], tmp_path / "out"))
    assert report.count("failed") == 1
    assert names(tmp_path) == []


# --- the folder of the sources as output, names that meet, links ---


def test_a_folder_restored_onto_itself_in_another_format_is_done_once(tmp_path):
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        picture(tmp_path / name)
    first = run_batch(darkening(), plan_batch([tmp_path], tmp_path, format="png"))
    assert first.count("restored") == 3
    made = names(tmp_path)
    assert made == ["1.jpg", "1.png", "2.jpg", "2.png", "3.jpg", "3.png"]
    (tmp_path / "2.png").unlink()  # as if the first had been interrupted
    second = run_batch(darkening(), plan_batch([tmp_path], tmp_path, format="png"))
    assert (second.count("restored"), second.count("skipped")) == (1, 4)
    assert names(tmp_path) == made
    assert any("taken for what" in result.message for result in second.results)


def test_a_picture_of_the_format_asked_for_costs_no_other(tmp_path):
    """It is left as it is, which is told; the others are restored beside their sources."""
    for name in ("1.jpg", "own.png"):
        picture(tmp_path / name)
    own = (tmp_path / "own.png").read_bytes()
    for done in ("restored", "skipped"):
        report = run_batch(darkening(), plan_batch([tmp_path], tmp_path, format="png"))
        status = {result.source.name: result.status for result in report.results}
        assert (status["1.jpg"], status["own.png"]) == (done, "skipped")
        assert report.ok
    assert any("would replace itself" in result.message for result in report.results)
    assert (tmp_path / "own.png").read_bytes() == own
    assert names(tmp_path) == ["1.jpg", "1.png", "own.png"]


def test_what_cannot_be_a_result_is_a_picture_of_its_own(tmp_path):
    """One of another shape, or older: both are restored, under names that keep the suffix."""
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "a.png", 30)
    picture(tmp_path / "b.jpg")
    os.utime(picture(tmp_path / "b.png"), (1e9, 1e9))
    for done in ("restored", "skipped"):
        report = run_batch(darkening(), plan_batch([tmp_path], tmp_path, format="png"))
        told = {r.source.name: (r.status, r.target.name) for r in report.results}
        for name in ("a.jpg", "a.png", "b.jpg", "b.png"):
            assert told[name] == (done, f"{name.replace('.', '_')}.png")
        assert report.ok


def test_what_may_be_a_picture_of_its_own_is_not_overwritten(tmp_path):
    picture(tmp_path / "a.jpg")
    own = picture(tmp_path / "a.png").read_bytes()
    jobs = plan_batch([tmp_path], tmp_path, format="png", overwrite=True)
    report = run_batch(darkening(), jobs)
    assert (tmp_path / "a.png").read_bytes() == own
    assert report.ok
    assert report.count("skipped") == 2
    assert "may be one of its own" in report.results[0].message


@pytest.mark.parametrize(
    ("given", "format"),
    [
        (("a.png", "a.jpg", "a_png.png"), "webp"),
        (("a.png", "a.jpg", "a_png.png", "a.png.png", "a_jpg.jpg"), "webp"),
        (("a.png", "a.jpg", "a.webp", "a_webp.jpg", "b.jpg"), "webp"),
        (("a.png", "a.jpg", "a_png.png", "b.png"), "png"),
        (("a.bmp", "a.png", "a_bmp.bmp"), "png"),
    ],
    ids=str,
)
def test_a_second_run_finds_what_the_first_has_made(tmp_path, given, format):
    """Whatever names meet; also where a part of it is missing, as after an interruption."""
    for number, name in enumerate(given):
        # Where some have the format asked for, shapes tell what they cannot have become.
        picture(tmp_path / name, 20 if len(given) == 3 and format == "webp" else 20 + 2 * number)
    plan = partial(plan_batch, [tmp_path], tmp_path, format=format)
    first = run_batch(darkening(), plan())
    assert first.ok
    targets = {r.source: r.target for r in first.results if r.status == "restored"}
    made = names(tmp_path)
    for missing in (None, *targets.values()):
        if missing is not None:
            missing.unlink()
        again = run_batch(darkening(), plan())
        assert names(tmp_path) == made
        done = {r.source: r.target for r in again.results if r.status == "restored"}
        assert list(done.values()) == ([] if missing is None else [missing])
        assert done.items() <= targets.items()
        assert again.ok


def test_names_that_meet_twice_are_kept_apart(tmp_path):
    for name in ("a.png", "a.jpg", "a_png.png"):
        picture(tmp_path / "in" / name)
    targets = [
        {job.source.name: job.target.name for job in plan_batch([tmp_path / "in"], tmp_path / "out",
                                                                format="webp")}
        for _ in range(2)
    ]  # fmt: skip
    assert targets[0] == targets[1]
    assert targets[0]["a_png.png"] == "a_png.webp"
    assert len(set(targets[0].values())) == 3


@pytest.mark.parametrize("target", ["loop.png", "nowhere.png"])
def test_a_link_that_leads_nowhere_costs_one_picture(tmp_path, target):
    picture(tmp_path / "in/good.png")
    (tmp_path / "in/loop.png").symlink_to(target)
    report = run_batch(darkening(), plan_batch([tmp_path / "in"], tmp_path / "out"))
    assert (report.count("restored"), report.count("failed")) == (1, 1)
    assert "is a link to a missing file" in report.results[1].message


# --- names of any bytes ---


def write_odd(folder):
    picture(folder / "Großer Hof.png")
    data = (folder / "Großer Hof.png").read_bytes()
    path = os.path.join(os.fsencode(folder), ODD)
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")


@pytest.mark.parametrize("locale", ["UTF-8", "C"])
def test_names_of_any_bytes_keep_them(tmp_path, locale):
    write_odd(tmp_path / "in")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    words = ["restore", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--task", "none"]
    done = subprocess.run(
        [sys.executable, "-m", "urushi", *words, "--compare"],
        env={**environment(), **(plain if locale == "C" else {})},
        capture_output=True,
        check=False,
    )
    assert done.returncode == EXIT_WELL, done.stderr
    out = os.fsencode(tmp_path / "out")
    made = [ODD, "Großer Hof.png".encode(), b"compare"]
    assert sorted(os.listdir(out)) == sorted(made)
    assert b"Traceback" not in done.stderr


def test_scores_and_packs_hold_names_of_any_bytes(tmp_path):
    from urushi.data.pack import pack_pictures

    for side in ("input", "target"):
        write_odd(tmp_path / "pairs" / side)
    scores = tmp_path / "scores.json"
    result = run("evaluate", "--pairs", tmp_path / "pairs", "--as-is", "--json", scores)
    assert result.exit_code == EXIT_WELL, result.stderr
    assert r"caf\\xe9" in scores.read_text()
    pack_pictures([tmp_path / "pairs/input"], tmp_path / "p.safetensors")


# --- pipes ---


def test_a_picture_goes_through_pipes(tmp_path):
    data = picture(tmp_path / "a.png").read_bytes()
    words = [sys.executable, "-m", "urushi", "restore", "--task", "none"]
    settings = {"env": environment(), "cwd": tmp_path, "capture_output": True, "check": False}
    done = subprocess.run([*words, "-", "-o", "-", "--format", "webp"], input=data, **settings)
    assert done.returncode == EXIT_WELL, done.stderr
    assert Image.open(io.BytesIO(done.stdout)).format == "WEBP"
    done = subprocess.run([*words, "/dev/stdin", "-o", "b.png"], input=data, **settings)
    assert done.returncode == EXIT_WELL, done.stderr
    done = subprocess.run([*words, "-", "-o", "-"], input=b"no picture", **settings)
    assert done.returncode == EXIT_FAILED
    assert done.stdout == b""
    assert b"holds no picture" in done.stderr
    assert names(tmp_path) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-o", "-", "--json"), "leave out --json"),
        (("-o", "-", "--compare"), "leave out --json and --compare"),
    ],
)
def test_stdout_is_for_the_picture_alone(tmp_path, words, said):
    result = run("restore", picture(tmp_path / "a.png"), *words)
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_several_pictures_do_not_fit_into_a_pipe(tmp_path):
    write_pictures(tmp_path, 2)
    result = run("restore", tmp_path, "-o", "-", "--task", "none")
    assert result.exit_code == EXIT_USAGE
    assert "one picture can be written" in result.stderr


# --- what decoding takes ---


def test_a_tiny_file_that_asks_for_gigabytes_is_refused(tmp_path):
    path, small = tmp_path / "huge.jpg", io.BytesIO()
    Image.new("RGB", (16, 16)).save(small, "JPEG", progressive=True)
    content = bytearray(small.getvalue())
    size = content.index(b"\xff\xc2") + 5  # height and width, two bytes each
    content[size : size + 4] = (30000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    with pytest.raises(TooLargeError, match=r"5\.4 GB of memory for a file of"):
        inspect_picture(path)
    assert inspect_picture(path, max_pixels=None).width == 30000
    # What streams is bounded by the limit of pixels alone.
    content[size - 5 : size - 3] = b"\xff\xc0"
    path.write_bytes(content)
    assert inspect_picture(path).width == 30000


def test_a_photograph_decoded_whole_is_read(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.webp")
    assert read_picture(tmp_path / "a.webp", max_pixels=64 * 64).shape == (64, 64, 3)


def test_a_shortage_of_memory_is_not_damage(tmp_path, monkeypatch):
    path = picture(tmp_path / "a.png")
    told = pyvips.Error("unable to call pngload", "vips_malloc: out of memory --- size == 3GB")
    assert memory_ran_out(told)
    assert not memory_ran_out(pyvips.Error("unable to call pngload", "bad signature"))

    def failing(*_arguments, **_options):
        raise told

    monkeypatch.setattr("urushi.image.info.open_image", failing)
    with pytest.raises(UnreadableError, match="needs more memory") as raised:
        open_picture(path)
    assert "damaged" not in str(raised.value)


def test_a_shortage_of_memory_costs_one_picture(tmp_path):
    write_pictures(tmp_path / "in", 2)
    report = run_batch(
        darkening(healthy=0, failure=MemoryError()),
        plan_batch([tmp_path / "in"], tmp_path / "out"),
    )
    assert report.count("failed") == 2
    assert all("memory" in result.message for result in report.results)


def test_a_wide_overlap_does_not_lift_the_bound_of_memory():
    engine = DarkenEngine()
    limit = int(600**2 * engine.bytes_per_pixel)
    assert Restorer.from_engine(engine, overlap=250, memory_limit=limit).tile >= 500
    from urushi.errors import EngineError

    with pytest.raises(EngineError, match=r"overlap is 1000 pixels.*allows 300"):
        Restorer.from_engine(engine, overlap=1000, memory_limit=limit)


def test_a_batch_into_a_broken_link_is_refused(tmp_path):
    picture(tmp_path / "in/a.png")
    (tmp_path / "out").symlink_to("nowhere")
    with pytest.raises(TargetError):
        plan_batch([tmp_path / "in"], tmp_path / "out")
