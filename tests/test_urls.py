"""Commands whose pictures, models and results are named by URLs."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from commands import run, run_python
from pictures import write_pictures
from test_remote import MEMORY, serve_folder
from world import write_random, write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.files.model import read_model
from urushi.image import write_picture
from urushi.inference.ahead_of_use import AheadOfUse
from urushi.inference.staged import Staged
from urushi.remote import Place, store


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    MEMORY.store.clear()
    MEMORY.pseudo_dirs[:] = [""]
    yield
    MEMORY.store.clear()
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures, and the same in the store as `memory://in/`."""
    folder = tmp_path / "photos"
    write_pictures(folder, 3)
    write_pictures(folder / "more", 1, suffix=".tif")
    upload(folder, "/in")
    return folder


def upload(folder, to):
    for path in folder.rglob("*.*"):
        MEMORY.pipe(f"{to}/{path.relative_to(folder).as_posix()}", path.read_bytes())


def below(folder):
    return {name[len(folder) :]: MEMORY.cat(name) for name in MEMORY.find(folder)}


def files_below(folder):
    return {
        f"/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file()
    }


def test_a_store_becomes_what_a_folder_becomes(photos, model, tmp_path):
    MEMORY.pipe("/in/notes.txt", b"no picture")
    MEMORY.pipe("/in/raw.cr2", b"no picture that is read")
    local = run("restore", photos, "-o", tmp_path / "out", "--model", model, "--compare")
    assert local.exit_code == EXIT_WELL
    result = run("restore", "memory://in/", "-o", "memory://out/", "--model", model, "--compare")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert below("/out") == files_below(tmp_path / "out")
    assert "restored memory://in/more/picture0.tif -> memory://out/more/picture0.tif" in (
        result.stdout
    )
    assert "before/after sheets: 4 in memory://out/compare" in result.stdout
    assert "raw.cr2" in result.stderr

    again = run("restore", "memory://in/", "-o", "memory://out/", "--model", model, "--json")
    document = json.loads(again.stdout)
    assert (document["restored"], document["skipped"]) == (0, 4)
    assert document["files"][0]["target"] == "memory://out/more/picture0.tif"
    assert document["left_out"] == ["memory://in/raw.cr2"]


def test_here_and_there_mix(photos, model, tmp_path):
    out = tmp_path / "out"
    assert run("restore", "memory://in/", "-o", out, "--model", model).exit_code == EXIT_WELL
    assert run("restore", photos, "-o", "memory://out/", "--model", model).exit_code == EXIT_WELL
    assert below("/out") == files_below(out)
    one = run("restore", "memory://in/picture0.png", "--model", model)
    assert "memory://in/picture0_restored.png" in one.stdout
    named = run("restore", "memory://in/picture0.png", "-o", "memory://new/a.png", "--model", model)
    assert named.exit_code == EXIT_WELL
    assert MEMORY.cat("/new/a.png") == MEMORY.cat("/out/picture0.png")
    pattern = run("restore", "memory://in/**/*.tif", "-o", "memory://tif/", "--model", model)
    assert pattern.exit_code == EXIT_WELL
    assert list(below("/tif")) == ["/more/picture0.tif"]


def test_a_dry_run_touches_nothing(photos, model):
    MEMORY.pipe("/out/picture0.png", b"there")
    before = dict(below("/"))
    result = run("restore", "memory://in/", "-o", "memory://out/", "--model", model, "--dry-run")
    assert result.exit_code == EXIT_WELL
    assert "would skip memory://in/picture0.png -> memory://out/picture0.png" in result.stdout
    assert "would restore memory://in/picture1.png" in result.stdout
    assert dict(below("/")) == before


