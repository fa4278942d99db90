"""The command and the service that the load is measured on: started, watched and killed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PARTS = 10


@dataclass(frozen=True)
class Written:
    """What the command made of a folder: files by their sources' names, sentences of those that
    failed, and how long it took."""

    files: dict[str, bytes]
    sentences: dict[str, str]
    seconds: float


def command(source: Path, target: Path) -> Written:
    """Restores a folder by the command."""
    line = [sys.executable, "-m", "urushi", "restore", str(source), "-o", f"{target}/", "--json"]
    begun = time.perf_counter()
    done = subprocess.run(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    seconds = time.perf_counter() - begun
    try:
        results = json.loads(done.stdout)["files"]
    except (ValueError, KeyError):
        raise SystemExit(f"urushi restore gave no report (code {done.returncode})") from None
    files, sentences = {}, {}
    for result in results:
        name = Path(result["source"]).name
        if result["status"] == "restored":
            files[name] = Path(result["target"]).read_bytes()
        else:
            # The service has no folders to tell of.
            sentences[name] = result["message"].replace(f"{source}{os.sep}", "")
    return Written(files, sentences, seconds)


class Watched:
    """A service of its own, with its memory watched.

    Args:
        folder: where it may write.
        queue: jobs that wait at most.

    Attributes:
        address: its host and port.
        kills: of the worker that restores.
        without_worker: seconds after each kill until there was a new one.
        code: with which it ended.
    """

    def __init__(self, folder: Path, queue: int) -> None:
        self._log = folder / "service.log"
        line = [sys.executable, "-m", "urushi", "serve", "--port", "0"]
        line += ["--work", str(folder / "work"), "--queue", str(queue)]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self._process.stdout is not None
        found = re.search(r"http://([^/\s]+)/", self._process.stdout.readline())
        if found is None:
            self._process.kill()
            raise SystemExit(f"urushi serve does not start: {self._log.read_text()}")
        self.address = found.group(1)
        self.kills, self.without_worker, self.code = 0, [], None
        self._samples: list[tuple[float, int, int, int]] = []
        self._begun = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> "Watched":
        self.wait_until_ready(300)
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        self._process.send_signal(signal.SIGTERM)
        try:
            self.code = self._process.wait(120)
        finally:
            self._process.kill()

    def ready(self) -> bool:
        """Whether it restores now."""
        try:
            with urllib.request.urlopen(f"http://{self.address}/readyz", timeout=10) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_until_ready(self, seconds: float) -> None:
        """Waits until it restores."""
        until = time.monotonic() + seconds
        while not self.ready():
            if time.monotonic() > until or self._process.poll() is not None:
                raise SystemExit(f"the service does not get ready: {self._log.read_text()}")
            time.sleep(0.1)

    def watch(self, begun: float) -> None:
        """Begins to sample memory, once a second."""
        self._begun = begun

        def sample() -> None:
            while not self._ended.wait(1.0):
                now = time.monotonic() - self._begun
                children = sorted((_resident(pid) for pid in self._children()), reverse=True)
                largest, others = (children or [0])[0], sum(children[1:])
                self._samples.append((now, _resident(self._process.pid), largest, others))

        threading.Thread(target=sample, daemon=True).start()

    def kill_worker(self) -> None:
        """Kills the worker that restores, the largest of them, and waits for the next one."""
        if not self.ready():
            self.wait_until_ready(60)
        found = max(self._children(), key=_resident)
        os.kill(found, signal.SIGKILL)
        begun = time.monotonic()
        self.kills += 1
        # It takes a moment until it is known to be gone.
        while self.ready() and time.monotonic() < begun + 10:
            time.sleep(0.02)
        self.wait_until_ready(120)
        self.without_worker.append(time.monotonic() - begun)

    def deaths(self) -> int:
        """How many deaths of the worker that restores the service has told of."""
        return len(re.findall(r"worker restore .* died at", self._log.read_text()))

    def memory(self) -> dict[str, list[float]]:
        """The most resident memory in each tenth of the time, in MB."""
        if not self._samples:
            return {}
        end = self._samples[-1][0] + 0.001
        told: dict[str, list[float]] = {}
        for place, name in enumerate(("http", "restoring_worker", "other_workers"), 1):
            parts: list[list[int]] = [[] for _ in range(_PARTS)]
            for sample in self._samples:
                parts[int(_PARTS * sample[0] / end)].append(int(sample[place]))
            told[name] = [round(max(part, default=0) / 1e6, 1) for part in parts]
        return told

    def _children(self) -> list[int]:
        path = Path(f"/proc/{self._process.pid}/task")
        found: list[int] = []
        for task in path.glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, task.read_text().split())
        return found


def _resident(pid: int) -> int:
    """Bytes of resident memory of a process; 0 where it is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
    return 0
