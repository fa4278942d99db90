"""The page of the papers' claims: what it says is made of the committed rows, and no stronger."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from urushi.training.compare.description import load_comparison, variants

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def claims():
    """Claims, rows and page, all names together."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        names = ("claims_list", "claims_rows", "claims")
        parts = [importlib.import_module(name) for name in names]
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return SimpleNamespace(**{name: value for part in parts for name, value in vars(part).items()})


def row(label, task, seed, psnr, pairs=64, base="small"):
    return {
        "base": base, "task": task, "label": label, "pairs": None if seed is None else pairs,
        "seed": seed, "psnr": psnr, "ssim": 0.5, "parameters": 0 if seed is None else 10,
    }  # fmt: skip


def table_of(claims, rows, tasks=("one", "two")):
    terms = {"steps": 5, "batch": 2, "patch": 8, "precision": "float32", "limit": 1}
    terms |= {"pairs": [64], "seeds": [0, 1, 2]}
    return claims.Table(
        {
            "rows": rows,
            "mean_of": list(tasks),
            "terms": terms,
            "finished": len(rows),
            "planned": len(rows),
            "base_parameters": 100,
            "machines": ["cpu"],
        }
    )


def test_the_page_says_what_the_rows_say(claims):
    text = claims.PAGE.read_text("utf-8")
    tables = claims.load()
    assert claims.replaced(text, claims.body(tables)) == text, (
        "docs/claims.md is not made of the rows: python benchmarks/claims.py write"
    )
    looked_at = sum(len(claim.contrasts) for claim in claims.CLAIMS)
    assert f"and {looked_at} are looked at here" in text
    for claim in claims.CLAIMS:
        table = tables.get(claim.comparison)
        ran = table is not None and claims.was_run(claim, table)
        assert (claims.PICTURES / f"{claim.name}.png").exists() == ran


def test_every_claim_is_of_rows_that_its_comparison_has(claims):
    for claim in claims.CLAIMS:
        settings = load_comparison(f"claim-{claim.comparison}")
        labels = {variant.label for variant in variants(settings)}
        bases = [base.name for base in settings.bases]
        if len(bases) > 1:
            labels = {f"{base}: {label}" for base in bases for label in labels}
        ways = ("both", "routed", claims.BEST)
        known = labels | {f"{label}, {way}" for label in labels for way in ways}
        known |= {f"{label.split(' at ')[0]}, {claims.BEST_RATE}" for label in labels}
        assert set(claim.labels) <= labels
        parts = {name for task in settings.tasks for name in task.names}
        parts |= {part.name for task in settings.tasks for part in task.composites}
        for contrast in claim.contrasts:
            assert {contrast.better, contrast.than} <= known
            assert {*contrast.on, *contrast.less} <= parts
            assert contrast.pairs is None or contrast.pairs in settings.pairs
        assert 1 <= claim.decisive <= len(claim.contrasts)
        assert claim.quoted == 0 or claim.decisive <= claim.quoted <= len(claim.contrasts)


def test_differences_are_of_the_same_seed_and_of_all_tasks(claims):
    rows = [
        *(row("a", task, seed, 20 + seed) for task in ("one", "two") for seed in (0, 1, 2)),
        *(row("b", task, seed, 19 + seed) for task in ("one", "two") for seed in (0, 1, 2)),
        row("a", "one", 3, 99.0),  # the other task of this seed is not finished
        row("b", "one", 3, 0.0),
        *(row("frozen", task, None, 10.0) for task in ("one", "two")),
    ]
    table = table_of(claims, rows)
    assert table.differences(claims.Contrast("a", "b")) == [1.0, 1.0, 1.0]
    assert table.differences(claims.Contrast("a", "b", ("one",)))[3] == 99.0
    assert table.differences(claims.Contrast("a", "frozen")) == [10.0, 11.0, 12.0]
    assert table.differences(claims.Contrast("a", "c")) == []


