"""What is told of a decision: the two likeliest, and what else could be done."""

import json
from pathlib import Path

import numpy as np
import pytest
from commands import run
from world import SEEN

from urushi.app.output import EXIT_WELL
from urushi.files.adapter import BaseFacts
from urushi.files.router_file import CompactFacts, Member, RouterHeader, ViewGeometry
from urushi.inference.batch import BatchReport, FileResult
from urushi.inference.choice import Choice, hinted
from urushi.inference.guard.damage import Guard
from urushi.inference.suggestions import suggestions_of
from urushi.routing import decide
from urushi.routing.wording import advice, look_like

KINDS = ("clean", "rain", "raindrop", "noise")


def header(experts=KINDS[1:], **changes):
    member = Member(file="a.safetensors", tensors_hash="0" * 64)
    base = BaseFacts(
        name="base", backbone="nafnet", config={}, architecture_hash="0", weights_hash="0"
    )
    return RouterHeader(
        classes=KINDS,
        views=ViewGeometry(layout="native", size=16),
        encoder=CompactFacts(widths=[2], width=4),
        base=base if experts else None,
        experts=dict.fromkeys(experts, member),
        **changes,
    )


def decided(clean, rain, raindrop, noise, own=None, **options):
    return decide(np.log([clean, rain, raindrop, noise]), own or header(), **options)


@pytest.mark.parametrize(
    ("chances", "reason", "suggested"),
    [
        (
            (0.15, 0.445, 0.315, 0.09),
            "unsure: rain (44 %) or raindrop (31 %), so the base works alone: --task rain, if it "
            "rains",
            "rain",
        ),
        (
            (0.455, 0.1, 0.14, 0.305),
            "unsure: clean (45 %) or noise (30 %), so the base works alone: --task noise, if it is "
            "noisy",
            "noise",
        ),
        # Too improbable to be worth a try.
        (
            (0.455, 0.2, 0.195, 0.15),
            "unsure: clean (45 %) or rain (20 %), so the base works alone",
            None,
        ),
        (
            (0.555, 0.305, 0.1, 0.04),
            "looks clean (55 %) rather than rain (30 %), so the base works alone: --task rain, if "
            "it rains",
            "rain",
        ),
        ((0.905, 0.05, 0.035, 0.01), "looks clean (90 %), so the base works alone", None),
        ((0.005, 0.955, 0.03, 0.01), "rain (95 %)", None),
        ((0.01, 0.605, 0.355, 0.03), "rain (60 %) rather than raindrop (35 %)", None),
    ],
)
def test_the_two_likeliest_are_named_where_the_router_is_unsure(chances, reason, suggested):
    found = decided(*chances)
    told = hinted(Choice((), found.reason, found))
    assert told.reason == reason
    assert found.suggested == told.suggested == suggested
    (first, _), (second, chance) = found.likeliest
    assert first == found.seen
    assert chance == pytest.approx(sorted(chances)[-2])
    assert found.probabilities[second] == chance
    # Nothing of it changes who acts.
    acts = {name for name, weight in found.weights.items() if weight}
    assert acts == (set() if found.abstained else {found.seen})


def test_a_second_that_is_no_alternative_is_not_named():
    found = decided(0.01, 0.955, 0.03, 0.005, threshold=0.99)
    assert found.reason.startswith("unsure: rain (95 %), less than 99 %, so the base works alone")
    assert found.suggested == "rain"


def test_what_is_mild_is_told_as_before():
    found = decided(0.5, 0.1, 0.045, 0.355, header(thresholds={"noise": 0.3}))
    assert found.reason == "perhaps noise (35 %), taken away in part"
    assert found.suggested is None


def test_nothing_is_suggested_that_has_no_expert():
    found = decided(0.15, 0.445, 0.315, 0.09, header(("noise",)))
    assert found.reason == "unsure: rain (44 %) or raindrop (31 %), so the base works alone"
    assert found.suggested is None
    assert decided(0.15, 0.445, 0.315, 0.09, header(())).suggested is None


