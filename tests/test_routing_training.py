"""Training a router: balanced batches, resuming to the bit, and what the file says afterwards."""

import signal

import numpy as np
import pytest
import torch
from world import newest, tiny_clip

from urushi.data.pack import PackedPictures, pack_pictures
from urushi.errors import DataError, RecipeError, UrushiError
from urushi.evaluation.confusion import (
    accuracy,
    class_accuracies,
    confusion_matrix,
    draw_confusion,
)
from urushi.files.router_file import read_router
from urushi.image import write_picture
from urushi.inference.router_engine import open_router
from urushi.settings import parse_settings
from urushi.training.router.router_batches import router_batches
from urushi.training.router.router_recipe import RouterRecipe, load_router_recipe
from urushi.training.router.router_training import RouterData, train_router

TINY = {
    "name": "tiny",
    "classes": {
        "clean": {},
        "low_light": {"degradation": {"name": "low_light"}},
        "noise": {"degradation": {"name": "gaussian_noise", "sigma_255": [50, 60]}},
    },
    "encoder": {"kind": "compact", "widths": [4, 6], "width": 8, "blocks": 0},
    "views": {"layout": "native", "size": 16, "most": 2},
    "pictures": {"clean": ["clean"], "sides": [24, 32], "per_class": 2},
    "steps": 6,
    "validation": {"per_class": 4, "every": 3},
}


def recipe(**changes):
    return parse_settings({**TINY, **changes}, RouterRecipe, RecipeError, "test")