def test_where_a_task_lacks_seeds_it_is_told_on_the_others(claims):
    rows = [
        *(row(n, "one", seed, level) for n, level in (("a", 2.0), ("b", 1.0)) for seed in (0, 1)),
        *(row(n, "two", 0, level) for n, level in (("a", 1.0), ("b", 9.0))),
    ]
    table, contrast = table_of(claims, rows), claims.Contrast("a", "b")
    assert table.compared_on(contrast) == ["one"]
    assert table.differences(contrast) == [1.0, 1.0]
    claim = claims.Claim("x", "X", "", "x", (contrast,))
    assert "a over b +1.00 ± 0.00 dB (2 seeds on one)" in claims.verdict(claim, table)
    assert "| a | b | one | +1.00 ± 0.00 | 2 |" in claims.contrasts(claim, table)
    assert table.compared_on(claims.Contrast("a", "c")) == []


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([], "NOT_RUN"),
        ([3.0], "FEW"),
        ([3.0, 3.1], "FEW"),
        ([0.5, 0.6, 0.55], "HOLDS"),
        ([-0.5, -0.6, -0.55], "REVERSE"),
        ([0.5, 0.6, -0.1], "WITHIN"),
        ([0.1, 0.5, 0.9], "WITHIN"),  # one sign, and less than two deviations
        ([0.0, 0.0, 0.0], "WITHIN"),
    ],
)
def test_a_verdict_is_no_stronger_than_the_spread(claims, differences, said):
    assert claims.judged(differences) == getattr(claims, said)


def test_a_claim_of_several_rows_needs_all_of_them(claims):
    claim = claims.Claim(
        "x", "X", "", "x", tuple(claims.Contrast("a", name) for name in "bcd"), decisive=2
    )

    def table(**levels):
        rows = [row(n, "one", s, v + s) for n, v in levels.items() for s in (0, 1, 2)]
        return table_of(claims, rows, ("one",))

    assert claims.verdict(claim, table(a=9, b=8, c=7, d=10)) == (
        "It holds here: a over b +1.00 ± 0.00 dB (3 seeds); a over c +2.00 ± 0.00 dB (3 seeds)."
    )
    part = claims.verdict(claim, table(a=9, b=8, c=9))
    assert part.startswith("It holds here in part (1 of 2): ")
    assert claims.verdict(claim, table(a=9, b=8, c=10)).startswith(
        "It holds here in part, and in part the reverse (1 and 1 of 2): "
    )
    turned = claims.verdict(claim, table(a=9, b=9, c=10))
    assert turned.startswith("The reverse holds here in part (1 of 2): ")
    every = claims.Claim("x", "X", "", "x", claim.contrasts, decisive=3)
    assert claims.verdict(every, table(a=9, b=9, c=9, d=10)).startswith(
        "It is not shown here (the reverse in 1 of 3): "
    )
    assert claims.verdict(claim, table(a=9, b=8)).startswith("It holds here as far as it was run: ")
    assert claims.verdict(claim, table(a=9, b=10, c=10)).startswith("The reverse holds here: ")
    assert claims.verdict(claim, table(a=9, d=8)) == "Not run."


def test_a_mean_does_not_hide_the_task_that_goes_against_it(claims):
    rows = [
        row(label, task, seed, level + seed)
        for label, levels in (("a", (12.0, 19.0)), ("b", (8.0, 20.0)), ("c", (8.0, 18.0)))
        for task, level in zip(("one", "two"), levels, strict=True)
        for seed in (0, 1, 2)
    ]
    table = table_of(claims, rows)
    claim = claims.Claim("x", "X", "", "x", (claims.Contrast("a", "b"),))
    assert claims.verdict(claim, table) == (
        "It holds here in the mean: a over b +1.50 ± 0.00 dB (3 seeds); against that, a over b on "
        "two -1.00 ± 0.00 dB."
    )
    assert "| better outside the spread | one: better, two: worse |" in claims.contrasts(
        claim, table
    )
    plain = claims.Claim("x", "X", "", "x", (claims.Contrast("a", "c"),))
    assert claims.verdict(plain, table).startswith("It holds here: ")


def test_a_lead_is_set_beside_the_lead_on_other_tasks(claims):
    rows = [
        row(label, task, seed, level + seed)
        for label, levels in (("a", (12.0, 19.0)), ("b", (8.0, 18.0)))
        for task, level in zip(("one", "two"), levels, strict=True)
        for seed in (0, 1, 2)
    ]
    contrast = claims.Contrast("a", "b", ("one",), less=("two",))
    assert table_of(claims, rows).differences(contrast) == [3.0, 3.0, 3.0]
    claim = claims.Claim("x", "X", "", "x", (contrast,))
    assert "(3 seeds on one less the lead on two)" in claims.verdict(claim, table_of(claims, rows))
    # A task without rows is not named.
    more = claims.Claim("x", "X", "", "x", (replace(contrast, less=("two", "three")),))
    assert "less the lead on two)" in claims.verdict(more, table_of(claims, rows))
    assert "| one less two |" in claims.contrasts(more, table_of(claims, rows))
    assert table_of(claims, rows[:6]).differences(contrast) == []


