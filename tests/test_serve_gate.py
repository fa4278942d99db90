"""What is refused before anything is read or done: hosts, origins, tokens, sizes, numbers."""

import asyncio
import socket
import time

import pytest
from commands import run
from serve_support import LOCAL, ended, file, serving, unserved, write

from urushi.serve.kept_work import Item, Job, Store, client_of
from urushi.serve.limits import Limits
from urushi.serve.problems import RefusedError
from urushi.serve.uploads import shown_name, suffix_for

TOKEN = "some-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def client():
    with unserved(limits=Limits(body=10_000)) as client:
        yield client


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:80", "127.0.0.1:1234", "[::1]:8", "LOCALHOST."]
)
def test_own_hosts_are_served(client, host):
    assert client.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1@evil", ""])
def test_other_hosts_are_not(client, host):
    answer = client.get("/healthz", headers={"Host": host})
    assert answer.status_code == 421
    assert "--allow-host" in answer.json()["detail"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
    ids=str,
)
def test_pages_of_others_change_nothing_here(client, headers):
    assert client.post("/v1/look", headers=headers).status_code == 403
    assert "access-control-allow-origin" not in client.get("/healthz", headers=headers).headers


def test_the_own_page_may(client):
    answer = client.post("/v1/look", headers={"Origin": LOCAL, "Sec-Fetch-Site": "same-origin"})
    assert answer.status_code == 422


def test_nothing_is_done_without_the_token():
    with unserved(token=TOKEN) as client:
        for path in ("/v1/jobs", "/metrics", "/v1/adapters", "/v1/nothing"):
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for wrong in ("Bearer x", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer", "Bearer \xff"):
            headers = {"Authorization": wrong.encode("latin-1")}
            assert client.get("/v1/jobs", headers=headers).status_code == 401
        right = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/v1/jobs", headers=right).status_code == 200
        for path in ("/", "/healthz", "/v1/openapi.json"):
            assert client.get(path).status_code == 200


def test_a_body_that_is_too_large_is_not_read(client):
    pulled = 0

    def body():
        nonlocal pulled
        for _ in range(1000):
            pulled += 1
            yield b"x" * 1000

    head = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/look", content=b"x" * 10_001, headers=head)
    assert answer.status_code == 413
    answer = client.post("/v1/look", content=body(), headers=head)
    assert answer.status_code == 413
    assert "at most" in answer.json()["detail"]
    assert list(client.service.store.root.rglob("picture*")) == []


def test_a_body_that_does_not_come_is_not_waited_for():
    with unserved(limits=Limits(upload_seconds=0.05)) as client:
        app = client.app
        sent = []

        async def receive():
            await asyncio.sleep(60)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http", "method": "POST", "path": "/v1/look", "raw_path": b"/v1/look",
            "query_string": b"", "root_path": "", "scheme": "http", "http_version": "1.1",
            "server": ("localhost", 80), "client": ("127.0.0.1", 1), "app": None,
            "headers": [
                (b"host", b"localhost"), (b"content-type", b"multipart/form-data; boundary=b"),
            ],
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
        assert sent[0]["status"] == 408


def test_answers_carry_what_guards_a_browser(client):
    headers = client.get("/").headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "'unsafe-eval'" not in headers["content-security-policy"]


def test_a_client_has_so_much_here_and_no_more(tmp_path):
    store = Store(tmp_path / "work", Limits(client_disk=1000, client_items=2, client_jobs=1))
    store.admit("a", 900)
    id, folder = store.place("picture")
    (folder / "file").write_bytes(b"x" * 600)
    store.add(Item(id, "a", folder))
    store.admit("a", 300)
    store.admit("b", 900)
    with pytest.raises(RefusedError, match="kept here") as refused:
        store.admit("a", 500)
    assert refused.value.status == 507
    id, folder = store.place("job")
    job = store.add(Job(id, "a", folder))
    with pytest.raises(RefusedError):
        store.admit("a")
    with pytest.raises(RefusedError) as refused:
        store.admit_job("a")
    assert refused.value.status == 429
    job.state = "done"
    store.admit_job("a")
    with pytest.raises(RefusedError) as refused:
        store.get(Job, id, "b")
    assert refused.value.status == 404
    store.close()
    assert list((tmp_path / "work").iterdir()) == []


def test_what_a_killed_service_left_is_removed(tmp_path):
    killed, living = Store(tmp_path, Limits()), Store(tmp_path, Limits())
    killed._held.close()  # as the end of a process does
    other = tmp_path / "urushi-serve-of-somebody"
    other.mkdir()
    store = Store(tmp_path, Limits())
    assert not killed.root.exists()
    assert living.root.exists()
    assert other.exists()
    living.close()
    store.close()


def test_what_nobody_asks_for_goes(tmp_path):
    store = Store(tmp_path, Limits(keep=10))
    id, folder = store.place("job")
    job = store.add(Job(id, "a", folder, state="done"))
    assert store.expire() == 0
    job.used = time.monotonic() - 20
    job.state = "running"
    assert store.expire() == 0
    job.state = "done"
    job.keep = 30
    assert store.expire() == 0
    job.keep = None
    assert store.expire() == 1
    assert not folder.exists()
    store.close()


def test_clients_are_told_apart_by_what_they_have_of_addresses():
    assert client_of("10.0.0.1") != client_of("10.0.0.2")
    assert client_of("2001:db8::1") == client_of("2001:db8::ffff:1")
    assert client_of("2001:db8::1") != client_of("2001:db8:0:1::1")
    assert client_of(None) == client_of("")


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("a.jpg", "a.jpg"),
        ("C:\\pictures\\a b.jpg", "a b.jpg"),
        ("../../..", "picture"),
        (".hidden.png", "hidden.png"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("a\r\nb.png", "ab.png"),
        ("漆.heic", "漆.heic"),
        (None, "picture"),
        ("x" * 500 + ".jpeg", "x" * 115 + ".jpeg"),
    ],
)
def test_names_as_they_are_shown(given, shown):
    assert shown_name(given) == shown