def make_pack(folder, seed=0, level=1.0):
    """Three small smooth pictures, packed."""
    rng = np.random.default_rng(seed)
    for index, (height, width) in enumerate([(48, 56), (44, 60), (64, 64)]):
        coarse = 0.3 + 0.6 * rng.random((4, 4, 3), dtype=np.float32)
        picture = level * np.kron(coarse, np.ones((16, 16, 1), np.float32))[:height, :width]
        write_picture(folder / f"{index}.png", picture)
    return PackedPictures(pack_pictures([folder], folder / "pack.safetensors").path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folders = []
    for name in ("train", "validation"):
        folders.append(tmp_path_factory.mktemp(name))
    return RouterData(*(make_pack(folder, seed) for seed, folder in enumerate(folders)))


def batches(data, real=None, **changes):
    own, device = recipe(**changes), torch.device("cpu")
    return router_batches(own, data.clean, real or {}, device, seed=0, augment=True)


# --- batches ---


def test_batches_are_balanced_and_a_function_of_the_step(data):
    draw = batches(data)
    sides = set()
    for step in range(8):
        first, again = draw(step), batches(data)(step)
        assert torch.equal(first.degraded, again.degraded)
        assert first.applied.sum(0).tolist() == [2, 2, 2]
        assert first.applied.sum(1).tolist() == [1] * 6
        sides.add(first.degraded.shape[-1])
    assert sides == {24, 32}
    assert not torch.equal(draw(0).degraded[0, 0, :8, :8], draw(1).degraded[0, 0, :8, :8])


def test_pictures_are_what_their_class_says(data):
    batch = batches(data)(0)
    clean, dark, noisy = ((batch.applied[:, k]) for k in range(3))
    change = batch.degraded - batch.clean
    assert change[clean].abs().max() <= 0.51 / 255
    assert change[dark].mean() < -0.05
    assert change[noisy].std() > 0.1


def test_pictures_of_a_class_replace_its_degradation(data, tmp_path):
    black = make_pack(tmp_path, level=0.0)
    changes = {"pictures": {**TINY["pictures"], "real": 1.0}}
    batch = batches(data, {"noise": black, "clean": black}, **changes)(0)
    assert not batch.degraded[batch.applied[:, 2] | batch.applied[:, 0]].any()
    assert batch.degraded[batch.applied[:, 1]].any()
    none = {"pictures": {**TINY["pictures"], "real": 0.0}}
    batch = batches(data, {"noise": black}, **none)(0)
    assert batch.degraded[batch.applied[:, 2]].any()


def test_clean_pictures_are_reduced_in_every_other_step(data):
    pictures = {**TINY["pictures"], "sides": [24], "reduce": 1.5}
    plain, reduced = batches(data, pictures=pictures).by_side
    assert reduced.reduce == 1.5
    fine = [draw(0).clean.diff(dim=-1).abs().mean() for draw in (plain, reduced)]
    assert fine[1] > 1.1 * fine[0]
    assert reduced(0).degraded.shape == plain(0).degraded.shape == (6, 3, 24, 24)
    # No farther than the pictures go, which are 48 pixels high: 40 / 1.5 + 8 of them.
    pictures = {**pictures, "sides": [32], "reduce": 4}
    assert batches(data, pictures=pictures).by_side[1].reduce == 48 / 40
    held = router_batches(
        recipe(pictures=pictures), data.clean, {}, torch.device("cpu"), seed=0, augment=False
    )
    assert [draw.reduce for draw in held.by_side] == [1.0]


def test_pictures_of_all_classes_go_through_the_same_around_their_damage(data, tmp_path):
    dark = {"name": "develop", "gamma": [3, 3], "contrast": [1, 1], "sharpness": [0, 0]}
    pictures = {**TINY["pictures"], "real": 1.0}
    white = {"clean": make_pack(tmp_path)}
    plain = batches(data, white, pictures=pictures)(0)
    after = batches(data, white, pictures={**pictures, "after": dark})(0)
    change = (after.degraded - plain.degraded).mean((1, 2, 3))
    assert (change < -0.05).all()  # those of a class's own folders, too
    before = batches(data, pictures={**pictures, "before": dark})(0)
    assert (before.clean.mean() < plain.clean.mean() - 0.1).all()
    assert (before.degraded - before.clean)[before.applied[:, 0]].abs().max() <= 0.51 / 255
    smaller = {**pictures, "after": {"name": "downsample"}}
    with pytest.raises(RecipeError, match="downsample, which all pictures go through"):
        batches(data, pictures=smaller)(0)


def test_mixtures_and_unknown_damage_are_shares_of_the_truth(data):
    unknown = {"name": "gaussian_noise", "sigma_255": [200, 200]}
    pictures = {**TINY["pictures"], "mixed": 1.0, "unknown": unknown}
    batch = batches(data, pictures=pictures)(0)
    # Clean, dark, noisy, unknown, and again: what is spoilt is both.
    alone = [[True, False, False], [False, True, True], [False, True, True], [True] * 3]
    assert batch.applied.tolist() == alone * 2
    change = (batch.degraded - batch.clean).std((1, 2, 3))
    assert change[[3, 7]].min() > max(0.25, change[[0, 1, 2, 4, 5, 6]].max())
    multi = batches(data, mode="multi", pictures={**TINY["pictures"], "unknown": unknown})(0)
    assert not multi.applied[[3, 7]].any()
    none = batches(data, pictures={**pictures, "mixed": 0.0})(0)
    assert none.applied[[0, 1, 2]].sum(1).tolist() == [1, 1, 1]


def test_more_pictures_of_one_class_are_learned_from_than_measured_by(data):
    classes = {**TINY["classes"], "clean": {"oversample": 3}}
    assert batches(data, classes=classes)(0).applied.sum(0).tolist() == [6, 2, 2]
    held = router_batches(
        recipe(classes=classes), data.clean, {}, torch.device("cpu"), seed=0, augment=False,
        measuring=True,
    )  # fmt: skip
    assert held(0).applied.sum(0).tolist() == [2, 2, 2]


def test_a_router_learns_from_mixtures_and_is_measured_without(data, tmp_path):
    pictures = {**TINY["pictures"], "mixed": 0.5, "unknown": {"name": "holes"}}
    result = train_router(recipe(pictures=pictures), data, tmp_path / "run", device="cpu")
    measured = result.header.scores["validation"]
    assert measured["pictures"] == np.sum(measured["confusion"]) < 16
    assert (read_router(result.path).memory.truths.sum(1) == 3).sum() == 4


def test_pictures_of_a_class_that_are_too_small_are_made_instead(data, tmp_path):
    rng = np.random.default_rng(0)
    for index in range(2):
        write_picture(tmp_path / f"{index}.png", rng.random((28, 28, 3), dtype=np.float32))
    small = PackedPictures(pack_pictures([tmp_path], tmp_path / "pack.safetensors").path)
    draw = batches(data, {"noise": small})
    assert [sorted(by_side.real) for by_side in draw.by_side] == [[2], []]  # sides 24 and 32
    assert draw.by_side[1](0).applied.sum(0).tolist() == [2, 2, 2]


def test_several_degradations_of_one_picture(data):
    draw = batches(data, mode="multi", max_degradations=2)
    labels = torch.cat([draw(step).applied for step in range(10)])
    assert set(labels.sum(1).tolist()) == {1, 2}
    assert not (labels[:, 0] & labels[:, 1:].any(1)).any()
    assert (labels[:, 1] & labels[:, 2]).any()


def test_classes_without_pictures_are_refused(data):
    with pytest.raises(DataError, match="class snow has no degradation"):
        batches(data, classes={**TINY["classes"], "snow": {"pictures": ["snow"]}})
    with pytest.raises(RecipeError, match="given for 'fog'"):
        batches(data, {"fog": data.clean})
    draw = batches(data, classes={"clean": {}, "small": {"degradation": {"name": "downsample"}}})
    with pytest.raises(RecipeError, match="changes a picture's size"):
        draw(0)


# --- training ---


def test_a_router_learns_and_its_file_says_how_well(data, tmp_path):
    own = recipe(
        steps=60,
        validation={"per_class": 20, "every": 80},
        optimizer={"learning_rate": 1e-2},
    )
    told = []
    result = train_router(own, data, tmp_path, device="cpu", on_progress=told.append)
    assert result.finished
    assert told[-1].step == 60
    assert told[-1].scores["accuracy"] == accuracy(result.confusion) > 0.75
    stored = read_router(result.path)
    scores = stored.header.scores["validation"]
    assert scores["pictures"] == result.confusion.sum() == 60
    assert scores["accuracy"] == told[-1].scores["accuracy"]
    assert scores["ece"] < 0.3
    assert stored.header.recipe == own.model_dump(mode="json")
    opened = open_router(result.path, device="cpu")
    dark = opened.decide(opened.read(0.02 * np.ones((40, 40, 3), np.float32)), threshold=0)
    assert dark.seen == "low_light"


def test_the_file_remembers_what_it_was_measured_by(data, tmp_path):
    result = train_router(recipe(), data, tmp_path / "run", device="cpu")
    stored = read_router(result.path)
    memory = stored.memory
    assert memory.truths.sum(0).tolist() == [4, 4, 4]
    weight, bias = (stored.tensors[f"head.classifier.{name}"] for name in ("weight", "bias"))
    seen = (memory.vectors @ weight.T + bias).argmax(1)
    right = float((seen == memory.truths.argmax(1)).mean())
    assert right == pytest.approx(stored.header.scores["validation"]["accuracy"])


@pytest.mark.parametrize("mode", ["single", "multi"])
def test_a_resumed_training_ends_where_an_unbroken_one_does(data, tmp_path, mode):
    own = recipe(mode=mode)
    whole = train_router(own, data, tmp_path / "whole", device="cpu")

    def interrupt(progress):
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    run = tmp_path / "parts"
    part = train_router(own, data, run, device="cpu", on_progress=interrupt)
    assert (part.finished, part.stopped_by, part.path) == (False, signal.SIGINT, None)
    assert newest(run).step == part.step == 3
    again = train_router(own, data, run, device="cpu", resume=True)
    assert [(r["step"], r["loss"], r.get("accuracy")) for r in again.log] == [
        (r["step"], r["loss"], r.get("accuracy")) for r in whole.log
    ]
    assert [r["step"] for r in whole.log if "accuracy" in r] == [3, 6]
    assert again.header.tensors_hash == whole.header.tensors_hash


def test_a_router_that_was_trained_but_not_written_is_written_by_resuming(data, tmp_path):
    whole = train_router(recipe(), data, tmp_path, device="cpu")
    whole.path.unlink()
    again = train_router(recipe(), data, tmp_path, device="cpu", resume=True)
    assert again.header.tensors_hash == whole.header.tensors_hash
    assert again.header.scores == whole.header.scores
    assert again.confusion.tolist() == whole.confusion.tolist()


def test_a_training_is_deterministic(data, tmp_path):
    one, two = (train_router(recipe(steps=3), data, tmp_path / name, device="cpu") for name in "ab")
    assert one.header.tensors_hash == two.header.tensors_hash


def test_a_router_on_clip_trains_the_head_alone(data, tmp_path):
    tiny_clip().save_pretrained(tmp_path / "clip")
    encoder = {"kind": "clip", "name": str(tmp_path / "clip")}
    own = recipe(encoder=encoder, views=None, steps=2)
    result = train_router(own, data, tmp_path / "run", device="cpu", download=False)
    assert result.header.encoder.kind == "clip"
    assert result.header.views.layout == "squashed"
    stored = read_router(result.path).tensors
    assert all(name.startswith(("head.", "memory.")) for name in stored)
    moments = newest(tmp_path / "run").group("moment1")
    assert set(moments) == {f"{k}.{p}" for k in
        ("extractor.0", "extractor.2", "classifier") for p in ("weight", "bias")}  # fmt: skip


def test_another_training_is_not_continued(data, tmp_path):
    train_router(recipe(steps=1), data, tmp_path, device="cpu")
    with pytest.raises(RecipeError, match="holds a training at step 1"):
        train_router(recipe(steps=2), data, tmp_path, device="cpu")
    with pytest.raises(RecipeError, match="was started with seed 0"):
        train_router(recipe(steps=2, seed=1), data, tmp_path, device="cpu", resume=True)
    others = RouterData(data.validation, data.clean)
    with pytest.raises(RecipeError, match="trained on other pictures"):
        train_router(recipe(steps=2), others, tmp_path, device="cpu", resume=True)


def test_a_training_that_diverges_says_so(data, tmp_path):
    wild = {"learning_rate": 1e30, "clip": None}
    with pytest.raises(UrushiError, match="learning_rate"):
        train_router(recipe(optimizer=wild, steps=8), data, tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": {"clean": {"degradation": {"name": "jpeg"}}, "a": {"pictures": ["a"]}}},
         "clean has a degradation"),
        ({"classes": {"clean": {}, "a": {}}}, "class a has neither"),
        ({"classes": {"clean": {}}}, "classes"),
        ({"classes": {"clean": {}, "a/b": {"pictures": ["a"]}}}, "classes.a/b"),
        ({"max_degradations": 3}, "test: max_degradations has no effect"),
        ({"encoder": {"kind": "compact", "widths": [2], "width": 3}}, "multiple of 2"),
        ({"stepz": 3}, "did you mean 'steps'"),
    ],
)  # fmt: skip
def test_recipes_without_meaning_are_refused(changes, words):
    with pytest.raises(RecipeError, match=words):
        recipe(**changes)