def test_probabilities_that_do_not_exclude_one_another_are_no_alternatives():
    own = header(mode="multi")

    def told(*chances, **options):
        logits = np.log(chances) - np.log1p(-np.array(chances))
        found = decide(logits, own, **options)
        return found.reason, found.suggested

    assert told(0.1, 0.905, 0.8, 0.1) == ("rain (90 %)", None)
    assert told(0.905, 0.4, 0.1, 0.1) == ("looks clean (90 %), so the base works alone", None)
    reason, suggested = told(0.3, 0.405, 0.1, 0.1)
    assert reason == "unsure: rain (40 %) or clean (30 %), so the base works alone"
    assert suggested == "rain"


def test_classes_of_any_name_have_words():
    assert look_like("low-light") == "too dark"
    assert look_like("scratches") == "like scratches"
    assert advice("scratches") == "--task scratches, if that is so"


def test_what_the_guard_holds_gets_no_advice():
    found = decided(0.2, 0.4, 0.3, 0.1)
    free = Choice((), found.reason, found)
    assert hinted(free).suggested == "rain"
    held = Choice((), found.reason, found, guard=Guard(0.0, "it stays as it is"))
    assert hinted(held) == held


def choice(*chances):
    found = decided(*chances)
    route = tuple((name, weight) for name, weight in found.weights.items() if weight)
    return hinted(Choice(route, found.reason, found))


RAINY, NOISY, SURE = (0.2, 0.4, 0.3, 0.1), (0.4, 0.1, 0.1, 0.4), (0.01, 0.97, 0.01, 0.01)


def test_suggestions_group_what_was_left_alone_by_what_it_may_be():
    rows = [(Path(f"{n}.png"), choice(*RAINY)) for n in range(12)]
    rows += [(Path("a.png"), choice(*NOISY)), (Path("b.png"), choice(*SURE))]
    rows += [(Path("c.png"), None), (Path("d.png"), Choice((), "nothing is on it"))]
    many, one = suggestions_of([rows[12], *rows])  # a file twice, as of two of its pages
    assert many.sentence(restored=True) == (
        "12 pictures look like rain but were left alone: --task rain --overwrite, if so, for "
        "0.png, 1.png, 2.png and 9 more, which --json lists"
    )
    assert one.sentence(restored=True) == (
        "1 picture looks noisy but was left alone: --task noise --overwrite, if so, for a.png"
    )
    assert one.sentence(restored=False) == (
        "1 picture looks noisy but would be left alone: --task noise, if so, for a.png"
    )
    assert many.describe() == {"task": "rain", "files": [f"{n}.png" for n in range(12)]}


def test_only_what_was_restored_is_suggested_for():
    rows = [("restored", "a"), ("failed", "b"), ("skipped", "c")]
    report = BatchReport(
        [FileResult(Path(n), Path(f"{n}_"), s, choice=choice(*RAINY)) for s, n in rows]
    )
    assert report.to_json()["suggestions"] == [{"task": "rain", "files": ["a"]}]
    first = report.to_json()["files"][0]["router"]
    assert first["suggested"] == "rain"
    assert first["likeliest"] == [
        {"class": "rain", "probability": 0.4}, {"class": "raindrop", "probability": 0.3},
    ]  # fmt: skip


def test_a_batch_ends_with_what_else_could_be_done(world, tmp_path):
    words = ("--router", world / "all-in-one.safetensors", "--engine", "torch", "--device", "cpu")
    words = ("restore", world / "pictures", *words, "--threshold", 0.999)
    result = run(*words, "-o", tmp_path / "a")
    assert result.exit_code == EXIT_WELL, result.stderr
    names = ", ".join(str(world / "pictures" / f"picture{n}.png") for n in range(3))
    assert (
        f"3 pictures look hazy but were left alone: --task {SEEN} --overwrite, if so, for {names}"
    ) in result.stdout.splitlines()
    result = run(*words, "-o", tmp_path / "b", "--json")
    document = json.loads(result.stdout)
    assert [row["task"] for row in document["suggestions"]] == [SEEN]
    assert document["suggestions"][0]["files"] == names.split(", ")
    # What acts needs no suggestion, and --quiet none at all.
    for more, out in ((("--threshold", 0), "c"), (("--quiet",), "d")):
        assert "left alone" not in run(*words, "-o", tmp_path / out, *more).output
