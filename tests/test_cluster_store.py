"""Restoring on a Ray cluster from a store that is slow and fails now and then, into it."""

import json
import os

import pytest
from cluster_support import start_cluster
from commands import run
from pictures import write_pictures
from test_object_store import bucket, server  # noqa: F401

from urushi.app.output import EXIT_FAILED
from urushi.remote import Place, fetch, list_below, put

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture
def cluster(bucket):  # noqa: F811
    """Its processes have what the fixture `bucket` puts into the environment."""
    with start_cluster():
        yield


def test_a_store_becomes_what_the_command_makes_of_a_folder(bucket, cluster, exported, tmp_path):  # noqa: F811
    failing, url = bucket
    write_pictures(tmp_path / "in", 6)
    (tmp_path / "in/picture3.png").write_bytes(b"no picture")
    for path in (tmp_path / "in").iterdir():
        put(path, Place.of(f"{url}/in/{path.name}"))
    model = ("--model", exported)
    run("restore", tmp_path / "in", "-o", tmp_path / "here", *model)
    failing.on = True
    words = ("restore", f"{url}/in/", "-o", f"{url}/out/", *model, "--json", "--cluster", "ray")
    result = run(*words)
    failing.on = False
    assert result.exit_code == EXIT_FAILED, result.stderr
    assert failing.refused >= 8
    told = json.loads(result.stdout)
    assert (told["restored"], told["failed"]) == (5, 1)
    assert all(
        any(" at try " in note for note in one["notes"]) for one in told["files"] if one["pixels"]
    )
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in result.output
    names = {entry.name: entry for entry in list_below(Place.of(f"{url}/out/"))}
    parts = [name for name in names if name.startswith("manifest/")]
    assert set(names) - set(parts) == {f"picture{n}.png" for n in (0, 1, 2, 4, 5)}
    rows = {}
    for name in parts:
        fetch(names[name].place, tmp_path / "part")
        lines = (tmp_path / "part").read_text().splitlines()
        rows |= {row["target"]: row for row in map(json.loads, lines)}
    assert set(rows) == {f"picture{n}.png" for n in range(6)}
    assert rows["picture3.png"]["source"] == f"{url}/in/picture3.png"
    assert f"{url}/in/picture3.png" in rows["picture3.png"]["message"]
    for entry in names.values():
        if entry.name not in parts:
            fetch(entry.place, tmp_path / "there")
            assert (tmp_path / "there").read_bytes() == (
                tmp_path / "here" / entry.name
            ).read_bytes()
            assert rows[entry.name]["bytes"] == (tmp_path / "there").stat().st_size
    again = run(*words)
    assert (json.loads(again.stdout)["skipped"], again.exit_code) == (5, EXIT_FAILED)
