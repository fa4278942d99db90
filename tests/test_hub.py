"""The Hugging Face hub: what `urushi push` puts there, and `urushi pull` takes, by its client."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from commands import run
from hub_support import READER, WRITER, serving_hub
from pictures import picture
from world import random_adapter, write_tiny

import urushi
from urushi.adapters.stored import header_of, tensors_of
from urushi.convert.hub_card import licence_fields
from urushi.errors import FileFormatError, HubError
from urushi.files.adapter import write_adapter
from urushi.files.hub_config import read_hub_config
from urushi.files.model import read_model

# The client hands files to its own library in a way that this one calls former.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SCORES = {
    "kodak24-noise25": {"psnr_base": 30.0, "psnr": 31.23456, "ssim": 0.9},
    "validation-noise25": {"psnr": 27.5, "limit": 4},
    "photographs": {"right": 3, "another": 1},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    model = read_model(write_tiny(folder / "base.safetensors"))
    adapter = random_adapter(model, rank=0, ranks={"intro": 2}, size=0.1)
    header = header_of(
        adapter, model, name="mine", licence="Apache-2.0", scores=SCORES,
        degradations=["noise", "low-light"], description="For grain | film.", data="Ours.",
        recipe={"steps": 3},
    )  # fmt: skip
    write_adapter(folder / "mine.safetensors", tensors_of(adapter), header)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setenv("HF_TOKEN", WRITER)
    with serving_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


def front_of(card):
    _, front, text = card.split("---\n", 2)
    return yaml.safe_load(front), text


def test_an_adapter_goes_there_with_a_card_and_comes_back(hub, folder, tmp_path):
    done = run(
        "push", folder / "mine.safetensors", "me/mine", "--base-model", "me/base", "--dataset",
        "me/pairs", "--benchmark", "kodak24-noise25=me/kodak", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    commit, files = hub.at("me/mine")
    assert said["revision"] == commit
    assert files["adapter.safetensors"] == (folder / "mine.safetensors").read_bytes()
    front, text = front_of(files["README.md"].decode())
    assert front["library_name"] == "urushi"
    assert front["pipeline_tag"] == "image-to-image"
    assert (front["base_model"], front["base_model_relation"]) == ("me/base", "adapter")
    assert (front["license"], front["datasets"]) == ("apache-2.0", ["me/pairs"])
    assert front["metrics"] == ["psnr", "ssim"]
    assert {"denoising", "low-light-enhancement", "nafnet", "lora"} < set(front["tags"])
    assert said["sha256"]["adapter.safetensors"] in text
    assert "For grain | film." in text
    pulled = run("pull", "me/mine", "-o", tmp_path / "back.safetensors", "--json")
    assert pulled.exit_code == 0, pulled.stderr
    assert json.loads(pulled.stdout)["revision"] == commit
    assert (tmp_path / "back.safetensors").read_bytes() == files["adapter.safetensors"]
    again = run("pull", "me/mine", "-o", tmp_path / "back.safetensors")
    assert (again.exit_code, "exists" in again.stderr) == (1, True)


def test_scores_are_those_that_the_hub_reads(hub, folder):
    from huggingface_hub import ModelCard
    from huggingface_hub._eval_results import parse_eval_result_entries

    run("push", folder / "mine.safetensors", "me/mine", "--benchmark", "kodak24-noise25=me/kodak")
    files = hub.at("me/mine")[1]
    results = ModelCard(files["README.md"].decode()).data.eval_results
    found = {(r.dataset_type, r.metric_type): r.metric_value for r in results}
    assert found == {
        ("me/kodak", "psnr"): 31.2346, ("me/kodak", "ssim"): 0.9,
        ("validation-noise25", "psnr"): 27.5,
    }  # fmt: skip
    entries = parse_eval_result_entries(yaml.safe_load(files[".eval_results/urushi.yaml"]))
    assert [(e.dataset_id, e.task_id, e.value) for e in entries] == [
        ("me/kodak", "psnr", 31.2346), ("me/kodak", "ssim", 0.9),
        ("validation-noise25", "psnr", 27.5),
    ]  # fmt: skip
    assert "the first 4 pictures" in entries[2].notes


def test_python_pushes_and_restores_from_there(hub, folder):
    base, mine = folder / "base.safetensors", urushi.Adapter.load(folder / "mine.safetensors")
    assert run("push", base, "me/base", "--licence", "MIT").exit_code == 0
    first = mine.push_to_hub("me/mine", base_model="me/base")
    second = mine.push_to_hub("me/mine", base_model="me/base", message="Again.")
    assert first != second
    expected = urushi.Restorer(base, adapters=[mine], engine="torch").restore(picture())
    restorer = urushi.Restorer.from_hub("me/mine", engine="torch")
    np.testing.assert_array_equal(restorer.restore(picture()), expected)
    plain = urushi.Restorer.from_hub("me/base", engine="torch").restore(picture())
    assert np.abs(plain - expected).max() > 1e-4
    hub.asked.clear()
    hub.faults["."] = "drop"
    urushi.Restorer.from_hub("me/mine", engine="torch")
    assert urushi.Adapter.from_hub("me/mine").header == mine.header
    assert hub.asked == []


def test_a_revision_is_pinned_and_the_cache_serves_without_a_network(hub, folder, tmp_path):
    mine = urushi.Adapter.load(folder / "mine.safetensors")
    first = mine.push_to_hub("me/mine")
    urushi.Adapter.from_hub("me/mine")
    other = replace(mine, header=mine.header.model_copy(update={"name": "other"}))
    second = other.push_to_hub("me/mine")
    assert urushi.Adapter.from_hub("me/mine", revision=first).name == "mine"
    assert urushi.Adapter.from_hub("me/mine", revision=second).name == "other"
    newest = run("pull", "me/mine", "--json")
    assert json.loads(newest.stdout)["revision"] == second
    hub.faults["."] = "drop"
    done = run("pull", "me/mine", "-o", tmp_path / "a.safetensors")
    assert done.exit_code == 0, done.stderr
    assert "note: the hub does not answer: commit" in done.stdout
    assert run("pull", "me/mine", "--offline").exit_code == 0
    nothing = run("pull", "me/other", "--offline")
    assert "has not been fetched yet" in nothing.stderr


def one_sentence(done, words):
    assert done.exit_code == (2 if "owner/name" in words else 1)
    assert words in done.stderr.replace("\n", " ")
    assert done.stderr.count("\n") == 1
    for token in (WRITER, READER, "hf_unknownunknown"):
        assert token not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("token", "repository", "fault", "words"),
    [
        ("", "me/mine", {}, "needs a token"),
        ("hf_unknownunknown", "me/mine", {}, "does not know this token"),
        (READER, "me/mine", {}, "may not write to me/mine"),
        (WRITER, "stranger/mine", {}, "may not write to stranger/mine"),
        (WRITER, "mine", {}, "expected owner/name"),
        (WRITER, "me/my name", {}, "expected owner/name"),
        (WRITER, WRITER, {}, "'***': expected owner/name"),
        (WRITER, "me/mine", {"POST /api/models.*commit": 404}, "the hub finds no me/mine"),
        (WRITER, "me/mine", {"POST /api/models.*commit": 413}, "no files of this size"),
        (WRITER, "me/mine", {"POST /api/models.*commit": 500}, "the hub failed (500)"),
        (WRITER, "me/mine", {"validate-yaml": 400}, "does not take it"),
        (WRITER, "me/mine", {"PUT /upload": "drop"}, "could not be reached to the end"),
        (WRITER, "me/mine", {"POST /api/repos": "drop"}, "could not be reached to the end"),
    ],
)
def test_refusals_are_one_sentence_without_tokens(
    hub, folder, monkeypatch, token, repository, fault, words
):
    monkeypatch.setenv("HF_TOKEN", token)
    hub.faults.update(fault)
    one_sentence(run("push", folder / "mine.safetensors", repository), words)
    assert "adapter.safetensors" not in (hub.at(repository) or ("", {}))[1]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"GET .*adapter": "half"}, "cannot be fetched"),
        ({"GET .*adapter": "drop"}, "cannot be reached"),
        ({".*adapter": 401}, "is kept from this token"),
        ({".*adapter": 500}, "try again later"),
    ],
)
def test_pulling_that_fails_is_told_and_writes_nothing(hub, folder, tmp_path, fault, words):
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/mine")
    hub.faults.update(fault)
    one_sentence(run("pull", "me/mine", "-o", tmp_path / "a.safetensors"), words)
    assert not (tmp_path / "a.safetensors").exists()
    hub.faults.clear()
    assert run("pull", "me/mine", "-o", tmp_path / "a.safetensors").exit_code == 0


def test_what_is_not_there_is_told(hub, folder):
    one_sentence(run("pull", "me/none"), "the hub has no repository me/none")
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/mine")
    one_sentence(run("pull", "me/mine", "--revision", "v9"), "has no revision 'v9'")
    hub.add("me/theirs", {"config.json": b'{"model_type": "bert"}', "model.bin": b"x"})
    one_sentence(run("pull", "me/theirs"), "holds nothing that  urushi push  put there")
    with pytest.raises(HubError, match=r"holds something else, such as .*--overwrite"):
        urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/theirs")
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/theirs", overwrite=True)
    assert "model.bin" in hub.at("me/theirs")[1]


def test_a_file_that_was_changed_is_refused(hub, folder):
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/mine")
    files = hub.at("me/mine")[1]
    other = {**files, "adapter.safetensors": files["adapter.safetensors"][:-1] + b"?"}
    hub.add("me/mine", other)
    one_sentence(run("pull", "me/mine"), "another file than me/mine states at commit")
    hub.add("me/mine", files)
    assert run("pull", "me/mine").exit_code == 0
    cached = urushi.Adapter.from_hub("me/mine").path.resolve()
    cached.chmod(0o644)
    cached.write_bytes(b"damaged")
    one_sentence(run("pull", "me/mine"), "delete it and pull again")


def test_a_file_that_changes_while_it_is_sent(hub, folder, tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    shutil.copyfile(folder / "mine.safetensors", path)
    copyfile = shutil.copyfile

    def change_first(source, target):
        path.write_bytes(path.read_bytes()[:-3])
        return copyfile(source, target)

    monkeypatch.setattr("urushi.convert.hub_push.shutil.copyfile", change_first)
    one_sentence(run("push", path, "me/mine"), "changed while it was read")
    assert hub.asked == []


def test_a_hub_that_holds_something_else_is_told(hub, folder, monkeypatch):
    from hub_support import Handler

    upload = Handler._upload
    monkeypatch.setattr(Handler, "_upload", lambda s, body, oid: upload(s, body[:-1] + b"?", oid))
    one_sentence(
        run("push", folder / "mine.safetensors", "me/mine"), "holds another adapter.safetensors"
    )


def test_an_all_in_one_file_goes_with_its_members(hub, tmp_path):
    done = run("push", "urushi/zoo/all-in-one.safetensors", "me/all", "--dry-run", "--json")
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"all-in-one.safetensors", "haze.safetensors", "rain.safetensors"} < set(said["files"])
    front, _ = front_of(said["texts"]["README.md"])
    assert {"router", "dehazing", "deraining"} < set(front["tags"])
    assert hub.asked == []


def test_a_kind_that_changes_takes_the_former_files_away(hub, folder):
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/mine")
    run("push", folder / "base.safetensors", "me/mine", "--licence", "MIT")
    assert set(hub.at("me/mine")[1]) == {
        ".gitattributes", "README.md", "config.json", "model.safetensors",
    }  # fmt: skip


def test_without_a_licence_nothing_is_pushed(hub, folder):
    one_sentence(run("push", folder / "base.safetensors", "me/base"), "states no licence")
    one_sentence(
        run("push", folder / "mine.safetensors", "me/mine", "--licence", "MIT"),
        "states the licence 'Apache-2.0', not 'MIT'",
    )
    assert hub.asked == []


@pytest.mark.parametrize(
    ("licence", "fields"),
    [
        ("CC-BY-SA-4.0", {"license": "cc-by-sa-4.0"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("Our own, v2", {"license": "other", "license_name": "our-own-v2"}),
    ],
)
def test_licences(licence, fields):
    assert licence_fields(licence) == fields


@pytest.mark.parametrize(
    "change",
    [
        {"file": "../up.safetensors"},
        {"files": {"../up.safetensors": {"sha256": "0" * 64, "size": 1}}},
        {"files": {}},
        {"version": 2},
        {"base": None},
    ],
)
def test_what_a_repository_says_is_checked(hub, folder, tmp_path, change):
    urushi.Adapter.load(folder / "mine.safetensors").push_to_hub("me/mine")
    said = json.loads(hub.at("me/mine")[1]["config.json"])
    said["urushi"] |= change
    (tmp_path / "config.json").write_text(json.dumps(said))
    with pytest.raises(FileFormatError, match="damaged, or made by a newer"):
        read_hub_config(tmp_path / "config.json")
