"""Places named by URLs: told apart, shown without secrets, listed, fetched and written whole."""

import contextlib
import re
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from urushi.errors import TakenError, TargetError, UnreadableError
from urushi.remote import Place, fetch, is_url, list_below, local_path, look, put, redacted, store
from urushi.remote.store_causes import is_transient

MEMORY = fsspec.filesystem("memory")


@pytest.fixture(autouse=True)
def _empty_memory(monkeypatch):
    monkeypatch.setattr(store, "_FIRST_WAIT", 0.001)
    MEMORY.store.clear()
    MEMORY.pseudo_dirs[:] = [""]
    yield
    MEMORY.store.clear()


def test_a_url_is_told_from_a_path():
    assert is_url("s3://bucket/a.png")
    assert is_url("https://x.org/a.png")
    assert not is_url("C:\\photos\\a.png")
    assert not is_url("photos/a.png")
    assert not is_url("a:0.5")
    assert local_path("file:///photos/a%20b.png") == "/photos/a b.png"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://key:secret@bucket/a.png", "s3://***@bucket/a.png"),
        ("s3://key:sec/ret+1@bucket/a@2x.png", "s3://***@bucket/a@2x.png"),
        (
            "https://me:pass@host:8080/a b.png?X=1&Signature=ab/c",
            "https://***@host:8080/a b.png?***",
        ),
        ("https://host:8080/a@b.png", "https://host:8080/a@b.png"),
        ("s3://bucket/photo@2x.png", "s3://bucket/photo@2x.png"),
        ("s3://bucket/why?.png", "s3://bucket/why?.png"),
    ],
)
def test_secrets_of_a_url_are_never_shown(url, shown):
    assert str(Place.of(url)) == shown
    assert repr(Place.of(url)) == f"Place({shown!r})"
    assert redacted(f"cannot open '{url}': no") == f"cannot open '{shown}': no"


def test_a_place_hides_its_secrets_in_what_libraries_say():
    place = Place.of("https://me:pass%2Fword@host/a.png?token=geheim")
    said = place.hide("bad host me:pass%2Fword or pass/word, token geheim")
    assert "pass" not in said
    assert "geheim" not in said


def test_places_are_taken_apart_and_put_together():
    place = Place.of("S3://bucket/photos/a b.png")
    assert (place.scheme, place.name, place.stem, place.suffix) == ("s3", "a b.png", "a b", ".png")
    assert str(place.parent) == "s3://bucket/photos/"
    assert str(place.parent / "c/d.png") == "s3://bucket/photos/c/d.png"
    assert Place.of("s3://bucket").is_folder
    assert not place.is_folder
    assert Place.of("https://host/a%20b.png?s=1").name == "a b.png"
    assert (Place.of("https://host/in/") / "a b.png").url == "https://host/in/a%20b.png"
    with pytest.raises(UnreadableError, match="names no bucket"):
        Place.of("s3://")


