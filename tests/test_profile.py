"""Profiles: measured, stored, checked when they are read."""

import json

import pytest
import torch
from world import made_up, moved, tiny_network, write_base

from urushi.adapters.attribution import attribute
from urushi.adapters.contribution_profile import profile_path, read_profile, write_profile
from urushi.adapters.profiling import ProfileTask, measure_profile
from urushi.errors import AdapterError, FileFormatError
from urushi.files.adapter import base_facts
from urushi.files.model import read_model


@pytest.fixture(scope="module")
def network():
    return tiny_network()


@pytest.fixture(scope="module")
def model(network, tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base") / "base.safetensors", network)


def pairs(count=2, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return [
        (scale * torch.rand(3, 14, 12 + 3 * i, generator=generator), torch.zeros(3, 14, 12 + 3 * i))
        for i in range(count)
    ]


def measured(network, model, tasks, **options):
    facts = base_facts(read_model(model))
    return measure_profile(network, facts, tasks, **{"steps": 2, **options})


def test_scores_are_means_of_absolute_attributions(network, model):
    target = moved(network)
    given = pairs()
    seen = []
    profile = measured(
        network, model, [ProfileTask("one", target, given)],
        normalise="sum", on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    base = dict(network.named_parameters())
    scores = [
        attribute(network, base, target, x[None], y[None], steps=2, rule="midpoint").scores
        for x, y in given
    ]
    for name in ("intro.weight", "decoders.0.0.norm1.bias"):
        mean = sum(float(one[name].abs().mean()) for one in scores) / 2
        assert profile.parameters[name].mean == pytest.approx(mean, rel=1e-5)
    task = profile.tasks[0]
    assert (task.name, task.pictures) == ("one", 2)
    assert 0.8 < task.accounted < 1.2
    by_size = measured(network, model, [ProfileTask("one", target, given)], normalise="mean")
    mean = sum(
        float(one["ending.bias"].abs().mean()) / x.numel()
        for one, (x, _) in zip(scores, given, strict=True)
    )
    assert by_size.parameters["ending.bias"].mean == pytest.approx(mean / 2, rel=1e-5)


def test_tasks_count_alike_however_large_their_losses(network, model):
    easy = ProfileTask("easy", moved(network, 0.003), pairs(scale=0.1))
    hard = ProfileTask("hard", moved(network, 0.1, seed=2), pairs(seed=5))
    alone = [measured(network, model, [task]) for task in (easy, hard)]
    both = measured(network, model, [easy, hard])
    counts = {name: score.count for name, score in both.parameters.items()}
    for profile in (*alone, both):
        whole = sum(score.mean * counts[name] for name, score in profile.parameters.items())
        assert whole / sum(counts.values()) == pytest.approx(1.0)
    for name, score in both.parameters.items():
        expected = sum(profile.parameters[name].mean for profile in alone) / 2
        assert score.mean == pytest.approx(expected)


def test_units_are_blocks_and_lone_layers_in_the_order_of_execution(network, model):
    profile = made_up(network, model)
    assert [(unit.name, unit.role) for unit in profile.units] == [
        ("intro", "encoder"),
        ("encoders.0.0", "encoder"),
        ("downs.0", "encoder"),
        ("encoders.1.0", "encoder"),
        ("downs.1", "encoder"),
        ("middle_blks.0", "middle"),
        ("ups.0.0", "decoder"),
        ("decoders.0.0", "decoder"),
        ("ups.1.0", "decoder"),
        ("decoders.1.0", "decoder"),
        ("ending", "decoder"),
    ]
    assert profile.parameters.keys() == dict(network.named_parameters()).keys()
    assert next(iter(profile.parameters)) == "intro.weight"
    assert list(profile.of_stages())[:2] == ["encoders.0", "encoders.1"]


def test_means_weigh_numbers_and_not_parameters(network, model):
    profile = made_up(network, model, lambda name: 3.0 if name.endswith("bias") else 1.0)
    assert profile.of_kinds() == {"weight": 1, "bias": 3, "norm": 2, "scale": 1}
    weight, bias = profile.parameters["intro.weight"].count, profile.parameters["intro.bias"].count
    expected = (weight + 3 * bias) / (weight + bias)
    assert profile.of_units()["intro"] == pytest.approx(expected)
    assert profile.of_weights("layer")["intro"] == 1
    assert profile.of_weights("block")["intro"] == pytest.approx(expected)
    block = profile.of_weights("block")
    assert block["encoders.0.0.conv1"] == block["encoders.0.0.sca.1"] > 1


def test_a_profile_comes_back_from_its_file(network, model, tmp_path):
    profile = made_up(network, model, lambda name: len(name) / 7)
    path = profile_path(tmp_path / "base.safetensors")
    assert path.name == "base.profile.json"
    write_profile(path, profile)
    assert read_profile(path) == profile
    assert list(read_profile(path).parameters) == list(profile.parameters)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda text: text[:100], "no valid JSON"),
        (lambda text: "[" * 100_000, "no valid JSON"),
        (lambda text: "[]", "not a profile"),
        (lambda text: text.replace("urushi-profile", "urushi-model"), "not a profile"),
        (lambda text: text.replace('"version": 1', '"version": 2', 1), "newer than 1"),
        (lambda text: text.replace('"mean": 1.0', '"mean": NaN', 1), "no valid JSON"),
        (lambda text: text.replace('"mean": 1.0', '"mean": 1e999', 1), r"wrong at 'parameters"),
        (lambda text: text.replace('"mean": 1.0', '"mean": -1', 1), r"wrong at 'parameters"),
        (lambda text: text.replace('"kind"', '"sort"', 1), r"wrong at 'parameters"),
        (lambda text: text.replace('"ending.bias"', '"ending.bais"', 1), "not those that have"),
        (lambda text: " " * 8_000_001, "larger than any profile"),
    ],
)
def test_damaged_and_hostile_files_are_refused(network, model, tmp_path, spoil, words):
    path = tmp_path / "p.json"
    write_profile(path, made_up(network, model))
    text = spoil(path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(FileFormatError, match=words):
        read_profile(path)


def test_missing_files_are_told(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileFormatError, match="cannot be read"):
            read_profile(path)


def test_targets_that_teach_nothing_are_refused(network, model):
    own = {name: p.detach().clone() for name, p in network.named_parameters()}
    cases = [
        (ProfileTask("same", own, pairs()), "very weights of the base"),
        (ProfileTask("none", moved(network), []), "no pictures"),
        (ProfileTask("other", {"a": torch.ones(1)}, pairs()), "one of them|must be of one"),
        (ProfileTask("wild", moved(network, 1e30), pairs()), "not finite"),
    ]
    for task, words in cases:
        with pytest.raises(AdapterError, match=words):
            measured(network, model, [task])


def test_the_file_is_small_and_readable(network, model, tmp_path):
    write_profile(tmp_path / "p.json", made_up(network, model))
    content = json.loads((tmp_path / "p.json").read_text(encoding="utf-8"))
    assert content["parameters"]["intro.weight"] == {"kind": "weight", "count": 108, "mean": 1.0}
    assert str(model.parent) not in json.dumps(content)
