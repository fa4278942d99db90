"""`urushi fetch`: released weights by name, from a stand-in of the hub on this computer."""

import hashlib
import io
import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from commands import run
from networks import below, read_golden
from test_lora_ir_files import write_checkpoints

from urushi.convert import releases as module
from urushi.convert.releases import RELEASES, Release, fetch_release, find_release
from urushi.errors import FileFormatError
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import read_model

RELEASE = Release("tiny", "MIT", "https://example.org/tiny", "someone/tiny", "tiny.pth")


@pytest.fixture(autouse=True)
def online(monkeypatch):
    """Other tests of the same process keep the hub's client offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


def checkpoint():
    buffer = io.BytesIO()
    torch.save(below(read_golden("nafnet")[0], "state."), buffer)
    return buffer.getvalue()


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for the files of one repository."""

    def __init__(self, files, asked, *arguments):
        self.files, self.asked = files, asked
        super().__init__(*arguments)

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer(True)

    def _answer(self, whole=False):
        self.asked.append(self.path)
        content = self.files.get(self.path.removeprefix("/someone/tiny/resolve/main/"))
        self.send_response(404 if content is None else 200)
        if content is not None:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        self.wfile.write(content if whole and content is not None else b"")

    def log_message(self, *_):
        pass


@contextmanager
def serving(content):
    files, asked = content if isinstance(content, dict) else {"tiny.pth": content}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, files, asked))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path / "own"))


def fetch(endpoint, release=RELEASE, **options):
    return fetch_release("tiny", releases={"tiny": release}, endpoint=endpoint, **options)


def test_a_file_is_fetched_once_and_its_hash_kept(tmp_path):
    content = checkpoint()
    told = []
    with serving(content) as (endpoint, asked):
        first = fetch(endpoint, on_download=told.append)
        assert first.path.read_bytes() == content
        assert (first.downloaded, first.known) == (True, False)
        assert first.sha256 == hashlib.sha256(content).hexdigest()
        assert told == [RELEASE]
        asked.clear()
        again = fetch(endpoint, on_download=told.append)
        assert (again.downloaded, again.known) == (False, True)
        assert asked == []
        assert len(told) == 1
    # Without a network what was fetched is there all the same.
    assert fetch(endpoint, offline=True).path == first.path
    kept = json.loads((tmp_path / "own" / "fetched.json").read_text())
    assert kept == {"someone/tiny/tiny.pth@main": first.sha256}


def test_content_that_changes_is_refused():
    with serving(checkpoint()) as (endpoint, _):
        first = fetch(endpoint)
        real = first.path.resolve()
        real.chmod(0o644)
        real.write_bytes(b"other")
        with pytest.raises(FileFormatError, match="damaged or was replaced at https"):
            fetch(endpoint)


def test_a_published_hash_is_compared_at_once():
    content = checkpoint()
    with serving(content) as (endpoint, _):
        with pytest.raises(FileFormatError, match=r"expected 0000000000000000\.\.\."):
            fetch(endpoint, replace(RELEASE, sha256="0" * 64))
        good = replace(RELEASE, sha256=hashlib.sha256(content).hexdigest())
        assert fetch(endpoint, good).known


def test_without_a_network_one_sentence_says_so():
    with serving(b"") as (endpoint, _):
        pass
    with pytest.raises(FileFormatError, match="cannot be reached: connect this computer") as caught:
        fetch(endpoint)
    assert "\n" not in str(caught.value)
    with pytest.raises(FileFormatError, match="has not been fetched yet"):
        fetch(endpoint, offline=True)


def test_what_is_gone_is_told():
    with (
        serving(b"") as (endpoint, _),
        pytest.raises(FileFormatError, match="is gone: look at https"),
    ):
        fetch(endpoint, replace(RELEASE, repository="someone/else"))


def test_a_damaged_record_is_told(tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "fetched.json").write_text("{")
    with (
        serving(checkpoint()) as (endpoint, _),
        pytest.raises(FileFormatError, match=r"fetched.json, .* cannot be read: delete it"),
    ):
        fetch(endpoint)


def test_names():
    with pytest.raises(FileFormatError, match="known are lora-ir"):
        find_release("lora_ir")
    for name, release in RELEASES.items():
        assert release.licence
        assert release.page.startswith("https://")
        if release.repository is None:
            with pytest.raises(FileFormatError, match=f"download them from {release.page}, then"):
                find_release(name)
        else:
            assert find_release(name).file


def test_the_command_shows_the_licence_fetches_and_imports(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RELEASES", {"tiny": RELEASE})
    with serving(checkpoint()) as (endpoint, _):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        target = tmp_path / "tiny.safetensors"
        done = run("fetch", "tiny", "-o", target)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.index("licence: MIT") < done.stdout.index("fetched: ")
    assert read_model(target).header.licence == "MIT"
    done = run("fetch", "tiny", "--offline", "--json")
    assert json.loads(done.stdout)["downloaded"] is False


def test_a_router_comes_along_with_what_it_chooses_among(tmp_path, monkeypatch):
    for name in ("released", "all", "alone"):
        (tmp_path / name).mkdir()
    folder = tmp_path / "released"
    golden = read_golden("lora_ir_stage2")[0] | read_golden("lora_ir_stage2_vector")[0]
    write_checkpoints(folder, golden)
    network = replace(RELEASE, file="setting1_ir.pth", router="its-router")
    router = replace(RELEASE, file="setting1_router.pth", licence="CC-BY-4.0")
    monkeypatch.setattr(module, "RELEASES", {"tiny": network, "its-router": router})
    with serving({path.name: path.read_bytes() for path in folder.iterdir()}) as (endpoint, asked):
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        done = run("fetch", "tiny", "-o", tmp_path / "all" / "tiny.safetensors", "--half", "--json")
        assert done.exit_code == 0, done.stderr
        united = read_all_in_one(tmp_path / "all" / "tiny.all-in-one.safetensors")
        assert list(united.experts) == ["snow", "rain", "raindrop"]
        assert united.guidance is not None
        assert united.router.header.licence == "CC-BY-4.0"
        assert {str(path) for path in (tmp_path / "all").glob("tiny*.safetensors")} < set(
            json.loads(done.stdout)["files"]
        )
        asked.clear()
        alone = tmp_path / "alone" / "tiny.safetensors"
        done = run("fetch", "tiny", "-o", alone, "--set", "router=null")
        assert done.exit_code == 0, done.stderr
        assert not any("router" in path for path in asked)
        assert sorted(path.name for path in alone.parent.iterdir()) == [
            "tiny.experts.safetensors", "tiny.guidance.safetensors", "tiny.safetensors",
        ]  # fmt: skip
    done = run("fetch", "tiny", "-o", alone, "--overwrite", "--offline", "--set", "router=gone")
    assert done.exit_code == 1
    assert "expected a router file" in done.stderr


def test_the_list_and_wrong_usage():
    assert "lora-ir" in run("fetch", "--list").stdout
    assert run("fetch").exit_code == 2
    assert run("fetch", "lora-ir", "--list").exit_code == 2
    assert run("fetch", "lora-ir", "--half").exit_code == 2
    done = run("fetch", "nafnet")
    assert done.exit_code == 1
    assert "download them from https://github.com/megvii-research/NAFNet" in done.stderr
