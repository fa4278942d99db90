"""`urushi adapt --into`: one more expert for an all-in-one file; nothing that was there is lost."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import run
from pictures import picture
from world import tiny_router, write_all_in_one, write_tiny_model

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import DataError, TargetError
from urushi.files.adapter import read_adapter
from urushi.files.all_in_one_file import read_all_in_one
from urushi.files.model import read_model, write_model
from urushi.files.router_file import RouterHeader, read_router
from urushi.image import write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.local_copies import LocalCopies
from urushi.inference.router_engine import open_router
from urushi.routing.extension import fit_class

DARK = 0.3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """An all-in-one file, and the same with a class for dark pictures."""
    root = tmp_path_factory.mktemp("into")
    for index in range(6):
        pixels = picture(32, 40, shift=float(index))
        for side, factor in (("input", DARK), ("target", 1.0)):
            (root / "pairs" / side).mkdir(parents=True, exist_ok=True)
            write_picture(root / "pairs" / side / f"{index}.png", pixels * np.float32(factor))
    (root / "before").mkdir()
    write_tiny_model(root / "before" / "tiny.safetensors")
    write_all_in_one(root / "before", root / "before" / "tiny.safetensors")
    shutil.copytree(root / "before", root / "after")
    result = extend(root, root / "after", "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    (root / "told.json").write_text(result.stdout)
    (root / "said.txt").write_text(result.stderr)
    return root


def extend(world, folder, *more, name="dark"):
    return run(
        *("adapt", "--into", f"{folder}/all-in-one.safetensors", "--name", name),
        *("--pairs", world / "pairs", "--method", "full", "--steps", 6),
        *("--device", "cpu", "--seed", 1, *more),
    )


def test_the_new_class_is_learned_and_told(world):
    told = json.loads((world / "told.json").read_text())
    assert told["adapter"] == str(world / "after" / "dark.safetensors")
    assert told["psnr"] > told["psnr_base"]
    router = told["router"]
    assert router["recognised"] >= 0.5  # of two, by an encoder that was never trained
    assert router["moved"] < 0.3
    said = (world / "said.txt").read_text()
    assert "new pictures are seen as dark" in said
    assert "the file does not say what its router was trained with" in said
    after = read_all_in_one(world / "after" / "all-in-one.safetensors")
    assert after.router.header.classes == ("clean", "noise", "haze", "dark")
    assert after.experts["dark"].adapter.header.degradations == ["dark"]
    assert after.router.header.scores["added dark"]["recognised"] == router["recognised"]
    # The expert works alone as well.
    alone = run(
        *("evaluate", "--pairs", world / "pairs", "--model", world / "after" / "tiny.safetensors"),
        *("--adapter", world / "after" / "dark.safetensors", "--engine", "torch", "--json", "-"),
    )
    assert alone.exit_code == EXIT_WELL, alone.stderr


def test_old_classes_keep_their_logits_and_results_to_the_bit(world):
    before, after = (world / name / "all-in-one.safetensors" for name in ("before", "after"))
    for name in ("noise", "haze"):
        file = f"{name}.safetensors"
        assert (before.parent / file).read_bytes() == (after.parent / file).read_bytes()
    old, new = open_router(before, device="cpu"), open_router(after, device="cpu")
    one, two = (AutoRestorer(path, engine="torch", device="cpu") for path in (before, after))
    same = 0
    for index in range(12):
        pixels = picture(30 + index, 41, shift=index / 3)
        first, second = old.read(pixels), new.read(pixels)
        assert np.array_equal(first.vector, second.vector)
        assert np.array_equal(first.logits, second.logits[:-1])
        if index < 4:
            results = one.restore(pixels), two.restore(pixels)
            if two.last.route == one.last.route:
                same += 1
                assert np.array_equal(*results)
    assert same > 0


@pytest.mark.parametrize("width", [6, 96, 128])
@pytest.mark.parametrize("classes", [2, 7, 9])
def test_a_logit_does_not_depend_on_how_many_there_are(width, classes):
    from urushi.routing.head import read_embeddings

    rng = np.random.default_rng(width)
    tensors = {
        "extractor.0.weight": rng.normal(size=(2 * width, 4 * width)),
        "extractor.0.bias": rng.normal(size=2 * width),
        "extractor.2.weight": rng.normal(size=(width, 2 * width)),
        "extractor.2.bias": rng.normal(size=width),
        "classifier.weight": rng.normal(size=(classes, width)),
        "classifier.bias": rng.normal(size=classes),
    }
    tensors = {name: tensor.astype(np.float32) for name, tensor in tensors.items()}
    views = rng.normal(size=(3, 2 * width)).astype(np.float32)
    few = read_embeddings(tensors, views).logits
    more = {
        **tensors,
        "classifier.weight": np.concatenate([tensors["classifier.weight"]] * 2),
        "classifier.bias": np.concatenate([tensors["classifier.bias"]] * 2),
    }
    assert np.array_equal(few, read_embeddings(more, views).logits[:classes])


def header(**facts):
    router = tiny_router()
    return RouterHeader(
        classes=("clean", "noise", "haze"),
        views=router.views,
        encoder=router.encoder.facts,
        **facts,
    )


@pytest.mark.parametrize("facts", [{}, {"mode": "multi"}, {"temperature": 0.4}])
def test_a_row_tells_what_can_be_told_apart(facts):
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 5)).astype(np.float32)
    logits = rng.normal(size=(60, 3)).astype(np.float32)
    of_it = np.arange(60) < 15
    vectors[of_it, 2] += 6
    row, bias = fit_class(vectors, logits, of_it, header(**facts))
    own = vectors @ row + bias
    rival = 0 if facts.get("mode") == "multi" else logits.max(1)
    assert ((own > rival) == of_it).mean() > 0.9
    # What cannot be told apart stays doubtful, and small.
    row, _ = fit_class(rng.normal(size=(60, 5)).astype(np.float32), logits, of_it, header(**facts))
    assert np.abs(row).max() < 2
    with pytest.raises(DataError, match="some of it and some of others"):
        fit_class(vectors, logits, np.ones(60, bool), header(**facts))


def test_old_classes_are_made_as_the_recipe_says(world, tmp_path):
    shutil.copytree(world / "before", tmp_path / "own")
    from test_routing_training import recipe

    stored = read_router(tmp_path / "own" / "all-in-one.safetensors")
    from urushi.files.router_file import write_router

    own = recipe().model_dump(mode="json")
    own["pictures"]["clean"] = ["pairs/target"]
    write_router(stored.path, stored.tensors, stored.header.model_copy(update={"recipe": own}))
    result = extend(world, tmp_path / "own", "--data", world, "--json", name="very-dark")
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)["router"]
    assert set(told["moved_by_class"]) == {"clean", "low_light", "noise"}
    assert "those of the router's recipe" in told["note"]


def test_a_router_that_remembers_needs_no_data_and_forgets_nothing(world, tmp_path):
    from urushi.files.router_file import RouterMemory, write_router

    shutil.copytree(world / "before", tmp_path / "own")
    path = tmp_path / "own" / "all-in-one.safetensors"
    stored = read_router(path)
    # Of three classes, apart from one another and from what dark pictures look like.
    reader = open_router(path, device="cpu")
    known = np.stack([reader.read(picture(30, 41, shift=i / 5)).vector for i in range(24)])
    memory = RouterMemory(known, np.eye(3, dtype=np.float32)[np.arange(24) % 3])
    write_router(path, {**stored.tensors, **memory.tensors}, stored.header)
    result = extend(world, tmp_path / "own", "--json")
    assert result.exit_code == EXIT_WELL, result.stderr
    told = json.loads(result.stdout)["router"]
    assert set(told["moved_by_class"]) == {"clean", "noise", "haze"}
    assert "measured by when it was trained" in told["note"]
    after = read_router(path)
    assert after.header.added == ("dark",)
    assert after.memory.truths.sum(0).tolist() == [8, 8, 8, told["pictures"]]
    np.testing.assert_array_equal(after.memory.vectors[:24], memory.vectors)
    # What the new class does not win is decided as before, to the bit.
    now = open_router(path, device="cpu")
    kept = 0
    for index in range(12):
        pixels = picture(30 + index, 41, shift=index / 3)
        one, two = (router.decide(router.read(pixels)) for router in (reader, now))
        if two.weights["dark"] == 0:
            kept += 1
            assert two.weights == {**one.weights, "dark": 0.0}
            assert two.reason == one.reason
    assert kept > 6


# --- what is wrong ---


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("noise", "already has a class 'noise'"),
        ("clean", "already"),
        ("a/b", "cannot name a class"),
    ],
)
def test_names_that_cannot_be_taken(world, name, words):
    result = extend(world, world / "before", name=name)
    assert result.exit_code in (EXIT_FAILED, EXIT_USAGE)
    assert words in result.stderr
    assert not (world / "before" / "a").exists()


def test_options_that_do_not_go_together(world, tmp_path):
    file, pairs = world / "before" / "all-in-one.safetensors", world / "pairs"
    for words in (
        ("--into", file),
        ("--name", "x", "-o", tmp_path / "x.safetensors"),
        ("--into", file, "--name", "x", "-o", tmp_path / "x.safetensors"),
        ("--data", tmp_path, "-o", tmp_path / "x.safetensors"),
        (),
    ):
        assert run("adapt", "--pairs", pairs, *words).exit_code == EXIT_USAGE
    for method in ("guidance", "experts"):
        result = run(
            "adapt", "--pairs", pairs, "-o", tmp_path / "x.safetensors", "--method", method
        )
        assert result.exit_code == EXIT_USAGE
        assert "does nothing without a router" in result.stderr


def test_a_file_is_left_alone_where_nothing_was_learned(world, tmp_path):
    # A base that changes nothing, for pictures that are right: no adapter can be better.
    (tmp_path / "own").mkdir()
    base = read_model(world / "before" / "tiny.safetensors")
    tensors = {n: 0 * t if n.startswith("ending") else t for n, t in base.tensors.items()}
    write_model(tmp_path / "own" / "tiny.safetensors", tensors, base.header)
    write_all_in_one(tmp_path / "own", tmp_path / "own" / "tiny.safetensors")
    kept = (tmp_path / "own" / "all-in-one.safetensors").read_bytes()
    pairs = tmp_path / "pairs"
    for side in ("input", "target"):
        shutil.copytree(world / "pairs" / "target", pairs / side)
    result = run(
        *("adapt", "--into", tmp_path / "own" / "all-in-one.safetensors", "--name", "same"),
        *("--pairs", pairs, "--method", "full", "--steps", 1, "--device", "cpu"),
    )
    assert result.exit_code == EXIT_FAILED
    assert (tmp_path / "own" / "all-in-one.safetensors").read_bytes() == kept
    assert not (tmp_path / "own" / "same.safetensors").exists()


def test_a_file_in_a_store_is_extended_there(world, monkeypatch, tmp_path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path))
    for path in (world / "before").iterdir():
        store.pipe(f"/models/{path.name}", path.read_bytes())
    try:
        told = extend(world, "memory://models")
        assert told.exit_code == EXIT_WELL, told.stderr
        assert "all in one: memory://models/all-in-one.safetensors tells 4" in told.stdout
        for name in ("all-in-one.safetensors", "dark.safetensors"):
            (tmp_path / name).write_bytes(store.cat(f"/models/{name}"))
        here = read_all_in_one(world / "after/all-in-one.safetensors").router.header
        assert read_router(tmp_path / "all-in-one.safetensors").header == here
        expected = read_adapter(world / "after/dark.safetensors").tensors
        for name, tensor in read_adapter(tmp_path / "dark.safetensors").tensors.items():
            np.testing.assert_array_equal(tensor, expected[name])
        assert not list(tmp_path.glob("urls/*/made/*"))
        again = extend(world, "memory://models")
        assert again.exit_code == EXIT_FAILED  # there is such a class
    finally:
        store.rm("/models", recursive=True)


def test_what_was_replaced_meanwhile_is_left_alone(world, monkeypatch, tmp_path):
    store = pytest.importorskip("fsspec").filesystem("memory")
    monkeypatch.setenv("URUSHI_CACHE", str(tmp_path))
    content = (world / "before/all-in-one.safetensors").read_bytes()
    store.pipe("/models/all-in-one.safetensors", content)
    copies = LocalCopies(lambda sentence: None)
    path = copies.changed("memory://models/all-in-one.safetensors")
    assert path.read_bytes() == content
    store.pipe("/models/all-in-one.safetensors", b"of somebody else")
    try:
        with pytest.raises(TargetError, match="was replaced while a class was added") as told:
            copies.send_changed(path)
        assert store.cat("/models/all-in-one.safetensors") == b"of somebody else"
        kept = str(told.value).rpartition(" ")[2]
        assert Path(kept).read_bytes() == content
    finally:
        store.rm("/models", recursive=True)
