"""Restoring and comparing on a Ray cluster: what one process gives, whatever dies meanwhile."""

import hashlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from cluster_support import DEADLY_WIDTH, DYING_WIDTH, Mortal, start_cluster
from commands import run, run_python
from pictures import picture, write_pictures
from test_adapt import write_pairs
from test_compare import plan_of
from world import write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.cluster.connection import Node, check_address
from urushi.cluster.luggage import Luggage, packed, unpacked
from urushi.cluster.manifest import Manifest
from urushi.cluster.plan import Pool, Work, batches_of, pool_of
from urushi.cluster.restoring import restore_on_cluster
from urushi.cluster.worker import Worker
from urushi.errors import ClusterError
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.batch import plan_batch, run_batch
from urushi.inference.picture_files import FileOptions
from urushi.inference.restorer import Restorer


@pytest.fixture(scope="module")
def cluster():
    """One for all tests: it takes seconds."""
    with start_cluster():
        yield


def rows_of(folder):
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return {row["target"]: row for row in rows}


def bytes_below(folder):
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found.pop("manifest.jsonl", None)
    return found


def outcome(told):
    return [
        {k: v for k, v in one.items() if k not in ("target", "seconds")} for one in told["files"]
    ]


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


def test_a_worker_makes_a_folder_only_for_what_has_to_lie_there(tmp_path, exported, monkeypatch):
    """One that is killed removes nothing, so nothing is left of those that restore what is here."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    luggage = packed(Restorer(exported))
    worker = Worker(None, luggage, FileOptions(), {})
    assert list((tmp_path / "tmp").iterdir()) == []
    elsewhere = {str(tmp_path / "gone" / Path(name).name): luggage.files[name]
                 for name in luggage.files}  # fmt: skip
    other = Worker(None, Luggage(luggage.pickled, elsewhere), FileOptions(), {})
    (folder,) = (tmp_path / "tmp").iterdir()
    assert folder.stat().st_mode & 0o077 == 0
    del worker, other
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_is_finished_is_not_done_again(cluster, exported, tmp_path):
    write_pictures(tmp_path / "in", 4)
    words = ("restore", tmp_path / "in", "--model", exported, "-o", tmp_path / "out")
    assert run(*words, "--cluster", "ray").exit_code == EXIT_WELL
    before = (tmp_path / "out/manifest.jsonl").read_bytes()
    again = run(*words, "--cluster", "ray")
    assert (again.exit_code, "4 skipped" in again.stdout) == (EXIT_WELL, True)
    assert (tmp_path / "out/manifest.jsonl").read_bytes() == before
    # One is missing, and of another one nothing is known, as when the machine went down.
    (tmp_path / "out/picture1.png").unlink()
    lines = before.splitlines(keepends=True)
    kept = [line for line in lines if b"picture2" not in line]
    (tmp_path / "out/manifest.jsonl").write_bytes(b"".join(kept)[:-1] + b'\n{"target": "pict')
    restored = run(*words, "--cluster", "ray")
    assert "1 restored, 3 skipped" in restored.stdout
    rows = Manifest(tmp_path / "out").rows()
    assert {name: row["status"] for name, row in rows.items()} == {
        "picture0.png": "restored",
        "picture1.png": "restored",
        "picture2.png": "skipped",
        "picture3.png": "restored",
    }
    content = (tmp_path / "out/picture2.png").read_bytes()
    assert rows["picture2.png"]["sha256"] == hashlib.sha256(content).hexdigest()


def restore_mortally(folder, out, restorer, **options):
    jobs = plan_batch([folder], out)
    pool = Pool("cpu", 2, 1, 0.0)
    return restore_on_cluster(restorer, jobs, pool, Manifest(out), options=FileOptions(), **options)


def test_another_worker_goes_on_where_one_died(cluster, tmp_path):
    write_pictures(tmp_path / "in", 8)
    write_picture(tmp_path / "in/picture3.png", picture(width=DYING_WIDTH), overwrite=True)
    write_picture(tmp_path / "in/picture6.png", picture(width=DEADLY_WIDTH), overwrite=True)
    jobs = plan_batch([tmp_path / "in"], tmp_path / "here")
    run_batch(Mortal(tmp_path), [job for job in jobs if job.source.stem != "picture6"])
    died = tmp_path / "died"
    report = restore_mortally(tmp_path / "in", tmp_path / "there", Mortal(died))
    assert died.exists()
    assert report.deaths >= 3
    assert [result.status for result in report.results] == ["restored"] * 6 + ["failed", "restored"]
    assert "3 workers died at it" in report.results[6].message
    here, there = bytes_below(tmp_path / "here"), bytes_below(tmp_path / "there")
    assert there == here
    rows = rows_of(tmp_path / "there")
    assert len(rows) == 8
    assert rows["picture6.png"]["message"] == report.results[6].message
    lines = (tmp_path / "there/manifest.jsonl").read_text().splitlines()
    assert len(lines) == 8


def test_an_interrupted_run_goes_on(cluster, tmp_path):
    write_pictures(tmp_path / "in", 24)
    finished = []

    def stop(event):
        finished.append(event.job.target)
        raise KeyboardInterrupt

    restorer = Mortal(tmp_path / "died")
    report = restore_mortally(tmp_path / "in", tmp_path / "out", restorer, on_event=stop)
    assert report.interrupted
    assert finished
    assert all(target.exists() for target in finished)
    before = (tmp_path / "out/manifest.jsonl").read_bytes()
    report = restore_mortally(tmp_path / "in", tmp_path / "out", restorer)
    assert (report.interrupted, report.count("failed")) == (False, 0)
    assert report.count("restored") < 24
    after = (tmp_path / "out/manifest.jsonl").read_bytes()
    assert after.startswith(before)
    assert len(rows_of(tmp_path / "out")) == len(after.splitlines()) == 24
    assert not list((tmp_path / "out").glob(".*"))


def test_a_comparison_has_the_table_that_it_has_without(cluster, tmp_path):
    write_tiny_model(tmp_path / "tiny.safetensors")
    write_pairs(tmp_path / "dark/train", 4)
    write_pairs(tmp_path / "dark/val", 2, height=40)
    plan = tmp_path / "plan.yaml"
    changed = {"pairs": [2], "seeds": [0], "steps": 2}
    plan.write_text(yaml.safe_dump(plan_of(tmp_path, **changed)))
    words = ("compare", plan, "--data", tmp_path, "--device", "cpu", "--no-isolate", "--json", "-o")
    here = run(*words, tmp_path / "here")
    # One cell was run without a cluster: it stays.
    run(*words, tmp_path / "there", "--only", "dark/lora")
    there = run(*words, tmp_path / "there", "--cluster", "ray")
    assert (here.exit_code, there.exit_code) == (EXIT_WELL, EXIT_WELL), there.stderr
    assert "3 cells, 2 finished before" in there.stderr
    one, other = json.loads(here.stdout), json.loads(there.stdout)
    assert (one["finished"], other["finished"]) == (3, 3)
    timed = ("seconds_per_step", "peak_memory")
    for row, same in zip(one["rows"], other["rows"], strict=True):
        assert {**row, **dict.fromkeys(timed)} == {**same, **dict.fromkeys(timed)}


# --- without a cluster ---


def test_batches_are_cut_by_size():
    sizes = [100] * 100 + [5 << 20, 100, 3 << 20, 3 << 20]
    works = [Work(n, Path("a"), Path("b"), False, size) for n, size in enumerate(sizes)]
    batches = [[work.index for work in batch] for batch in batches_of(works, 2)]
    assert [index for batch in batches for index in batch] == list(range(len(works)))
    assert {len(batch) for batch in batches[:14]} == {7}
    assert [100] in batches
    assert [102] in [batch[-1:] for batch in batches]
    assert [103] in batches
    alone = list(batches_of(works[:3], 8))
    assert [len(batch) for batch in alone] == [1, 1, 1]
    assert list(batches_of([], 2)) == []


def test_workers_are_as_many_as_nodes_have_room_for():
    plain, small = Node(8, 0, 64 << 30), Node(4, 0, 2 << 30)
    assert pool_of([plain, small]) == Pool("cpu", 10, 1, 0.0)
    assert pool_of([plain, small], cpus=3).workers == 3
    assert pool_of([plain], workers=3).workers == 3
    fast = Node(16, 2, 64 << 30)
    assert pool_of([plain, fast]) == Pool("cuda", 2, 1, 1.0)
    assert pool_of([plain, fast], accelerators=0.25) == Pool("cuda", 8, 1, 0.25)
    assert pool_of([plain, fast], device="cpu").workers == 24
    for nodes, options, said in (
        ([plain], {"cpus": 9}, "no node of the cluster has 9 cores"),
        ([plain], {"device": "cuda"}, "has 1 accelerators"),
        ([plain], {"accelerators": 0.5}, "is for nodes that have some"),
        ([fast], {"accelerators": 1.5}, "expected a fraction"),
        ([fast], {"device": "mps"}, "expected auto, cpu or cuda"),
    ):
        with pytest.raises(ClusterError, match=said):
            pool_of(nodes, **options)


def test_addresses_are_checked():
    for address in ("ray", "auto", "ray://head:10001", "10.0.0.1:6379", "[::1]:6379"):
        assert check_address(address) == address
    for address in ("", "Ray", "head", "head:", ":10001", "ray://head", "ray://:1", "head:port"):
        with pytest.raises(ClusterError, match="is no cluster: expected"):
            check_address(address)


def test_nobody_at_an_address_is_told(tmp_path, exported, monkeypatch):
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    write_pictures(tmp_path / "in", 1)
    words = ("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", exported, "--cluster")
    result = run(*words, "127.0.0.1:9")
    assert (result.exit_code, result.stdout.count("\n")) == (EXIT_FAILED, 0)
    assert "nothing answers at '127.0.0.1:9'" in result.stderr
    assert "is no cluster" in run(*words, "nowhere").stderr
    assert not (tmp_path / "out").exists()


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("urushi.inference.hardware.is_installed", lambda name: name != "ray")
    write_pictures(tmp_path / "in", 1)
    result = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--cluster", "ray")
    assert result.exit_code == EXIT_FAILED
    assert "pip install 'urushi[cluster]'" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--workers", "2"], "--workers is for a cluster"),
        (["--accelerators", "1"], "--accelerators is for a cluster"),
        (["--cluster", "ray"], "--cluster restores into a folder"),
        (["--cluster", "ray", "-o", "-"], "-o - is for this process alone"),
        (["--cluster", "ray", "-o", "out", "--look"], "--look is for this process alone"),
        (["--cluster", "ray", "-o", "out", "--dry-run"], "--dry-run is for this process alone"),
    ],
)
def test_what_has_no_effect_is_refused(words, said, tmp_path):
    write_pictures(tmp_path / "in", 1)
    result = run("restore", tmp_path / "in", *words)
    assert result.exit_code == EXIT_USAGE
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_without_a_cluster_ray_is_not_imported(tmp_path, exported):
    write_pictures(tmp_path / "in", 1)
    code = (
        "import sys\nfrom urushi.app.cli import main\n"
        f"sys.argv = ['urushi', 'restore', {str(tmp_path / 'in')!r}, '-o', "
        f"{str(tmp_path / 'out')!r}, '--model', {str(exported)!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print([name for name in ('ray', 'pyarrow', 'fsspec') if name in sys.modules])\n"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_files_travel_to_nodes_that_lack_them(tmp_path, exported):
    restorer = Restorer(exported, engine="torch")
    luggage = packed(restorer)
    there = unpacked(luggage, tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    assert there.describe() == restorer.describe()
    # Another node, whose folders are others.
    far = luggage.pickled.replace(
        str(exported.parent).encode(), str(exported.parent)[::-1].encode()
    )
    moved = {
        str(Path(str(exported.parent)[::-1], Path(p).name)): c for p, c in luggage.files.items()
    }
    there = unpacked(Luggage(far, moved), tmp_path / "carried")
    there.run_with(threads=1)
    assert there.describe() == restorer.describe()
    assert len(list((tmp_path / "carried").rglob("*.safetensors"))) == 1


def test_the_shipped_weights_are_those_of_each_node():
    luggage = packed(AutoRestorer(task="haze"))
    assert luggage.files == {}
    assert b"site-packages" not in luggage.pickled
    assert unpacked(luggage, Path("unused")).classes == AutoRestorer(task="none").classes
