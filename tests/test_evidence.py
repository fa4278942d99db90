"""Experts on trial: they are run, what is found is fitted and stored, and routers judge by it."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from commands import run
from filelock import FileLock
from pictures import picture
from pydantic import ValidationError
from world import CLASSES, EXPERTS, tiny_files, tiny_recipe, write_all_in_one

from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.convert.graphs import export_graph
from urushi.errors import EngineError, FileFormatError
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import read_model
from urushi.files.router_file import EvidenceFacts, read_router, write_router
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer, find_base
from urushi.inference.engines import openvino_engine
from urushi.inference.probing import GraphTrials, TorchTrials, open_evidence
from urushi.inference.restorer import Restorer
from urushi.inference.router_engine import open_router
from urushi.routing.probe import (
    describe_trials,
    evidence_looks,
    trial_views,
)
from urushi.routing.views import views_of
from urushi.training.all_in_one import probe_training as evidence
from urushi.training.all_in_one.run import AllInOneTraining

SCALES = ("whole", "reduced", "native")
PLAN = {
    "pictures": 12, "held": 12, "size": 32, "windows": 2, "steps": 30, "batch": 8,
    "scales": list(SCALES),
}  # fmt: skip


# --- engines ---


@pytest.fixture(scope="module")
def world(world, tmp_path_factory):
    """Files without evidence, with an exported graph; and data to learn from."""
    root = shutil.copytree(world, tmp_path_factory.mktemp("evidence"), dirs_exist_ok=True)
    export_graph(root / "tiny.safetensors")
    assert read_model(root / "tiny.safetensors").graph is not None
    assert set(CLASSES) > set(EXPERTS)
    (root / "files").mkdir()
    for path in root.glob("tiny.*"):
        shutil.copy(path, root / "files" / path.name)
    write_all_in_one(root / "files", root / "files" / "tiny.safetensors", method="lora", rank=2)
    return root


def members_of(world):
    members = read_all_in_one(world / "files" / "all-in-one.safetensors")
    return members, find_base(members)


def test_both_engines_do_what_restorers_do(world):
    members, model = members_of(world)
    view = picture(32, 32).transpose(2, 0, 1)[None].copy()
    expected = [Restorer(model, engine="torch").engine.run(view)[0]]
    for name in EXPERTS:
        adapters = [(members.experts[name].adapter, 1.0)]
        expected.append(Restorer(model, adapters=adapters, engine="torch").engine.run(view)[0])
    assert np.abs(expected[1] - expected[0]).max() > 1e-4
    facts = EvidenceFacts(experts=EXPERTS, size=32)
    fast = open_evidence(facts, model, members.experts, {}, threads=1).engine
    assert isinstance(fast, GraphTrials)
    slow = TorchTrials(model, members.experts, device="cpu")
    assert np.abs(fast.restore(view) - np.stack(expected)).max() < 1e-5
    assert np.abs(slow.restore(view) - np.stack(expected)).max() < 1e-5
    looks = evidence_looks(facts)
    trial = trial_views(facts, views_of(picture(), looks))
    one, two = (describe_trials(facts, trial, engine).together for engine in (fast, slow))
    assert np.abs(one - two).max() < 0.05


def test_without_a_graph_torch_tries_them(world, tmp_path):
    for path in (world / "files").glob("*.safetensors"):
        shutil.copy(path, tmp_path / path.name)
    members = read_all_in_one(tmp_path / "all-in-one.safetensors")
    facts = EvidenceFacts(experts=EXPERTS, size=32)
    found = open_evidence(facts, find_base(members), members.experts, {}, device="cpu")
    assert isinstance(found.engine, TorchTrials)


def test_branches_are_tried_as_they_are(world, tmp_path):
    shutil.copy(world / "tiny.safetensors", tmp_path / "tiny.safetensors")
    write_all_in_one(tmp_path, tmp_path / "tiny.safetensors", method="adaptir")
    members = read_all_in_one(tmp_path / "all-in-one.safetensors")
    model = find_base(members)
    facts = EvidenceFacts(experts=EXPERTS, size=32)
    engine = open_evidence(facts, model, members.experts, {}, device="cpu").engine
    view = picture(32, 32).transpose(2, 0, 1)[None].copy()
    adapters = [(members.experts["noise"].adapter, 1.0)]
    expected = Restorer(model, adapters=adapters, engine="torch").engine.run(view)
    assert np.array_equal(engine.restore(view)[1], expected[0])


@pytest.mark.parametrize(
    ("multiple", "scale", "words"),
    [
        (48, 1, "takes multiples of 48: fit the probe with views"),
        (4, 2, "enlarges 2 times: probing experts"),
    ],
)
def test_networks_that_do_not_fit_are_told(world, monkeypatch, multiple, scale, words):
    members, model = members_of(world)
    plain = openvino_engine.compile_open
    monkeypatch.setattr(
        openvino_engine, "compile_open", lambda *own: (plain(*own)[0], multiple, scale)
    )
    facts = EvidenceFacts(experts=EXPERTS, size=32)
    with pytest.raises(EngineError, match=words):
        open_evidence(facts, model, members.experts, {})


# --- training and files ---


def training(world, run_folder, **options):
    own = tiny_recipe(world / "tiny.safetensors", evidence=PLAN)
    files = tiny_files(own, world, world / "packs")
    return AllInOneTraining(own, files, run_folder, root=world, device="cpu", **options)


@pytest.fixture(scope="module")
def trained(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained") / "run"
    told = []
    result = training(world, folder, on_router_pictures=lambda *row: told.append(row)).train()
    assert result.finished
    shutil.copy(world / "tiny.safetensors", folder / "tiny.safetensors")
    assert told[-1][0] == told[-1][1] >= 12
    return folder


def test_the_file_tries_its_experts(trained):
    path = trained / "all.safetensors"
    header = read_router(path).header
    assert header.evidence.experts == ("noise", "dark")
    assert header.scores["evidence"]["pictures"] >= 12
    stored = read_router(path)
    assert stored.memory.logits.shape == stored.memory.truths.shape
    auto = AutoRestorer(path, engine="torch", device="cpu")
    assert auto.describe()["tries"]
    choice = auto.choose(picture())
    quick = AutoRestorer(path, engine="torch", device="cpu", quick=True)
    assert not quick.describe()["tries"]
    other = quick.choose(picture())
    assert other.decision.probabilities != choice.decision.probabilities
    # By a look alone it is the router of the first stage, as calibrated there.
    alone = open_router(trained / "router" / "all.safetensors", device="cpu")
    expected = alone.decide(alone.read(picture()))
    assert other.decision.probabilities == pytest.approx(expected.probabilities)
    assert np.array_equal(auto.restore(picture()), auto.restorer(choice).restore(picture()))


def test_a_file_is_read_by_rows_as_in_memory(trained, tmp_path):
    write_picture(tmp_path / "large.png", picture(300, 90))
    auto = AutoRestorer(trained / "all.safetensors", engine="torch", device="cpu")
    by_rows = auto.choose_file(tmp_path / "large.png")
    with_all = auto.choose(np.rint(picture(300, 90) * 255).astype(np.float32) / np.float32(255))
    assert by_rows.decision.probabilities == pytest.approx(with_all.decision.probabilities)


def test_its_router_can_be_taken_for_another_model(world, trained, tmp_path):
    """Then without its members, and as it was before it was fitted to them."""
    files = tiny_files(tiny_recipe(world / "tiny.safetensors"), world, world / "packs")
    own = tiny_recipe(world / "tiny.safetensors", router={"file": str(trained / "all.safetensors")})
    result = AllInOneTraining(own, files, tmp_path / "b", root=world, device="cpu").train()
    assert result.header.evidence is None
    before = read_router(trained / "router" / "all.safetensors").header
    assert result.header.temperature == before.temperature
    assert not any(name.startswith("evidence.") for name in read_router(result.path).tensors)
    assert AutoRestorer(result.path, engine="torch", device="cpu").choose(picture()).decision


def test_it_is_resumed_and_calculates_nothing_twice(world, trained, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(trained, folder)
    before = read_router(folder / "all.safetensors")
    kept = sorted((folder / "evidence").rglob("*.safetensors"))
    times = [os.stat(path).st_mtime_ns for path in kept]
    kept[0].unlink()
    training(world, folder, resume=True).train()
    after = read_router(folder / "all.safetensors")
    assert after.header.tensors_hash == before.header.tensors_hash
    assert [os.stat(path).st_mtime_ns for path in kept[1:]] == times[1:]
    assert kept[0].exists()


def test_another_process_takes_its_part(world, trained, tmp_path, monkeypatch):
    folder = tmp_path / "shared"
    shutil.copytree(trained, folder)
    first = min((folder / "evidence").rglob("train-*/*.safetensors"))
    content = first.read_bytes()
    first.unlink()
    lock = FileLock(first.with_suffix(".lock"))
    lock.acquire()

    def done(_seconds):
        first.write_bytes(content)  # what the other makes
        lock.release()

    monkeypatch.setattr("urushi.training.kept_parts.time.sleep", done)
    assert training(world, folder, resume=True).train().finished
    assert first.read_bytes() == content


def test_a_signal_stops_it_and_it_goes_on(world, trained, tmp_path):
    folder = tmp_path / "stopped"
    shutil.copytree(trained, folder)
    shutil.rmtree(folder / "evidence")

    told: list[str] = []
    tried = evidence._Trials._tried

    def interrupted(self, batch):
        os.kill(os.getpid(), signal.SIGTERM)
        return tried(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence._Trials, "_tried", interrupted)
        result = training(world, folder, resume=True, on_stage=told.append).train()
    assert told[-1] == "evidence: 12 pictures"
    assert (result.finished, result.stopped_by) == (False, signal.SIGTERM)
    assert result.stage == "evidence"
    assert training(world, folder, resume=True).train().finished


def test_a_class_is_added_and_nothing_old_changes(world, trained, tmp_path):
    folder = tmp_path / "into"
    folder.mkdir()
    for path in trained.glob("*.safetensors"):
        shutil.copy(path, folder / path.name)
    before = AutoRestorer(folder / "all.safetensors", engine="torch", device="cpu")
    readings = [before._router.read(picture(40, 50, shift=i / 2)) for i in range(4)]
    done = run(
        *("adapt", "--into", folder / "all.safetensors", "--name", "new", "--steps", 4),
        *("--pairs", world / "pairs", "--method", "full", "--device", "cpu", "--json"),
    )
    assert done.exit_code == EXIT_WELL, done.stderr
    after = AutoRestorer(folder / "all.safetensors", engine="torch", device="cpu")
    assert after.classes[-1] == "new"
    assert after.members.router.header.evidence.own == ("new",)
    assert after.members.router.part("evidence")["own_weight"].any()
    for index, reading in enumerate(readings):
        now = after._router.read(picture(40, 50, shift=index / 2))
        assert np.array_equal(now.logits[:-1], reading.logits)
    memory = after.members.router.memory
    assert memory.logits.shape == memory.truths.shape
    old = before.members.router.memory
    assert np.array_equal(memory.logits[: len(old.logits), :-1], old.logits)
    # And one more, which leaves that one as it is.
    done = run(
        *("adapt", "--into", folder / "all.safetensors", "--name", "newer", "--steps", 4),
        *("--pairs", world / "pairs", "--method", "full", "--device", "cpu", "--json"),
    )
    assert done.exit_code == EXIT_WELL, done.stderr
    last = AutoRestorer(folder / "all.safetensors", engine="torch", device="cpu")
    now, then = (one._router.read(picture()).logits for one in (last, after))
    assert np.array_equal(now[:-1], then)
    assert json.loads(done.stdout)["router"]["old_pictures"] > 0


def test_commands_try_and_do_not(trained, tmp_path):
    write_picture(tmp_path / "in.png", picture())
    words = ("restore", tmp_path / "in.png", "--router", trained / "all.safetensors", "--json")
    words = (*words, "--engine", "torch", "--device", "cpu", "-o")
    told = [json.loads(run(*words, tmp_path / "a").stdout)]
    told.append(json.loads(run(*words, tmp_path / "b", "--quick").stdout))
    assert [one["restorer"]["tries"] for one in told] == [True, False]
    assert run(*words, tmp_path / "c", "--quick", "--task", "dark").exit_code == EXIT_USAGE
    said = run("inspect", trained / "all.safetensors").stdout
    assert "noise, dark, each on views of 32x32 pixels" in " ".join(said.split())


def test_files_that_do_not_hold_together_are_refused(trained, tmp_path):
    stored = read_router(trained / "all.safetensors")
    facts, path = stored.header.evidence, tmp_path / "bad.safetensors"

    def header(**changes):
        content = stored.header.model_dump() | changes
        return type(stored.header).model_validate(content)

    with pytest.raises(ValidationError, match="'fog' is tried, but is no member"):
        header(evidence=facts.model_copy(update={"experts": ("fog",)}).model_dump())
    with pytest.raises(ValidationError, match="of a guided base cannot be tried"):
        header(guidance=stored.header.experts["noise"].model_dump())
    with pytest.raises(ValidationError, match="named twice"):
        EvidenceFacts(experts=("a", "a"))
    smaller = facts.model_copy(update={"scales": ("native",)})
    with pytest.raises(FileFormatError, match=r"'evidence\.centre' has shape"):
        write_router(path, stored.tensors, header(evidence=smaller.model_dump()))
    without = {k: v for k, v in stored.tensors.items() if k != "evidence.bias"}
    with pytest.raises(FileFormatError, match=r"'evidence\.bias' is missing"):
        write_router(path, without, stored.header)
    with pytest.raises(FileFormatError, match=r"'evidence\.\w+' is none of a router"):
        write_router(path, stored.tensors, header(evidence=None))
    no_logits = {k: v for k, v in stored.tensors.items() if k != "memory.logits"}
    with pytest.raises(FileFormatError, match=r"'memory\.logits' is missing"):
        write_router(path, no_logits, stored.header)