@pytest.mark.parametrize(
    ("name", "head", "suffix"),
    [
        ("a.JPG", b"", ".jpg"),
        ("a", b"\x89PNG\r\n\x1a\n", ".png"),
        ("a.png/../../x", b"\xff\xd8\xff", ".jpg"),
        ("a.x;rm -rf", b"nothing", ".bin"),
    ],
)
def test_suffixes_come_from_a_table(name, head, suffix):
    assert suffix_for(name, head) == suffix


def test_beyond_this_computer_a_token_is_asked_for(monkeypatch):
    monkeypatch.delenv("URUSHI_TOKEN", raising=False)
    result = run("serve", "--host", "0.0.0.0")
    assert result.exit_code == 2
    assert "--token-file" in result.stderr


@pytest.mark.parametrize("text", ["short", "two words that are long enough", "", "漆" * 20])
def test_a_token_that_could_be_guessed_is_refused(tmp_path, text):
    path = tmp_path / "token"
    path.write_text(text, encoding="utf-8")
    result = run("serve", "--token-file", path)
    assert result.exit_code == 1
    assert str(path) in result.stderr


def test_a_port_that_is_taken_is_told():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        result = run("serve", "--port", other.getsockname()[1])
    assert result.exit_code == 1
    assert "choose another --port" in result.stderr


def test_a_full_queue_says_when_to_come_again(tmp_path):
    small = write(tmp_path / "small.png")
    with serving(limits=Limits(queue=1, client_jobs=50, at_once=1)) as client:
        # Its worker is still coming up, so that jobs wait.
        answers = [client.post("/v1/restore", files=file(small)) for _ in range(4)]
        states = [answer.status_code for answer in answers]
        assert states[0] == 202
        assert 429 in states
        full = answers[states.index(429)]
        assert int(full.headers["retry-after"]) >= 1
        assert "try later" in full.json()["detail"]
        first = answers[0].json()["links"]["self"]
        assert client.delete(first).status_code == 202
        told = ended(client, answers[0].json())
        assert told["state"] in ("cancelled", "done")
