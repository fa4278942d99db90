"""Experts one after the other: told by name, or because a second look shows another damage."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
from commands import run
from pictures import picture
from world import CLASSES

from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError, EngineError
from urushi.files.model import read_model
from urushi.inference.auto import AutoRestorer
from urushi.inference.estimate import Restoring, estimate_memory
from urushi.inference.in_turn import RestorerInTurn, in_order, split_task
from urushi.inference.restorer import Restorer
from urushi.inference.second_look import kind_behind
from urushi.routing.decision import Decision
from urushi.routing.head import Reading


def opened(world, **options):
    own = {"engine": "torch", "device": "cpu", "threads": 1, **options}
    return AutoRestorer(world / "all-in-one.safetensors", **own)


def single(world, name, **options):
    adapters = [world / f"{name}.safetensors"]
    return Restorer(world / "tiny.safetensors", adapters=adapters, engine="torch", **options)


# --- by name ---


def test_what_came_last_is_undone_first():
    assert split_task("haze") == ("haze",)
    assert split_task("haze+noise") == split_task("noise, haze") == ("noise", "haze")
    assert split_task("low-light+snow+jpeg") == ("jpeg", "snow", "low-light")
    assert split_task("jpeg+noise") == ("noise", "jpeg")
    assert split_task("jpeg+low-light") == ("low-light", "jpeg")
    # Kinds of other routers keep the order in which they are named, behind those known.
    assert in_order(["moss", "haze", "dust"]) == ("haze", "moss", "dust")
    for wrong, why in (("haze+", "expected one name"), ("haze+haze", "haze twice")):
        with pytest.raises(AdapterError, match=why):
            split_task(wrong)


@pytest.mark.parametrize("options", [{}, {"tile": 32, "overlap": 8}], ids=["whole", "tiles"])
def test_each_expert_gets_what_the_one_before_it_has_made(world, options):
    pixels = np.tile(picture(), (2, 2, 1))
    auto = opened(world, task="haze+noise", **options)
    shown = []
    restored = auto.restore(pixels, lambda done, total: shown.append((done, total)))
    between = single(world, "noise", **options).restore(pixels)
    assert np.array_equal(restored, single(world, "haze", **options).restore(between))
    assert auto.last.describe()["in_turn"]
    assert auto.last.experts == ["noise", "haze"]
    assert auto.last.reason == "noise, then haze, as told"
    total = pixels.shape[0] * pixels.shape[1]
    assert shown == sorted(shown)
    assert shown[-1] == (total, total)
    assert [one["name"] for one in auto.describe()["adapters"]] == ["noise", "haze"]


def test_it_travels_to_other_processes(world):
    auto = opened(world, task="haze+noise")
    expected = auto.restore(picture())
    ready = auto.restorer(auto.choose(picture()))
    for one in (auto, ready):
        assert np.array_equal(copy.deepcopy(one).restore(picture()), expected)


def test_notes_of_all_are_told_once(world):
    stages = [single(world, name) for name in ("noise", "haze")]
    for one in stages:
        one.standing = ("the same",)
    stages[1].standing += ("another",)
    both = RestorerInTurn(stages)
    for _ in range(2):
        both.restore(picture())
        assert both.notes == ["the same", "another"]


def test_the_command_takes_several_tasks(world, tmp_path):
    words = ("--engine", "torch", "--device", "cpu", "--json")
    own = ("--router", world / "all-in-one.safetensors", "--task")
    source = world / "pictures" / "picture0.png"
    result = run("restore", source, "-o", tmp_path / "out.png", *words, *own, "haze+noise")
    assert result.exit_code == EXIT_WELL, result.stderr
    row = json.loads(result.stdout)["files"][0]
    assert row["router"]["route"] == {"noise": 1.0, "haze": 1.0}
    assert row["router"]["in_turn"]
    result = run("restore", source, "-o", tmp_path / "two.png", *words, *own, "haze+nois")
    assert result.exit_code == EXIT_USAGE
    assert "names 'nois' (did you mean 'noise'?)" in result.stderr


def test_networks_that_enlarge_are_refused(x2_model):
    with pytest.raises(EngineError, match="name one task"):
        RestorerInTurn([Restorer(x2_model), Restorer(x2_model)])


def test_a_line_of_tiles_is_counted_for_each(world):
    header = read_model(world / "tiny.safetensors").header
    one, two, chosen = (
        estimate_memory(Restoring(header, "torch", tile=64, stages=stages), 4000, 4000)
        for stages in ((1,), (2,), (1, 2))
    )
    assert two.usual == two.most > one.most
    assert chosen == (one.usual, two.most)


# --- by a second look ---


@pytest.fixture
def looking(world):
    """A restorer whose router reads what it is told to, one reading after the other."""

    def make(*seen, again=0.7, **options):
        auto = opened(world, **options)
        stored = auto.members.router
        header = stored.header.model_copy(update={"again": again})
        auto.members = replace(auto.members, router=replace(stored, header=header))
        auto.views = []

        def read(views):
            name, sure = seen[len(auto.views)]
            auto.views.append(views)
            rest = np.log((1 - sure) / (len(CLASSES) - 1))
            logits = np.array([np.log(sure) if one == name else rest for one in CLASSES])
            return Reading(logits.astype(np.float32) * stored.header.temperature, np.zeros(4))

        auto._router.read_views = read
        return auto

    return make


def test_a_second_look_gives_a_second_expert(world, looking):
    auto = looking(("haze", 0.9), ("noise", 0.8))
    restored = auto.restore(picture())
    assert auto.last.reason == "noise (80 %), then haze (90 %)"
    assert auto.last.route == (("noise", 1.0), ("haze", 1.0))
    between = single(world, "noise").restore(picture())
    assert np.array_equal(restored, single(world, "haze").restore(between))
    told = auto.last.describe()
    assert told["second"] == {"seen": "noise", "sure": 0.8}
    assert told["seen"] == "haze"
    # It was looked at what the first expert makes of the views of the first look: of the whole
    # picture and of the windows that are a quarter of it together, which here are two of four.
    first, second = (views[0] for views in auto.views)
    assert (len(first), len(second)) == (5, 3)
    expert = single(world, "haze")
    for before, after in zip(first[[0, 2, 4]], second, strict=True):
        mended = expert.restore(np.ascontiguousarray(before.transpose(1, 2, 0)))
        assert np.array_equal(mended.transpose(2, 0, 1), after)


@pytest.mark.parametrize(
    ("second", "options"),
    [
        (("noise", 0.6), {}),
        (("clean", 0.99), {}),
        (("haze", 0.99), {}),
        (("noise", 0.99), {"again": None}),
        (("noise", 0.99), {"quick": True}),
    ],
    ids=["unsure", "clean", "the same", "a file that looks once", "quick"],
)
def test_one_expert_acts_alone(looking, second, options):
    auto = looking(("haze", 0.9), second, **options)
    choice = auto.choose(picture())
    assert choice.route == (("haze", 1.0),)
    assert choice.reason == "haze (90 %)"
    assert not choice.in_turn
    looked = not options
    assert (choice.second is not None) == looked
    assert len(auto.views) == 1 + looked


@pytest.mark.parametrize("first", [("clean", 0.9), ("haze", 0.6)])
def test_only_what_is_sure_is_looked_at_again(looking, first):
    auto = looking(first)
    assert auto.choose(picture()).second is None


def test_what_experts_leave_behind_is_no_second_damage():
    def seen(name):
        return Decision({}, {name: 0.9, "clean": 0.1}, False, name)

    experts = dict.fromkeys(("noise", "haze", "blur", "raindrop"))
    found = {name: kind_behind(seen(name), "noise", 0.7, experts) for name in experts}
    assert found == {"noise": None, "haze": "haze", "blur": None, "raindrop": None}
    # What was brightened has lifted blacks, as haze has.
    assert kind_behind(seen("haze"), "low-light", 0.7, experts) is None
