"""What the tests of the service share: one that runs, and pictures to send."""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pictures import picture
from starlette.testclient import TestClient

from urushi.image import write_picture
from urushi.serve.application import make_app
from urushi.serve.service import Service, Settings

LOCAL = "http://localhost"


@contextmanager
def serving(**settings: Any) -> Iterator[TestClient]:
    """A client of a service of its own."""
    service = Service(Settings(engine={"threads": 1}, **settings))
    with TestClient(make_app(service), base_url=LOCAL, raise_server_exceptions=False) as client:
        client.service = service  # pyright: ignore[reportAttributeAccessIssue]
        yield client


@contextmanager
def unserved(**settings: Any) -> Iterator[TestClient]:
    """The same without workers: for what is decided before any is needed."""
    service = Service(Settings(**settings))
    client = TestClient(make_app(service), base_url=LOCAL, raise_server_exceptions=False)
    client.service = service  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield client
    finally:
        client.close()
        service.store.close()


def wait_until_ready(client: TestClient) -> None:
    for _ in range(1200):
        if client.get("/readyz").status_code == 200:
            return
        time.sleep(0.1)
    raise AssertionError(client.get("/readyz").text)


def ended(client: TestClient, job: dict[str, Any]) -> dict[str, Any]:
    """What became of a job."""
    for _ in range(60):
        told = client.get(job["links"]["self"], params={"wait": 10}).json()
        if told["state"] not in ("waiting", "running"):
            return told
    raise AssertionError(told)


def file(path: Path, name: str | None = None) -> dict[str, Any]:
    """A picture as a form has it."""
    return {"file": (name or path.name, io.BytesIO(path.read_bytes()))}


def write(path: Path, **options: Any) -> Path:
    write_picture(path, picture(**options))
    return path
