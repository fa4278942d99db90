"""The clients of the load on the service: what they send, and what they make of the answers."""

import http.client
import json
import random
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from serve_service import Watched, Written

_PATIENCE = 300.0
_DIED = "the process that was at it died"
# Every so many files are asked for as a job.
_AS_JOB = 5


@dataclass
class Answer:
    """What came of a request."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def detail(self) -> str:
        """What a problem says."""
        try:
            return str(json.loads(self.body)["detail"])
        except (ValueError, KeyError, TypeError):
            return ""


@dataclass
class Noted:
    """What all clients have seen."""

    good: list[tuple[float, float]] = field(default_factory=list)
    bad: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)


class Load:
    """Clients of a service.

    Args:
        address: its host and port.
        source: the folder of files that are sent.
        expected: what the command made of it.
        clients: how many.
    """

    def __init__(self, address: str, source: Path, expected: Written, clients: int) -> None:
        self._address, self._expected, self._clients = address, expected, clients
        self._files = {path.name: path.read_bytes() for path in sorted(source.iterdir())}
        if missing := set(self._files) - set(expected.files) - set(expected.sentences):
            raise SystemExit(f"the command says nothing of {', '.join(sorted(missing))}")
        self._owners: dict[bytes, str] = {body: name for name, body in expected.files.items()}
        self._lock, self._noted, self._until = threading.Lock(), Noted(), 0.0
        self._handing = self._passes()

    def run(self, service: Watched, minutes: float, kills: int) -> None:
        """Sends for so long, and kills so often, at even distances."""
        begun = time.monotonic()
        self._until = begun + 60 * minutes
        service.watch(begun)
        threads = [threading.Thread(target=self._client, args=(i,)) for i in range(self._clients)]
        for thread in threads:
            thread.start()
        for number in range(kills):
            at = begun + 60 * minutes * (number + 0.5) / kills
            time.sleep(max(0.0, at - time.monotonic()))
            service.kill_worker()
        for thread in threads:
            thread.join()

    def report(self) -> dict:
        """Counts, and quantiles of the seconds until a picture was there."""
        noted = self._noted
        seconds = [took for _, took in noted.good]
        return {
            "restored": len(seconds),
            "restored_in_time": sum(at <= self._until for at, _ in noted.good),
            "bad_told_as_the_command": len(noted.bad),
            **{name: noted.counts[name] for name in _COUNTS},
            "failed": dict(sorted(noted.failed.items())),
            "seconds": _quantiles(seconds),
            "seconds_of_bad": _quantiles(noted.bad),
            "examples": noted.examples,
        }

    # --- one client ---

    def _passes(self) -> Iterator[tuple[str, bool]]:
        order, names = random.Random(0), list(self._files)
        number = 0
        while True:
            order.shuffle(names)
            for name in names:
                number += 1
                yield name, number % _AS_JOB == 0

    def _client(self, number: int) -> None:
        waits = random.Random(number)
        while time.monotonic() < self._until:
            with self._lock:
                name, as_job = next(self._handing)
            self._until_answered(name, as_job, waits)

    def _until_answered(self, name: str, as_job: bool, waits: random.Random) -> None:
        """Sends a file until there is an answer to it."""
        begun = time.monotonic()
        while True:
            try:
                answer = self._send(name, as_job)
            except (OSError, http.client.HTTPException) as error:
                self._note("lost", f"{name}: {type(error).__name__}: {error}")
                return
            again = answer.status in (429, 503) or _DIED in answer.detail
            if not again:
                self._judge(name, answer, time.monotonic() - begun)
                return
            if answer.status == 429:
                self._note("refused_429")
            else:
                with self._lock:
                    self._noted.failed[f"{answer.status} {answer.detail}"[:120]] += 1
            if time.monotonic() > self._until:
                self._note("given_up_at_the_end")
                return
            pause = answer.headers.get("retry-after", "1")
            time.sleep(float(pause) + waits.random())

    def _send(self, name: str, as_job: bool) -> Answer:
        """Sends a file, and waits for the job if it becomes one."""
        border = secrets.token_hex(16)
        head = (
            f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = head.encode() + self._files[name] + f"\r\n--{border}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={border}"}
        if as_job:
            headers["Prefer"] = "respond-async"
        answer = self._ask("POST", "/v1/restore", body, headers)
        if answer.status != 202:
            return answer
        self._note("as_jobs")
        here = answer.headers["location"]
        until = time.monotonic() + _PATIENCE
        while json.loads(answer.body)["state"] in ("waiting", "running"):
            if time.monotonic() > until:
                raise TimeoutError("the job does not end")
            answer = self._ask("GET", f"{here}?wait=30")
            if answer.status != 200:
                return answer
        picture = json.loads(answer.body).get("picture")
        answer = self._ask("GET", f"{here}/result")
        self._ask("DELETE", here)
        if picture is not None:
            self._ask("DELETE", f"/v1/pictures/{picture}")
        return answer

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict | None = None
    ) -> Answer:
        connection = http.client.HTTPConnection(self._address, timeout=_PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            told = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()

    def _judge(self, name: str, answer: Answer, took: float) -> None:
        """Compares an answer with what the command made of the file."""
        wanted, sentence = self._expected.files.get(name), self._expected.sentences.get(name)
        if wanted is None:
            if answer.status in (413, 422) and answer.detail == sentence:
                with self._lock:
                    self._noted.bad.append(took)
            else:
                self._note("bad_told_otherwise", f"{name}: {answer.detail!r}, not {sentence!r}")
        elif answer.status != 200:
            with self._lock:
                self._noted.failed[f"{answer.status} {answer.detail}"[:120]] += 1
        elif answer.body != wanted:
            owner = self._owners.get(answer.body)
            kind = "differing" if owner is None else "mixed_up"
            self._note(kind, f"{name}: {'other bytes' if owner is None else f'that of {owner}'}")
        elif Path(name).stem not in _name(answer):
            self._note("mixed_up", f"{name}: is called {_name(answer)!r}")
        else:
            with self._lock:
                self._noted.good.append((time.monotonic(), took))

    def _note(self, kind: str, example: str = "") -> None:
        with self._lock:
            self._noted.counts[kind] += 1
            if example and len(self._noted.examples) < 8:
                self._noted.examples.append(f"{kind}: {example}")


_COUNTS = (
    "lost",
    "mixed_up",
    "differing",
    "bad_told_otherwise",
    "refused_429",
    "as_jobs",
    "given_up_at_the_end",
)


def _name(answer: Answer) -> str:
    found = re.search(r'filename="?([^";]+)', answer.headers.get("content-disposition", ""))
    return "" if found is None else found.group(1)


def _quantiles(seconds: list[float]) -> dict[str, float]:
    if not seconds:
        return {}
    shares = {"p50": 50, "p95": 95, "p99": 99, "most": 100}
    return {name: round(float(np.percentile(seconds, q)), 2) for name, q in shares.items()}
