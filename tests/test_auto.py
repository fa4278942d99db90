"""Restoring by itself: what is seen decides which experts act; what does not belong is told."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from commands import run
from pictures import picture, write_pictures
from pydantic import ValidationError
from world import (
    CLASSES,
    SEEN,
    make_data,
    tiny_router,
    write_all_in_one,
    write_random,
)

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError, DataError, EngineError, FileFormatError, UrushiError
from urushi.evaluation.benchmark import PictureScore, Triplet, clean_benchmark
from urushi.evaluation.metrics import named_protocol, score
from urushi.evaluation.routes import Routes, class_of
from urushi.files.adapter import base_facts, read_adapter
from urushi.files.all_in_one_file import member_of, read_all_in_one
from urushi.files.model import read_model
from urushi.files.router_file import Member, read_router, write_router
from urushi.image import read_picture
from urushi.inference import zoo
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Choice
from urushi.inference.guard.damage import Guard
from urushi.inference.inspection import inspect_file
from urushi.inference.restorer import Restorer
from urushi.routing.router import save_router


@pytest.fixture
def own(world, tmp_path):
    """A copy of the files, to be spoilt."""
    for path in world.glob("*.safetensors"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


def file_of(folder):
    return folder / "all-in-one.safetensors"


def opened(folder, **options):
    return AutoRestorer(file_of(folder), engine="torch", device="cpu", **options)


def changed(folder, **facts):
    """The all-in-one file with other facts in its header."""
    stored = read_router(file_of(folder))
    write_router(stored.path, stored.tensors, stored.header.model_copy(update=facts))


# --- restoring ---


def test_the_expert_of_what_is_seen_acts(world):
    auto = opened(world)
    restored = auto.restore(picture())
    assert auto.last.decision.seen == SEEN
    assert auto.last.route == ((SEEN, 1.0),)
    told = auto.last.describe()
    assert told["seen"] == SEEN
    assert told["sure"] == pytest.approx(max(told["probabilities"].values()), abs=1e-4)
    right = Restorer(
        world / "tiny.safetensors", adapters=[world / f"{SEEN}.safetensors"], engine="torch"
    )
    assert np.array_equal(restored, right.restore(picture()))
    json.dumps(auto.describe())


def test_an_unsure_router_leaves_it_to_the_base(world):
    auto = opened(world, threshold=1.0)
    restored = auto.restore(picture())
    assert auto.last.route == ()
    assert auto.last.describe()["abstained"]
    base = Restorer(world / "tiny.safetensors", engine="torch")
    assert np.array_equal(restored, base.restore(picture()))


def test_several_experts_share_by_their_weights(world):
    auto = opened(world, k=3)
    restored = auto.restore(picture())
    (one, two) = auto.last.route
    assert 0 < one[1] < 1
    adapters = [(world / f"{name}.safetensors", weight) for name, weight in (one, two)]
    both = Restorer(world / "tiny.safetensors", adapters=adapters, engine="torch")
    assert np.array_equal(restored, both.restore(picture()))
    with pytest.raises(AdapterError, match="k is 4"):
        opened(world, k=4)


def test_a_task_that_is_told_needs_no_router(world):
    for task, files in (("noise", ["noise"]), ("none", [])):
        auto = opened(world, task=task)
        assert auto._router is None
        expected = Restorer(
            world / "tiny.safetensors",
            adapters=[world / f"{name}.safetensors" for name in files],
            engine="torch",
        ).restore(picture())
        assert np.array_equal(auto.restore(picture()), expected)
        assert auto.last.decision is None
        assert "as told" in auto.last.reason
    with pytest.raises(AdapterError, match="did you mean 'noise'"):
        opened(world, task="nois")


def test_a_class_without_an_expert_is_left_to_the_base(own):
    members = read_router(file_of(own)).header.experts
    changed(own, experts={"noise": members["noise"]})
    auto = opened(own)
    auto.restore(picture())
    assert auto.last.route == ()
    assert "there is no expert for haze" in auto.last.reason


def test_pictures_of_every_kind_are_chosen_for_alike(world, tmp_path):
    auto = opened(world)
    pixels = picture()
    write_pictures(tmp_path, 1)
    of_file = auto.choose_file(tmp_path / "picture0.png")
    whole = np.rint(read_picture(tmp_path / "picture0.png") * 255).astype(np.uint8)
    alpha = np.concatenate([whole, np.full((*whole.shape[:2], 1), 9, np.uint8)], 2)
    for given in (whole, alpha, whole.astype(np.uint16) * 257, whole / np.float64(255)):
        assert auto.choose(given).decision.probabilities == pytest.approx(
            of_file.decision.probabilities, abs=1e-5
        )
    assert auto.choose(pixels[:, :, 0]).decision is not None
    with pytest.raises(UrushiError):
        auto.restore(np.zeros((0, 4, 3), np.float32))


def test_engines_are_kept_for_routes_that_come_again(world):
    auto = opened(world, kept=2)
    routes = [((name, 1.0),) for name in ("noise", "haze")]
    first = auto.restorer(Choice(routes[0], ""))
    assert auto.restorer(Choice(routes[1], "")) is not first
    assert auto.restorer(Choice(routes[0], "")) is first
    auto.restorer(Choice((), ""))  # haze was asked for longest ago
    assert auto.restorer(Choice(routes[0], "")) is first
    assert len(auto._ready) == 2


def test_branches_are_attached_and_guidance_reads_the_vector(world, tmp_path):
    base = read_model(world / "tiny.safetensors")
    shutil.copy(world / "tiny.safetensors", tmp_path)
    guide = {"method": "guidance", "vector": 4, "hidden": 4, "reduction": 2}
    guidance = write_random(tmp_path / "guidance.safetensors", base, size=0.5, **guide)
    write_all_in_one(
        tmp_path,
        tmp_path / "tiny.safetensors",
        facts={"guidance": member_of(guidance)},
        method="adaptir",
    )
    auto = opened(tmp_path)
    restored = auto.restore(picture())
    assert auto.last.vector.shape == (4,)
    other = replace(auto.last, vector=auto.last.vector + 1)
    assert not np.allclose(auto.restorer(other).restore(picture()), restored)
    assert np.array_equal(auto.restorer(auto.last).restore(picture()), restored)
    unguided = auto.restorer(replace(auto.last, vector=None)).restore(picture())
    right = Restorer(base, adapters=[tmp_path / f"{SEEN}.safetensors"], engine="torch")
    np.testing.assert_allclose(unguided, right.restore(picture()), atol=1e-6)
    with pytest.raises(EngineError, match="openvino cannot run guidance"):
        AutoRestorer(file_of(tmp_path), engine="openvino").restore(picture())


# --- files that do not belong together ---


@pytest.mark.parametrize(
    "name",
    ["../noise.safetensors", "/etc/x.safetensors", "a/b.safetensors", "a\\b.safetensors",
     "noise.pth", ".safetensors", ".hidden.safetensors", "c:x.safetensors", "a\nb.safetensors"],
)  # fmt: skip
def test_hostile_names_are_refused(own, name):
    with pytest.raises(ValidationError):
        Member(file=name, tensors_hash="0" * 64)
    content = file_of(own).read_bytes()
    # As somebody would who writes such a file without our help.
    old = b"noise.safetensors"
    if len(name) <= len(old):
        escaped = json.dumps(name).encode().strip(b'"')
        file_of(own).write_bytes(content.replace(old, escaped.rjust(len(old), b"x")[: len(old)], 1))
        with pytest.raises(UrushiError):
            read_all_in_one(file_of(own))


def test_links_out_of_the_folder_are_refused(own, tmp_path_factory):
    away = tmp_path_factory.mktemp("away") / "noise.safetensors"
    shutil.move(own / "noise.safetensors", away)
    os.symlink(away, own / "noise.safetensors")
    with pytest.raises(FileFormatError, match="link out of its folder"):
        read_all_in_one(file_of(own))


def test_members_must_be_those_that_are_meant(own, world):
    (own / "noise.safetensors").unlink()
    with pytest.raises(FileFormatError, match="not beside it"):
        read_all_in_one(file_of(own))
    shutil.copy(world / "haze.safetensors", own / "noise.safetensors")
    with pytest.raises(FileFormatError, match=r"names 'noise\.safetensors' with tensors"):
        read_all_in_one(file_of(own))
    assert inspect_file(file_of(own))["problem"]


def test_members_must_belong_to_the_base(own):
    base = read_model(own / "tiny.safetensors")
    other = replace(base, header=base.header.model_copy(update={"weights_hash": "1" * 64}))
    expert = write_random(own / "noise.safetensors", other)
    experts = read_router(file_of(own)).header.experts
    changed(own, experts={**experts, "noise": member_of(expert)})
    with pytest.raises(AdapterError, match="was made for"):
        read_all_in_one(file_of(own))


def test_a_router_alone_or_a_mixture_is_no_all_in_one(own):
    save_router(own / "alone.safetensors", tiny_router(), CLASSES)
    with pytest.raises(FileFormatError, match="a router alone"):
        AutoRestorer(own / "alone.safetensors")
    base = read_model(own / "tiny.safetensors")
    mixture = write_random(own / "noise.safetensors", base, method="experts", count=1)
    experts = read_router(file_of(own)).header.experts
    changed(own, experts={**experts, "noise": member_of(mixture)})
    with pytest.raises(AdapterError, match="does nothing alone"):
        read_all_in_one(file_of(own))


def test_headers_that_contradict_themselves_are_refused(own):
    base = read_model(own / "tiny.safetensors")
    member = member_of(read_adapter(own / "noise.safetensors"))
    for facts in (
        {"experts": {"noise": member}},
        {"base": base_facts(base)},
        {"experts": {"snow": member}, "base": base_facts(base)},
        {"experts": {"clean": member}, "base": base_facts(base)},
    ):
        with pytest.raises(FileFormatError, match="cannot be written"):
            save_router(own / "x.safetensors", tiny_router(), CLASSES, **facts)


def test_the_base_is_found_and_never_elsewhere(own, world):
    assert opened(own).base.path == own / "tiny.safetensors"
    (own / "tiny.safetensors").unlink()
    with pytest.raises(AdapterError, match="give it with --model"):
        opened(own)
    assert opened(own, model=world / "tiny.safetensors").base.path == world / "tiny.safetensors"
    stored = read_router(file_of(own)).header
    hostile = stored.base.model_copy(update={"name": f"../{world.name}/tiny"})
    changed(own, base=hostile)
    with pytest.raises(AdapterError, match="give it with --model"):
        opened(own)


# --- commands ---


def restore(world, out, *more):
    return run(
        *("restore", world / "pictures", "-o", out, "--engine", "torch", "--device", "cpu"), *more
    )


def test_restore_tells_what_it_saw(world, tmp_path):
    result = restore(world, tmp_path / "a", "--router", file_of(world))
    assert result.exit_code == EXIT_WELL, result.stderr
    assert result.stdout.count(f": {SEEN} (") == 3
    told = restore(world, tmp_path / "b", "--router", file_of(world), "--json")
    content = json.loads(told.stdout)
    assert [row["router"]["seen"] for row in content["files"]] == [SEEN] * 3
    assert content["restorer"]["task"] == "auto"
    same = restore(world, tmp_path / "c", "--router", file_of(world), "--task", SEEN)
    assert "as told" in same.stdout
    for name in ("picture0.png", "picture2.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "c" / name).read_bytes()


def test_what_ships_chooses_unless_something_else_is_asked_for(world, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "ZOO", world)
    told = json.loads(restore(world, tmp_path / "a", "--json").stdout)
    assert told["files"][0]["router"]["seen"] == SEEN
    told = json.loads(restore(world, tmp_path / "b", "--task", "noise", "--json").stdout)
    assert told["files"][0]["router"]["route"] == {"noise": 1.0}
    for words in (
        ("--model", world / "tiny.safetensors"),
        ("--model", "tiny", "--task", "none"),
        ("--model", "tiny", "--adapter", world / "noise.safetensors"),
    ):
        told = json.loads(restore(world, tmp_path / "c", *words, "--overwrite", "--json").stdout)
        assert "router" not in told["files"][0]
    assert zoo.zoo_names() == ["tiny"]
    assert zoo.zoo_experts() == ["haze", "noise"]


def test_restore_says_what_cannot_be_chosen(world, tmp_path):
    adapter = ("--adapter", world / "noise.safetensors")
    assert restore(world, tmp_path, *adapter, "--task", "auto").exit_code == EXIT_USAGE
    assert restore(world, tmp_path, *adapter, "--router", file_of(world)).exit_code == EXIT_USAGE
    for words, said in (
        (("--router", tmp_path / "no.safetensors"), "neither a file"),
        (("--router", world / "noise.safetensors"), "an adapter file"),
        (("--router", file_of(world), "--task", "snow"), "all-in-one.safetensors has auto"),
        (("--model", file_of(world)), "give it with --router"),
    ):
        result = restore(world, tmp_path / "out", *words)
        assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
        assert said in result.stderr
        assert result.stderr.count("\n") == 1


def test_routes_that_are_compared_are_held_to_nothing(world, monkeypatch):
    """What a guard held back of the picture's own route says nothing of the others."""
    auto, bad = opened(world), picture()
    auto.restore(bad)
    held = replace(auto.last, route=((SEEN, 0.5),), guard=Guard(0, "nothing is wrong with it"))
    monkeypatch.setattr(AutoRestorer, "last", property(lambda self: held))
    routes = Routes(auto, clean_benchmark(world, None), SEEN)
    row = PictureScore(
        name="a", width=64, height=48, psnr_input=30.0, ssim_input=0.9, psnr=31.0, ssim=0.9
    )
    clean = np.clip(bad + 0.05, 0, 1)
    routes(1, 1, row, Triplet(bad, bad, clean))
    (found,) = routes.result().pictures
    experts = {"base": [], "right": [world / f"{SEEN}.safetensors"]}
    for name, adapters in experts.items():
        alone = Restorer(world / "tiny.safetensors", adapters=adapters, engine="torch")
        expected = score(alone.restore(bad), clean, named_protocol("rgb-8bit"))
        assert getattr(found, f"psnr_{name}") == pytest.approx(expected.psnr, abs=1e-3)
    assert found.psnr_automatic == 31.0