def test_a_recipe_is_read_from_a_file(tmp_path):
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TINY))
    assert load_router_recipe(tmp_path / "r.yaml", ["steps=9"]) == recipe(steps=9)
    written = yaml.safe_dump(recipe().model_dump(mode="json"))  # as it lies beside a router
    (tmp_path / "written.yaml").write_text(written)
    assert load_router_recipe(tmp_path / "written.yaml", []) == recipe()


# --- the confusion matrix ---


def test_confusion_by_hand():
    matrix = confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0, 1, 1, 1, 0]), 3)
    np.testing.assert_array_equal(matrix, [[1, 1, 0], [1, 2, 0], [0, 0, 0]])
    assert accuracy(matrix) == 0.6
    assert class_accuracies(matrix)[:2] == [0.5, 2 / 3]
    assert np.isnan(class_accuracies(matrix)[2])


def test_confusions_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(DataError, match="counted from 0"):
        confusion_matrix(np.array([0, 3]), np.array([0, 1]), 3)
    with pytest.raises(DataError, match="expected as many"):
        confusion_matrix(np.array([0]), np.array([0, 1]), 3)
    with pytest.raises(DataError, match="1 name for 2 classes"):
        draw_confusion(np.eye(2, dtype=int), ["a"], tmp_path / "x.png")


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_confusion_matrix_is_drawn(tmp_path, suffix):
    path = tmp_path / f"x.{suffix}"
    draw_confusion(np.array([[5, 0], [1, 0]]), ["clean", "low_light"], path, title="tiny")
    assert path.stat().st_size > 1000


def test_rows_of_a_confusion_are_what_is_true():
    found = confusion_matrix(np.array([0, 0, 2]), np.array([1, 1, 0]), 3)
    assert found.tolist() == [[0, 2, 0], [0, 0, 0], [1, 0, 0]]