def test_files_are_put_listed_and_fetched(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(b"12345")
    folder = Place.of("memory://in/")
    assert list_below(folder) == []
    put(file, folder / "b/a.png")
    put(file, folder / "a.png")
    found = list_below(folder)
    assert [(entry.name, entry.size) for entry in found] == [("a.png", 5), ("b/a.png", 5)]
    assert str(found[1].place) == "memory://in/b/a.png"
    fetched = fetch(found[1].place, tmp_path / "copy.png", found[1])
    assert fetched.version == found[1].version
    assert (tmp_path / "copy.png").read_bytes() == b"12345"
    assert look(folder / "b") is None
    assert look(folder / "none.png") is None
    with pytest.raises(UnreadableError, match=r"memory://in/none.png is not there: check the name"):
        fetch(folder / "none.png", tmp_path / "none.png")


def test_what_is_there_is_replaced_only_when_asked(tmp_path):
    file, place = tmp_path / "a.png", Place.of("memory://in/a.png")
    file.write_bytes(b"first")
    put(file, place)
    file.write_bytes(b"second")
    with pytest.raises(TakenError, match="exists already and is left as it is"):
        put(file, place)
    assert MEMORY.cat("/in/a.png") == b"first"
    put(file, place, overwrite=True)
    assert MEMORY.cat("/in/a.png") == b"second"


class Failing:
    """Makes calls of the memory store fail at first.

    Args:
        monkeypatch: of the test.
        name: of the method.
        times: how often it fails.
        error: what it raises.
    """

    def __init__(self, monkeypatch, name, times, error):
        self.left, self.calls = times, 0
        real = getattr(type(MEMORY), name)

        def call(*args, **kwargs):
            self.calls += 1
            if self.left:
                self.left -= 1
                raise error
            return real(*args, **kwargs)

        monkeypatch.setattr(type(MEMORY), name, call)


def test_what_passes_by_itself_is_waited_for_and_told(tmp_path, monkeypatch):
    file, place, told = tmp_path / "a.png", Place.of("memory://in/a.png"), []
    file.write_bytes(b"12345")
    Failing(monkeypatch, "put_file", 2, ConnectionResetError("connection reset"))
    put(file, place, tell=told.append)
    Failing(monkeypatch, "get_file", 1, TimeoutError("too slow"))
    fetch(place, tmp_path / "copy.png", tell=told.append)
    assert (tmp_path / "copy.png").read_bytes() == b"12345"
    first, second = told
    assert re.fullmatch(
        r"memory://in/a.png was written at try 3, after \d+ s \(connection reset\)\.", first
    )
    assert "was fetched at try 2" in second


def test_patience_ends_in_a_sentence(tmp_path, monkeypatch):
    MEMORY.pipe("/in/a.png", b"12345")
    failing = Failing(monkeypatch, "get_file", 99, TimeoutError("too slow"))
    with pytest.raises(UnreadableError, match=r"after 6 tries \(too slow\): try again later"):
        fetch(Place.of("memory://in/a.png"), tmp_path / "a.png")
    assert failing.calls == store.TRIES
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_pass_is_not_tried_again(tmp_path, monkeypatch):
    MEMORY.pipe("/in/a.png", b"12345")
    failing = Failing(monkeypatch, "get_file", 99, PermissionError("Access Denied"))
    with pytest.raises(UnreadableError, match=r"the store refuses it \(Access Denied\)"):
        fetch(Place.of("memory://in/a.png"), tmp_path / "a.png")
    assert failing.calls == 1
    assert not is_transient(OSError(28, "No space left on device"))


def test_what_was_cut_short_is_fetched_again(tmp_path, monkeypatch):
    MEMORY.pipe("/in/a.png", b"12345")
    real, cut, told = type(MEMORY).get_file, [1], []

    def get(self, path, to, **options):
        real(self, path, to, **options)
        if cut:
            cut.pop()
            with open(to, "wb") as file:
                file.write(b"123")

    monkeypatch.setattr(type(MEMORY), "get_file", get)
    fetch(Place.of("memory://in/a.png"), tmp_path / "a.png", tell=told.append)
    assert (tmp_path / "a.png").read_bytes() == b"12345"
    assert "3 of 5 bytes arrived" in told[0]


def test_what_changed_on_its_way_is_fetched_again(tmp_path, monkeypatch):
    MEMORY.pipe("/in/a.png", b"old")
    real, changes, told = type(MEMORY).get_file, [b"new"], []

    def get(self, path, to, **options):
        real(self, path, to, **options)
        if changes:
            MEMORY.pipe("/in/a.png", changes.pop())

    monkeypatch.setattr(type(MEMORY), "get_file", get)
    fetch(Place.of("memory://in/a.png"), tmp_path / "a.png", tell=told.append)
    assert (tmp_path / "a.png").read_bytes() == b"new"
    assert "changed while it was fetched" in told[0]


def test_an_answer_that_was_lost_is_no_file_of_others(tmp_path, monkeypatch):
    file, place = tmp_path / "a.png", Place.of("memory://in/a.png")
    file.write_bytes(b"12345")
    real, lost = type(MEMORY).put_file, [1]

    def answer_lost(self, *args, **kwargs):
        real(self, *args, **kwargs)
        if lost:
            lost.pop()
            raise ConnectionResetError("connection reset")

    monkeypatch.setattr(type(MEMORY), "put_file", answer_lost)
    assert put(file, place).size == 5


def test_nobody_half_written_is_seen_in_stores_that_show_it(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    file.write_bytes(b"12345")
    monkeypatch.setattr(store, "_AT_ONCE", set())
    Failing(monkeypatch, "put_file", 99, PermissionError("refused"))
    with pytest.raises(TargetError, match="the store refuses it"):
        put(file, Place.of("memory://in/a.png"))
    assert MEMORY.find("/in") == []
    monkeypatch.undo()
    monkeypatch.setattr(store, "_AT_ONCE", set())
    put(file, Place.of("memory://in/a.png"))
    assert MEMORY.find("/in") == ["/in/a.png"]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "foo://x/a.png",
            "nothing opens URLs of scheme 'foo', expected one of s3, gs, https, http",
        ),
        ("ftpx://x/a.png", "did you mean 'ftp'?"),
    ],
)
def test_unknown_schemes_are_told(url, sentence):
    with pytest.raises(UnreadableError, match=re.escape(sentence)):
        list_below(Place.of(url))


def test_what_is_not_installed_is_told(monkeypatch):
    from urushi.errors import MissingExtraError
    from urushi.remote import opening

    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    for url, extra in (("s3://b/", "s3"), ("gs://b/", "gcs"), ("https://h/a.png", "http")):
        with pytest.raises(MissingExtraError, match=rf"pip install 'urushi\[{extra}\]'"):
            list_below(Place.of(url))


def test_credentials_in_the_url_of_a_store_are_refused(monkeypatch):
    from urushi.remote import opening

    monkeypatch.setattr(opening, "find_spec", lambda name: name)
    with pytest.raises(UnreadableError, match="leave them out of the URL") as caught:
        list_below(Place.of("s3://key:secret@bucket/"))
    assert "secret" not in str(caught.value)


@contextlib.contextmanager
def serve_folder(folder):
    """Shows a folder on a web server as long as the block lasts; gives its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(folder), **kwargs)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_web_servers_are_read(tmp_path):
    folder = tmp_path / "web"
    (folder / "in" / "b").mkdir(parents=True)
    (folder / "in" / "a b.png").write_bytes(b"12345")
    (folder / "in" / "b" / "c.png").write_bytes(b"1")
    with serve_folder(folder) as url:
        found = list_below(Place.of(f"{url}/in/"))
        assert [entry.name for entry in found] == ["a b.png", "b/c.png"]
        fetch(found[0].place, tmp_path / "a.png", found[0])
        assert (tmp_path / "a.png").read_bytes() == b"12345"
        assert look(Place.of(f"{url}/in/none.png")) is None
        with pytest.raises(TargetError, match="web server, which is only read"):
            put(tmp_path / "a.png", Place.of(f"{url}/in/d.png"))
