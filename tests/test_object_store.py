"""A store that talks S3, slow and failing now and then."""

import json
import threading
import time

import pytest
from commands import run
from pictures import write_pictures
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_WELL
from urushi.errors import TakenError, UnreadableError
from urushi.remote import Place, fetch, list_below, look, put, store

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")
# Botocore and moto use what newer versions of Python deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class Failing:
    """A WSGI application in front of the store: slow, and refusing or cutting each file once.

    Args:
        store: the application of the store.
    """

    def __init__(self, store):
        self._store, self._seen, self._lock = store, set(), threading.Lock()
        self.on, self.refused = False, 0

    def __call__(self, environ, start_response):
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if not self.on or path.count("/") < 2 or method not in ("GET", "PUT"):
            return self._store(environ, start_response)
        time.sleep(0.005)
        with self._lock:
            first = (method, path) not in self._seen
            self._seen.add((method, path))
            self.refused += first
        if first and (method == "PUT" or path.endswith("1.png")):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"]
        body = self._store(environ, start_response)
        return [b"".join(body)[:100]] if first else body


@pytest.fixture(scope="module")
def server():
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args):
            pass

    failing = Failing(DomainDispatcherApplication(create_backend_app))
    made = make_server("127.0.0.1", 0, failing, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield failing, f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()
    thread.join()


@pytest.fixture
def bucket(server, monkeypatch, tmp_path):
    """The store's switch, and a new bucket's URL."""
    import s3fs

    from urushi.remote import opening

    failing, url = server
    failing.on = False
    monkeypatch.setattr(store, "_FIRST_WAIT", 0.01)
    for name, value in {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "t0psecret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    opening._opened.cache_clear()
    name = f"bucket-{time.monotonic_ns()}"
    s3fs.S3FileSystem().mkdir(name)
    yield failing, f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    opening._opened.cache_clear()


def test_restoring_from_a_failing_store_into_it(bucket, tmp_path):
    failing, url = bucket
    model = write_tiny_model(tmp_path / "tiny.safetensors")
    photos = tmp_path / "photos"
    write_pictures(photos, 4)
    for path in photos.iterdir():
        put(path, Place.of(f"{url}/in/{path.name}"))
    run("restore", photos, "-o", tmp_path / "out", "--model", model)
    failing.on = True
    result = run("restore", f"{url}/in/", "-o", f"{url}/out/", "--model", model, "--json")
    failing.on = False
    assert result.exit_code == EXIT_WELL, result.stderr
    assert failing.refused >= 8
    for file in json.loads(result.stdout)["files"]:
        assert any("was fetched at try 2" in note for note in file["notes"])
        assert any("was written at try 2" in note for note in file["notes"])
    made = list_below(Place.of(f"{url}/out/"))
    assert [entry.name for entry in made] == sorted(path.name for path in photos.iterdir())
    for entry in made:
        fetch(entry.place, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == (tmp_path / "out" / entry.name).read_bytes()
    again = run("restore", f"{url}/in/", "-o", f"{url}/out/", "--model", model)
    assert "4 skipped" in again.stdout
    assert "t0psecret" not in result.stdout + result.stderr + again.stdout


def test_parts_of_a_large_file_appear_together(bucket, tmp_path, monkeypatch):
    failing, url = bucket
    file, place = tmp_path / "large.tif", Place.of(f"{url}/large.tif")
    file.write_bytes(bytes(range(256)) * 44_000)  # two parts and more
    part = 5 << 20  # bytes, the least that a store takes
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda size, chunksize=None: part)
    failing.on, told = True, []
    put(file, place, tell=told.append)
    failing.on = False
    assert look(place).size == file.stat().st_size
    assert "at try" in told[0]
    fetch(place, tmp_path / "copy.tif")
    assert (tmp_path / "copy.tif").read_bytes() == file.read_bytes()


def test_the_store_itself_refuses_to_replace(bucket, tmp_path, monkeypatch):
    _, url = bucket
    file, place = tmp_path / "a.png", Place.of(f"{url}/a.png")
    file.write_bytes(b"first")
    put(file, place)
    file.write_bytes(b"second")
    with pytest.raises(TakenError, match="exists already"):
        put(file, place)
    # Somebody else writes it after this process has looked.
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "exists", lambda self, path, **options: False)
    with pytest.raises(TakenError, match="exists already"):
        put(file, place)
    put(file, place, overwrite=True)
    assert look(place).size == len(b"second")


def test_what_a_store_refuses_is_told_in_a_sentence(bucket, tmp_path, monkeypatch):
    _, url = bucket
    with pytest.raises(UnreadableError, match="there is no such bucket: check the name"):
        list_below(Place.of("s3://no-such-bucket/in/"))
    result = run("restore", "s3://no-such-bucket/in/", "-o", tmp_path)
    assert result.exit_code == EXIT_FAILED
    assert result.stderr.count("\n") == 1
    assert list_below(Place.of(f"{url}/nothing/")) == []
    import s3fs

    from urushi.remote import opening

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    s3fs.S3FileSystem.clear_instance_cache()
    opening._opened.cache_clear()
    with pytest.raises(UnreadableError, match="no credentials were found"):
        list_below(Place.of(f"{url}/in/"))