def test_a_store_that_fails_now_and_then_is_waited_for(photos, model, tmp_path, monkeypatch):
    run("restore", photos, "-o", tmp_path / "out", "--model", model)
    seen, lock = set(), threading.Lock()

    def failing_once(name):
        real = getattr(type(MEMORY), name)

        def call(self, one, other, **options):
            with lock:
                first = (name, str(one)) not in seen
                seen.add((name, str(one)))
            if first and name == "get_file":
                real(self, one, other, **options)
                with open(other, "r+b") as file:
                    file.truncate(10)
                return
            if first:
                raise OSError(16, "SlowDown")
            real(self, one, other, **options)

        monkeypatch.setattr(type(MEMORY), name, call)

    failing_once("get_file")
    failing_once("put_file")
    result = run("restore", "memory://in/", "-o", "memory://out/", "--model", model, "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert below("/out") == files_below(tmp_path / "out")
    for file in json.loads(result.stdout)["files"]:
        fetched, written = file["notes"][-2:]
        assert fetched.startswith(f"{file['source']} was fetched at try 2")
        assert written.startswith(f"{file['target']} was written at try 2")


def test_what_fails_is_told_and_stops_nothing(photos, model, monkeypatch):
    MEMORY.pipe("/in/broken.png", b"no picture")
    real = type(MEMORY).put_file

    def refusing(self, one, other, **options):
        if "picture1" in other:
            raise PermissionError("Access Denied")
        real(self, one, other, **options)

    monkeypatch.setattr(type(MEMORY), "put_file", refusing)
    result = run("restore", "memory://in/", "-o", "memory://out/", "--model", model)
    assert result.exit_code == EXIT_FAILED
    assert sorted(below("/out")) == ["/more/picture0.tif", "/picture0.png", "/picture2.png"]
    assert "failed: 'memory://in/broken.png' is not a picture" in result.stderr
    assert (
        "failed: memory://out/picture1.png cannot be written, because the store refuses it "
        "(Access Denied)" in result.stderr
    )
    none = run("restore", "memory://in/none.png", "-o", "memory://out/", "--model", model)
    assert none.exit_code == EXIT_FAILED
    assert "memory://in/none.png is not there: check the name" in none.stderr
    empty = run("restore", "memory://nothing/", "-o", "memory://out/", "--model", model)
    assert "no pictures in memory://nothing/" in empty.stderr


def test_web_servers_are_sources_and_no_targets(photos, model, tmp_path):
    run("restore", photos, "-o", tmp_path / "out", "--model", model)
    with serve_folder(photos) as url:
        options = ("-o", "memory://out/", "--model", model)
        result = run("restore", f"{url}/", *options)
        assert result.exit_code == EXIT_WELL, result.stderr
        assert below("/out") == files_below(tmp_path / "out")
        signed = f"{url}/picture0.png?Signature=geheim"
        one = run("restore", signed, "-o", "memory://one/", "--model", model, "--json")
        assert one.exit_code == EXIT_WELL, one.stderr
        assert json.loads(one.stdout)["files"][0]["source"] == f"{url}/picture0.png"
        assert "geheim" not in one.stdout + one.stderr
        refused = run("restore", photos, "-o", f"{url}/out/", "--model", model)
        assert refused.exit_code == EXIT_USAGE
        assert "web server, which is only read" in refused.stderr


def test_secrets_in_urls_are_never_told(model, tmp_path):
    for url in ("s3://KEY:se/cret@bucket/in/", "https://me:secret@127.0.0.1:9/a.png?sig=secret"):
        result = run("restore", url, "-o", tmp_path / "out", "--model", model)
        assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
        assert "cret" not in result.stdout + result.stderr
        assert "***@" in result.stderr


def test_names_that_no_file_here_can_have_stay_below_the_folder(photos, model, tmp_path):
    source = next(photos.glob("*.png")).read_bytes()
    for name in ("n" * 230 + ".png", "a//up.png", "a/../../../hidden.png"):
        MEMORY.pipe(f"/odd/{name}", source)
    result = run("restore", "memory://odd/", "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == EXIT_WELL, result.stderr
    made = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.png")]
    assert len(made) == 2
    assert not list(tmp_path.rglob("hidden.png"))


def test_models_and_adapters_are_fetched_once(photos, model, tmp_path):
    adapter = tmp_path / "mine.safetensors"
    write_random(adapter, read_model(model))
    upload(model.parent, "/models")
    MEMORY.pipe("/models/mine.safetensors", adapter.read_bytes())
    source = photos / "picture0.png"
    local = ("--model", model, "--adapter", f"{adapter}:0.5")
    run("restore", source, "-o", tmp_path / "a.png", *local)
    by_url = (
        "--model", "memory://models/tiny.safetensors",
        "--adapter", "memory://models/mine.safetensors:0.5",
    )  # fmt: skip
    first = run("restore", source, "-o", tmp_path / "b.png", *by_url)
    assert first.exit_code == EXIT_WELL, first.stderr
    assert "fetching memory://models/mine.safetensors" in first.stdout
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    second = run("restore", source, "-o", tmp_path / "c.png", *by_url)
    assert "fetching" not in second.stdout
    write_random(adapter, read_model(model), seed=5)
    MEMORY.pipe("/models/mine.safetensors", adapter.read_bytes())
    third = run("restore", source, "-o", tmp_path / "d.png", *by_url)
    assert "fetching memory://models/mine.safetensors" in third.stdout
    assert (tmp_path / "d.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    gone = run(
        "restore", source, "-o", tmp_path / "e.png", "--model", "memory://models/no.safetensors"
    )
    assert "memory://models/no.safetensors is not there" in gone.stderr


def test_inspect_shows_what_a_url_names(photos, model):
    upload(model.parent, "/models")
    result = run("inspect", "memory://models/tiny.safetensors")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "memory://models/tiny.safetensors" in result.stdout
    picture = run("inspect", "memory://in/picture0.png", "--json")
    assert json.loads(picture.stdout)["path"] == "memory://in/picture0.png"
    assert run("inspect", "memory://in/none.png").exit_code == EXIT_FAILED


def test_evaluate_measures_pairs_of_a_store(tmp_path):
    values = np.random.default_rng(0).random((3, 24, 24, 3), dtype=np.float32)
    for number, value in enumerate(values):
        for side, pixels in (("input", 0.9 * value), ("target", value)):
            (tmp_path / "pairs" / side).mkdir(parents=True, exist_ok=True)
            write_picture(tmp_path / "pairs" / side / f"{number}.png", pixels)
    upload(tmp_path / "pairs", "/pairs")
    asked = ("evaluate", "--as-is", "--json", "memory://out/scores.json")
    result = run(*asked, "--pairs", "memory://pairs/")
    assert result.exit_code == EXIT_WELL, result.stderr
    assert len(json.loads(MEMORY.cat("/out/scores.json"))["results"][0]["pictures"]) == 3
    assert "scores: memory://out/scores.json" in result.stdout
    taken = run(*asked, "--inputs", "memory://pairs/input", "--targets", "memory://pairs/target")
    assert taken.exit_code == EXIT_FAILED
    assert "'memory://out/scores.json' exists already" in taken.stderr
    MEMORY.rm("/pairs/input/2.png")
    MEMORY.rm("/pairs/target/2.png")
    run(*asked, "--pairs", "memory://pairs/", "--overwrite")
    assert len(json.loads(MEMORY.cat("/out/scores.json"))["results"][0]["pictures"]) == 2


def test_local_paths_do_without_fsspec(photos, model, tmp_path):
    code = (
        "import sys\n"
        "from urushi.app.cli import command_line\n"
        "from typer.testing import CliRunner\n"
        "made = CliRunner().invoke(command_line(['restore', 'inspect']), sys.argv[1:])\n"
        "assert made.exit_code == 0, made.output\n"
        "print('fsspec' in sys.modules, 'aiohttp' in sys.modules)\n"
    )
    source = photos / "picture0.png"
    done = run_python(code, "restore", source, "-o", tmp_path / "a.png", "--dry-run")
    assert done.stdout.strip() == "False False", done.stderr


def test_few_files_lie_here_at_a_time(tmp_path):
    sizes = {tmp_path / f"{number}.png": 10 for number in range(30)}
    here = []

    def copy(path):
        path.write_bytes(bytes(10))
        here.append(10 * sum(name.endswith(".png") for name in os.listdir(tmp_path)))

    files = AheadOfUse(sizes.items(), copy, room=35)
    for path in sizes:
        assert files.bring(path)
        files.drop(path)
    files.close()
    assert max(here) <= 35
    assert list(tmp_path.glob("*.png")) == []


def test_targets_are_listed_when_they_are_many(monkeypatch, photos):
    from urushi.inference import staged as module

    monkeypatch.setattr(module, "_ASKED_ONE_BY_ONE", 1)
    MEMORY.pipe("/out/b.png", b"1")
    staged = Staged(["memory://in/"], "memory://out/")
    root = staged.output.rstrip("/")
    assert [staged.exists(Path(root, name)) for name in ("a.png", "b.png", "c.png")] == [
        False, True, False,
    ]  # fmt: skip
    assert staged.place_of(Path(root, "b.png")) == Place.of("memory://out/b.png")