def test_the_best_rate_is_that_of_each_task_and_seed(claims):
    rows = [
        row(f"a at {rate}", "one", seed, value)
        for rate, values in (("1e-3", (1.0, 5.0)), ("3e-3", (2.0, 4.0)))
        for seed, value in enumerate(values)
    ]
    table = table_of(claims, rows, ("one",))
    assert table.per_seed(f"a, {claims.BEST_RATE}") == {0: 2.0, 1: 5.0}
    assert table.per_seed("a at 1e-3") == {0: 1.0, 1: 5.0}


def test_numbers_of_pairs_are_told_beside_one_another(claims):
    rows = [
        row(label, "one", seed, level + n, pairs=n)
        for label, level in (("a", 1.0), ("b", 0.0))
        for n in (16, 64)
        for seed in (0, 1, 2)
    ]
    pairs = tuple(claims.Contrast("a", "b", pairs=n) for n in (16, 64))
    claim = claims.Claim("x", "X", "", "x", pairs, decisive=2, curve=True)
    assert claims.verdict(claim, table_of(claims, rows, ("one",))) == (
        "It holds here: a over b +1.00 ± 0.00 dB at 16 pairs and +1.00 ± 0.00 dB at 64 pairs "
        "(3 seeds)."
    )


def test_the_best_single_expert_is_that_of_each_seed(claims):
    rows = []
    for seed, (first, second, both) in enumerate([(20, 22, 23), (25, 21, 23)]):
        ways = {"p": first, "q": second, "both": both, "routed": 20}
        rows += [row("e", f"p and q, {way}", seed, value) for way, value in ways.items()]
        rows += [row("e", "p", seed, 30.0), row("plain, too", "p and q", seed, 21.0)]
    table = table_of(claims, rows, ("p",))
    best = table.per_seed(f"e, {claims.BEST}", ("p and q",))
    assert best == {0: 22, 1: 25}
    contrast = claims.Contrast("e, both", f"e, {claims.BEST}", ("p and q",))
    assert table.differences(contrast) == [1, -2]
    assert table.per_seed("plain, too", ("p and q",)) == {0: 21.0, 1: 21.0}


def test_what_was_not_run_says_so_with_its_command(claims):
    claim = claims.CLAIMS[0]
    for table in (None, table_of(claims, [])):
        text = claims.section(claim, table)
        assert "**Verdict.** Not run." in text
        assert f"urushi compare claim-{claim.comparison} --data DATA" in text
        assert "![" not in text


def test_rows_and_points_of_a_curve_are_drawn(claims, tmp_path):
    counts = (16, 64)
    rows = [
        row("full", task, seed, 20.0 + seed + n / 64, pairs=n, base=base)
        for base in ("PROD", "random")
        for task in ("one", "two")
        for seed in (0, 1)
        for n in counts
        if not (task == "two" and n == 64)
    ]
    table = table_of(claims, rows)
    curve = claims.Claim("x", "X", "", "x", (), curve=True)
    text = claims.rows(curve, table)
    assert "| PROD: full | 16 | 10 | 20.75 ± 0.71 | 20.75 ± 0.71 | 20.75 ± 0.71 |" in text
    assert "| PROD: full | 64 | 10 | 21.50 ± 0.71 | - | - |" in text
    claims.draw(curve, table, tmp_path / "curve.png")
    claims.draw(claims.Claim("x", "X", "", "x", ()), table, tmp_path / "points.png")
    assert {path.name for path in tmp_path.iterdir()} == {"curve.png", "points.png"}


def test_the_page_is_changed_between_its_markers_alone(claims):
    text = f"a\n{claims.BEGIN}\nold\n{claims.END}\nz\n"
    assert claims.replaced(text, "new") == f"a\n{claims.BEGIN}\n\nnew\n\n{claims.END}\nz\n"
    for wrong in ("a\n", f"{claims.END}\n{claims.BEGIN}", text + text):
        with pytest.raises(ValueError, match="once each"):
            claims.replaced(wrong, "new")
