"""Comparisons of degradations that are learned together: routes, controls, composites."""

import json

import numpy as np
import pytest
import torch
import yaml
from commands import run
from pictures import picture, write_pictures
from test_adapt import write_pairs
from world import CLASSES, tiny_router, write_tiny

from urushi.app.output import EXIT_WELL
from urushi.errors import DataError, RecipeError
from urushi.image import write_picture
from urushi.routing.router import save_router
from urushi.training.compare.cell_plan import make_plan
from urushi.training.compare.description import RouteSettings, load_comparison
from urushi.training.compare.summary import MEAN
from urushi.training.compare.together import Steering

NOISE = {"name": "gaussian_noise", "sigma_255": [40, 40]}
EXPERTS = {
    "method": "experts",
    "count": 2,
    "freeze": "base",
    "expert": {"method": "lora", "rank": 1, "layout": "flat"},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A tiny guided base, dark pairs and clean pictures, and a router of both classes."""
    root = tmp_path_factory.mktemp("together")
    write_tiny(root / "tiny.safetensors")
    write_pairs(root / "dark" / "train", 4)
    for side, factor in (("input", 0.5), ("target", 1.0)):
        path = root / "dark" / "val" / side / "9.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, picture(shift=9.0) * np.float32(factor))
    write_pictures(root / "clean", 3, height=40, width=40)
    write_pictures(root / "held", 2, height=36, width=44)
    save_router(root / "router-0.safetensors", tiny_router(), CLASSES)
    return root


def task(*composites):
    classes = [
        {"name": "noise", "clean": "clean", "validation": "held", "degradation": NOISE},
        {"name": "haze", "pairs": "dark/train", "validation": "dark/val"},
    ]
    return {"name": "both kinds", "classes": classes, "composites": list(composites)}


def composite(**changes):
    return {"name": "mixed", "of": ["noise", "haze"], "validation": "held", "degradation": NOISE,
            **changes}  # fmt: skip


def plan_of(world, folder, **changes):
    plan = {
        "name": "tiny",
        "base": str(world / "tiny.safetensors"),
        "tasks": [task()],
        "methods": [],
        "pairs": [2],
        "seeds": [0],
        "steps": 2,
        "patch": 16,
        "batch": 4,
        "warmup": 1,
        "limit": 1,
        **changes,
    }
    path = folder / "plan.yaml"
    path.write_text(yaml.safe_dump(plan))
    return path


def compared(world, plan, output):
    words = ("--data", world, "-o", output, "--device", "cpu", "--no-isolate", "--json")
    result = run("compare", plan, *words)
    assert result.exit_code == EXIT_WELL, result.stderr
    return json.loads(result.stdout)


def test_classes_are_learned_together_and_measured_apart(world, tmp_path):
    router = str(world / "router-{seed}.safetensors")
    methods = [
        {**EXPERTS, "label": "right", "route": {"by": "oracle"}},
        {**EXPERTS, "label": "routed", "route": {"by": "router", "k": 2, "router": router}},
        {"method": "guidance", "vector": 4, "hidden": 4, "reduction": 4,
         "route": {"vector": "router", "router": router}},
    ]  # fmt: skip
    told = compared(
        world, plan_of(world, tmp_path, tasks=[task(composite())], methods=methods), tmp_path / "o"
    )
    assert told["failed"] == []
    rows = {(row["task"], row["label"]): row for row in told["rows"]}
    alone = ("frozen", "guidance", "full")
    ways = {f"mixed, {way}" for way in ("routed", "both", "noise", "haze")}
    expected = {(name, label) for name in ("noise", "haze", MEAN) for label in (*alone, *LABELS)}
    expected |= {(way, label) for way in ways for label in LABELS}
    expected |= {("mixed", label) for label in alone}
    assert set(rows) == expected
    for label in (*alone, *LABELS):
        own = [rows[name, label]["psnr"]["mean"] for name in ("noise", "haze")]
        assert rows[MEAN, label]["psnr"]["mean"] == pytest.approx(np.mean(own))
    # One picture of each is measured; there are two to lay noise over, and one pair.
    known = {name: (r["protocol"], r["pictures"], r["total"]) for (name, _), r in rows.items()}
    assert known.pop(MEAN) == ("", None, None)
    assert known.pop("haze") == ("rgb-8bit", 1, 1)
    assert set(known.values()) == {("rgb-8bit", 1, 2)}
    # An expert of the right class has learnt something of it; another one something else.
    assert rows["mixed, noise", "right"]["psnr"] != rows["mixed, haze", "right"]["psnr"]
    assert rows["noise", "right"]["psnr"] != rows["noise", "frozen"]["psnr"]
    cells = [json.loads(path.read_text()) for path in (tmp_path / "o" / "cells").iterdir()]
    assert all(len(rows) == 1 for cell in cells for rows in cell["parts"].values())


LABELS = ("right", "routed")


def test_the_number_of_measured_pictures_and_the_router_are_part_of_a_cell(world, tmp_path):
    methods = [
        {**EXPERTS, "route": {"by": "router", "router": str(world / "router-0.safetensors")}}
    ]

    def hashes(**changes):
        path = plan_of(world, tmp_path, **{"methods": methods, **changes})
        return {cell.label: cell.hash for cell in make_plan(load_comparison(path), world).cells}

    first = hashes()
    assert all(one != first[label] for label, one in hashes(limit=2).items())
    other = [{**methods[0], "route": {"by": "oracle"}}]
    changed = {label for label, one in hashes(methods=other).items() if one != first[label]}
    assert changed == {"experts"}


# --- steering ---


def test_experts_stand_in_the_order_of_the_classes(world):
    """Whatever the order of the router's own."""
    settings = RouteSettings(by="router", k=1, router=str(world / "router-0.safetensors"))
    images, labels = torch.rand(3, 3, 32, 32), torch.tensor([[1, 0]] * 3)
    there = Steering(settings, ["noise", "haze"], 0)(images, labels, 0)["weights"]
    back = Steering(settings, ["haze", "noise"], 0)(images, labels, 0)["weights"]
    assert torch.equal(there, back.flip(1))
    assert torch.equal(there.sum(1), torch.ones(3))
    assert set(there.flatten().tolist()) == {0.0, 1.0}


def test_controls_know_nothing_of_the_picture(world):
    images, labels = torch.rand(64, 3, 16, 16), torch.tensor([[1, 0]] * 64)
    drawn = Steering(RouteSettings(by="random"), ["a", "b"], 0)(images, labels, 5)["weights"]
    assert 10 < drawn[:, 0].sum() < 54
    again = Steering(RouteSettings(by="random"), ["a", "b"], 0)(images, labels, 5)["weights"]
    assert torch.equal(drawn, again)
    right = Steering(RouteSettings(by="oracle"), ["a", "b"], 0)(images, labels, 5)["weights"]
    assert torch.equal(right, labels.float())
    settings = RouteSettings(vector="constant", router=str(world / "router-0.safetensors"))
    side = Steering(settings, ["noise", "haze"], 0)(images[:2], labels[:2], 0)
    assert list(side) == ["vector"]
    assert not side["vector"].any()


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tasks": [{**task(), "pairs": "dark/train"}]}, "pairs has no effect beside classes"),
        ({"tasks": [{"name": "a", "pairs": "b"}]}, "validation is missing"),
        ({"tasks": [task(composite(of=["noise", "snow"]))]}, "is of 'snow', no class"),
        ({"methods": [{**EXPERTS, "route": {"by": "router"}}]}, "router goes with by: router"),
        ({"methods": [{**EXPERTS, "route": {"by": "oracle", "k": 2}}]}, "k has no effect"),
        ({"methods": [{**EXPERTS, "route": {}}]}, "expected what names experts"),
        (
            {
                "tasks": [{"name": "a", "pairs": "b", "validation": "c"}],
                "methods": [{**EXPERTS, "route": {"by": "oracle"}}],
            },
            "experts has a route, which only tasks of classes have",
        ),
        ({"tasks": [task(), task()]}, "tasks has 'noise' twice"),
    ],
)
def test_wrong_classes_and_routes_are_told(world, tmp_path, changes, words):
    with pytest.raises(RecipeError, match=words):
        load_comparison(plan_of(world, tmp_path, **changes))


def test_a_router_that_does_not_know_a_class_is_told(world):
    settings = RouteSettings(by="router", router=str(world / "router-0.safetensors"))
    with pytest.raises(RecipeError, match="does not know 'fog'"):
        Steering(settings, ["noise", "fog"], 0)


def test_composites_of_learned_pictures_are_refused(world, tmp_path):
    tasks = [task(composite(validation="clean"))]
    settings = load_comparison(plan_of(world, tmp_path, tasks=tasks))
    with pytest.raises(DataError, match="is learned from, too"):
        make_plan(settings, world)
