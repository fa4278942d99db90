"""`--top-k` and `--threshold`: the rule that makes a route of what a router reads."""

import json
import re

import pytest
import typer
from commands import run
from world import SEEN

from urushi.app.groups import RestorerGroup
from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.errors import AdapterError
from urushi.inference.auto import AutoRestorer


def file_of(folder):
    return folder / "all-in-one.safetensors"


def restore(world, out, *more):
    options = ("--engine", "torch", "--device", "cpu")
    return run("restore", world / "pictures", "-o", out, *options, *more)


def test_several_experts_and_how_sure_the_router_has_to_be(world, tmp_path):
    words = ("--router", file_of(world), "--json")

    def told(out, *more):
        result = restore(world, tmp_path / out, *words, *more)
        assert result.exit_code == EXIT_WELL, result.stderr
        content = json.loads(result.stdout)
        return content["restorer"], [row["router"] for row in content["files"]]

    how, rows = told("one")
    assert (how["k"], how["threshold"]) == (1, 0.0)
    assert all(row["route"] == {SEEN: 1.0} for row in rows)
    for word in ("--top-k", "--k"):
        how, rows = told(word, word, 3)
        assert how["k"] == 3
        for row in rows:
            chances = row["probabilities"]
            # The share of the clean class is the base's. Shares are eighths, so that pictures that
            # need nearly the same have one network.
            shares = {n: chances[n] for n in ("noise", SEEN)}
            assert row["route"] == pytest.approx(shares, abs=1 / 16 + 1e-4)
            assert all((8 * share).is_integer() for share in row["route"].values())
    how, rows = told("sure", "--threshold", 0.999)
    assert how["threshold"] == 0.999
    assert all(row["abstained"] and row["route"] == {} for row in rows)
    assert rows[0]["reason"].startswith(f"unsure: {SEEN} (")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--top-k", 0), EXIT_USAGE, "--top-k"),
        (("--threshold", 1.5), EXIT_USAGE, "--threshold"),
        (("--top-k", 4), EXIT_USAGE, "k is 4: expected a number of experts from 1 to 3"),
        (("--task", SEEN, "--top-k", 2), EXIT_USAGE, "leave --task out"),
    ],
)
def test_rules_that_cannot_be(world, tmp_path, arguments, code, said):
    result = restore(world, tmp_path, "--router", file_of(world), *arguments)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.replace("│", " ").split())


def test_rules_are_for_routers(world, tmp_path):
    model = ("--model", world / "tiny.safetensors")
    result = restore(world, tmp_path, *model, "--threshold", 0.5)
    assert result.exit_code == EXIT_USAGE
    assert "--threshold is for a router" in " ".join(result.stderr.replace("│", " ").split())
    with pytest.raises(AdapterError, match="threshold is 2"):
        AutoRestorer(file_of(world), threshold=2)


def test_evaluation_follows_the_same_rules(world):
    engine = ("--engine", "torch", "--device", "cpu", "--json", "-")
    words = ("evaluate", "--clean", world / "pictures", "--degrade", "gaussian_noise", *engine)
    routed = (*words, "--router", file_of(world))

    def told(*more):
        result = run(*routed, *more)
        assert result.exit_code == EXIT_WELL, result.stderr
        content = json.loads(result.stdout)
        assert content["results"][0]["restorer"]["k"] == (3 if "--top-k" in more else 1)
        return content["routes"][0]["means"]

    one, three, never = told(), told("--top-k", 3), told("--threshold", 0.999)
    assert one["psnr_right"] == three["psnr_right"] == never["psnr_right"]
    assert len({m["psnr_automatic"] for m in (one, three, never)}) == 3
    assert never["psnr_automatic"] == never["psnr_base"]
    model = ("--model", world / "tiny.safetensors")
    for arguments, said in (
        ((*words, *model, "--quick"), "--quick is for a router"),
        ((*words, "--as-is", "--top-k", 2), "no effect with --as-is"),
        ((*routed, "--task", SEEN, "--threshold", 0.5), "leave --task out"),
    ):
        result = run(*arguments)
        assert result.exit_code == EXIT_USAGE
        assert said in " ".join(result.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    "given", [{"quick": True}, {"top_k": 2}, {"threshold": 0.5}, {"look": True}], ids=str
)
@pytest.mark.parametrize(
    ("beside", "advice", "then"),
    [
        ({"adapter": ["film"]}, "--adapter says what mends the pictures: leave one out", {}),
        ({"model": "base"}, "or --task auto, too", {"model": "base", "task": "auto"}),
        ({"task": "none"}, "leave --task out", {}),
        ({"task": "haze"}, "leave --task out", {}),
        (
            {"model": "base", "task": "haze"},
            "give --task auto instead of --task haze",
            {"model": "base", "task": "auto"},
        ),
    ],
    ids=str,
)
def test_no_way_out_leads_to_the_next_error(given, beside, advice, then):
    own = {name: value for name, value in given.items() if name != "look"}
    look = {"look": "look" in given}
    option = "--" + next(iter(given)).replace("_", "-")
    with pytest.raises(typer.BadParameter, match=f"{option} is for .*{re.escape(advice)}"):
        RestorerGroup(**own, **beside).check(**look)
    RestorerGroup(**own, **then).check(**look)


def test_a_dry_run_refuses_what_the_run_does(tmp_path):
    words = ("restore", tmp_path, "-o", tmp_path / "out", "--adapter", "film", "--quick")
    for more in ((), ("--dry-run",)):
        result = run(*words, *more)
        assert result.exit_code == EXIT_USAGE
        assert "leave one out" in " ".join(result.stderr.replace("│", " ").split())