def test_evaluate_sets_the_routes_side_by_side(world, tmp_path):
    make_data(tmp_path)
    noise = ("--clean", tmp_path / "clean", "--degrade", "gaussian_noise")
    result = run(
        *("evaluate", *noise, "--router", file_of(world), "--engine", "torch", "--device", "cpu"),
        *("--json", tmp_path / "scores.json", "--confusion", tmp_path / "confusion.png"),
    )
    assert result.exit_code == EXIT_WELL, result.stderr
    assert "Routes, mean dB" in result.stdout
    content = json.loads((tmp_path / "scores.json").read_text())
    (routes,) = content["routes"]
    assert routes["kind"] == "noise"
    assert len(routes["pictures"]) == 3
    by_task = {}
    for task in ("noise", "haze"):
        words = ("--router", file_of(world), "--task", task, "--engine", "torch", "--json", "-")
        told = run("evaluate", *noise, *words)
        assert told.exit_code == EXIT_WELL, told.stderr
        by_task[task] = json.loads(told.stdout)["results"][0]["means"]["psnr"]
    assert routes["means"]["psnr_right"] == pytest.approx(by_task["noise"], abs=1e-6)
    assert routes["means"]["psnr_wrong"] == pytest.approx(by_task["haze"], abs=1e-6)
    automatic = content["results"][0]["means"]["psnr"]
    assert routes["means"]["psnr_automatic"] == pytest.approx(automatic)
    assert read_picture(tmp_path / "confusion.png").shape[0] > 200


def test_what_a_benchmark_shows_is_told_from_its_name():
    from urushi.evaluation.benchmark import BENCHMARKS

    classes = ("clean", "haze", "rain", "snow", "low-light", "raindrop", "blur", "noise", "jpeg")
    expected = {
        "lowlight-lol": "low-light", "dehaze-sots-indoor": "haze", "derain-rain100h": "rain",
        "denoise-polyu": "noise", "kodak24-jpeg10": "jpeg", "kodak24-clean": "clean",
        "cbsd68-noise25": "noise", "classic5-jpeg30": "jpeg",
    }  # fmt: skip
    assert {name: class_of(BENCHMARKS[name], classes) for name in expected} == expected
    mixed = clean_benchmark(".", {"name": "holes"})
    with pytest.raises(DataError, match="does not follow from its name"):
        class_of(mixed, classes)
    assert class_of(mixed, classes, "snow") == "snow"
    with pytest.raises(DataError, match="did you mean 'snow'"):
        class_of(mixed, classes, "snwo")
