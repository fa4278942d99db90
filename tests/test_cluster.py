"""Restoring and comparing on a Ray cluster: what one process gives, whatever dies meanwhile."""

import hashlib
import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path

import pytest
from cluster_support import DEADLY_WIDTH, DYING_WIDTH, Mortal
from commands import run, start
from pictures import Untouched, picture, write_pictures

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.cluster import connection
from urushi.cluster.connection import Node, check_address, joined
from urushi.cluster.luggage import packed, unpacked
from urushi.cluster.manifest import Manifest
from urushi.cluster.plan import Pool, Work, batches_of, pool_of
from urushi.cluster.restoring import restore_on_cluster
from urushi.errors import ClusterError, MissingExtraError
from urushi.image import write_picture
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.held import Options
from urushi.inference.restorer import Restorer

pytestmark = pytest.mark.xdist_group("cluster")


@pytest.fixture(scope="module")
def cluster():
    """A Ray of two cores on this machine; its address. One for all tests: it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of Ray's own code
        with joined(connection.LOCAL, cpus=2):
            import ray

            yield ray.get_runtime_context().gcs_address


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return {row["target"]: row for row in rows}


def bytes_below(folder):
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found.pop("manifest.jsonl", None)
    return found


def outcome(told):
    return [{k: v for k, v in one.items() if k not in ("target", "seconds")} for one in told["files"]]


def test_a_folder_becomes_what_the_command_makes_of_it(cluster, exported, tmp_path):
    write_pictures(tmp_path / "in", 12)
    (tmp_path / "in/picture5.png").write_bytes(b"no picture")
    words = ("restore", tmp_path / "in", "--model", exported, "--json", "-o")
    here = run(*words, tmp_path / "here")
    there = run(*words, tmp_path / "there", "--cluster", "ray")
    assert (here.exit_code, there.exit_code) == (EXIT_FAILED, EXIT_FAILED), there.stderr
    assert bytes_below(tmp_path / "here") == bytes_below(tmp_path / "there")
    one, other = json.loads(here.stdout), json.loads(there.stdout)
    assert outcome(one) == outcome(other)
    assert one["restorer"] == other["restorer"]
    rows = rows_of(tmp_path / "there")
    assert set(rows) == {f"picture{n}.png" for n in range(12)}
    assert rows["picture5.png"]["message"] == one["files"][5 + 2]["message"]
    for name, content in bytes_below(tmp_path / "there").items():
        row = rows[name]
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert row["bytes"] == len(content)
        assert row["source_bytes"] == (tmp_path / "in" / name).stat().st_size
        assert row["restorer"]["engine"] == one["restorer"]["engine"]
        assert row["worker"]
