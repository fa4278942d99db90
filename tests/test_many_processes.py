"""Trainings that several processes share: the same as one, whoever goes on, whoever dies."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from commands import ROOT
from pictures import picture
from safetensors.torch import load_file
from together import everything, losses_of, plan
from world import newest

from urushi.data.shards.shard_store import open_store
from urushi.data.shards.shard_writing import find_samples, write_shards
from urushi.data.shards.sharded import open_shards
from urushi.image import write_picture
from urushi.training.build import build_stages
from urushi.training.loop import train


def launched(script: Path, *words: object, restarts: int = 0) -> subprocess.CompletedProcess:
    """Runs a script in two processes that find one another, as `torchrun` starts them."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    launch += ["--nproc-per-node", "2", "--max-restarts", str(restarts)]
    tests = Path(__file__).parent
    path = os.pathsep.join([str(tests), str(ROOT), os.environ.get("PYTHONPATH", "")])
    # Else those that are started again read where the dead ones could be found.
    anew = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(
        [*launch, str(script), *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, **anew, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        check=False,
    )


@pytest.fixture(scope="module")
def folders(world, pack, tmp_path_factory):
    """What one process made, and what two have made of the same; and the losses on the way."""
    root = tmp_path_factory.mktemp("together")
    train(plan(2), pack, root / "begun", device="cpu")
    for name in ("one", "two"):
        shutil.copytree(root / "begun", root / name / "begun")
    done = launched(Path(__file__).with_name("together.py"), world, pack.path, root / "two")
    assert done.returncode == 0, done.stderr[-3000:]
    losses = losses_of(lambda: everything(world, pack.path, root / "one"))
    return root / "one", root / "two", losses, json.loads((root / "two/losses.json").read_text())


def test_losses_of_two_are_those_of_one_with_twice_the_batch(folders):
    *_, one, two = folders
    assert one.keys() == {"base", "begun", "sharded", "adapter.run", "router", "noise", "dark"}
    assert one.keys() == two.keys()
    for name, losses in one.items():
        assert two[name] == pytest.approx(losses, abs=2e-3, rel=1e-3), name


@pytest.mark.parametrize("name", ["adapter", "all/noise", "all/dark", "all/all"])
def test_what_two_leave_is_what_one_leaves(folders, name):
    one, two = (load_file(folder / f"{name}.safetensors") for folder in folders[:2])
    assert one.keys() == two.keys()
    for key, tensor in one.items():
        torch.testing.assert_close(
            two[key], tensor, atol=5e-3, rtol=2e-2, msg=lambda said, key=key: f"{key}: {said}"
        )


def test_checkpoints_are_gone_on_with_by_any_number(folders, pack, tmp_path):
    whole = train(plan(4), pack, tmp_path / "whole", device="cpu").weights
    base = shutil.copytree(folders[1] / "base", tmp_path / "base")
    by_one = train(plan(4), pack, base, device="cpu", resume=True).weights
    by_two, by_parts = (newest(folders[1] / name).group("ema") for name in ("begun", "sharded"))
    for key, tensor in whole.items():
        for found in (by_one, by_two, by_parts):
            torch.testing.assert_close(found[key], tensor, atol=1e-4, rtol=1e-3)


# --- one that dies ---


class _Store(BaseHTTPRequestHandler):
    """Gives the files of `folder`, whole or in parts."""

    folder = Path()

    def do_HEAD(self):
        self._answer(b"")

    def do_GET(self):
        path = self.folder / self.path.rpartition("/")[2]
        content = path.read_bytes()
        if wanted := self.headers.get("Range"):
            first, last = wanted.removeprefix("bytes=").split("-")
            content = content[int(first) : int(last or len(content)) + 1]
        self._answer(content, 206 if wanted else 200)

    def _answer(self, content, status=200):
        self.send_response(status)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


DYING = """
import os, signal, sys
from pathlib import Path
from together import plan
from urushi.data.shards.sharded import ShardedPictures, open_shards
from urushi.training import loop
place, run = sys.argv[1], Path(sys.argv[2])
rank, begun = os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]
cut, step = ShardedPictures._cut, loop._Session._one_step
def watched(pack, i, crops):
    with Path(run.parent, f"read-{begun}-{rank}").open("a") as file:
        file.write(f"{i}\\n")
    return cut(pack, i, crops)
def mortal(session, clock):
    if (rank, begun, session.step) == ("1", "0", 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(session, clock)
ShardedPictures._cut, loop._Session._one_step = watched, mortal
loop.train(plan(6, checkpoint_minutes=1e-6), open_shards(place), run, device="cpu", resume=True)
"""


def test_a_rank_that_dies_is_started_again_and_reads_on_in_the_middle_of_an_epoch(tmp_path):
    for index in range(8):
        (tmp_path / "photos").mkdir(exist_ok=True)
        write_picture(tmp_path / f"photos/{index}.png", picture(24, 24 + index, shift=index))
    write_shards(find_samples([tmp_path / "photos"]), open_store(tmp_path / "shards"))
    script = tmp_path / "dying.py"
    script.write_text(DYING)
    handler = type("Handler", (_Store,), {"folder": tmp_path / "shards"})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}/shards/"
        done = launched(script, place, tmp_path / "run", restarts=1)
        server.shutdown()
    assert done.returncode == 0, done.stderr[-3000:]
    assert newest(tmp_path / "run").step == 6
    # From the step of the last checkpoint on, every row once, whoever reads it: two rows of four.
    read = [(tmp_path / f"read-1-{rank}").read_text().split() for rank in (0, 1)]
    pack = open_shards(tmp_path / "shards")
    ((_, drawn),) = build_stages(plan(6), pack, torch.device("cpu"))
    expected = Counter(int(i) for step in range(3, 6) for i in drawn.stream.samples(step))
    assert len(read[0]) == len(read[1]) == 6
    assert Counter(map(int, read[0] + read[1])) == expected
    whole = train(plan(6), pack, tmp_path / "whole", device="cpu").weights
    found = newest(tmp_path / "run").group("ema")
    for key, tensor in whole.items():
        torch.testing.assert_close(found[key], tensor, atol=1e-4, rtol=1e-3)
