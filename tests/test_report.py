"""Scores beside published ones: what shares a column, what must not, and how it is told."""

import json
from html.parser import HTMLParser
from typing import Any

import pytest
from commands import run

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.errors import DataError
from urushi.evaluation.benchmark import BenchmarkResult, PictureScore
from urushi.evaluation.catalog import BENCHMARKS
from urushi.evaluation.grid import NEEDS_DATA, Measured, make_grid
from urushi.evaluation.grid_pages import to_html, to_markdown
from urushi.evaluation.papers import PAPERS, Paper, find_paper, read_cell
from urushi.evaluation.score_report import Report
from urushi.settings import parse_settings
from urushi.training.all_in_one.all_in_one_recipe import load_all_in_one_recipe
from urushi.training.compare.description import COMPARISONS, Comparison
from urushi.training.compare.scores import scores_of
from urushi.training.compare.summary import MEAN, Row, Summary
from urushi.training.recipe import PAPERS as TABLES
from urushi.training.recipe import recipe_kind

RAIN, HAZE, NOISE = "rain100l-rgb", "sots-outdoor-rgb", "cbsd68-float-noise25"


def scored(name, psnr=30.0, ssim=0.9, pictures=None, protocol=None, **facts):
    benchmark = BENCHMARKS[name]
    total = benchmark.pictures or 3
    crop = f"-crop{benchmark.crop_border}" if benchmark.crop_border else ""
    row = {
        "width": 9,
        "height": 9,
        "psnr_input": 20.0,
        "ssim_input": 0.5,
        "psnr": psnr,
        "ssim": ssim,
    }
    return BenchmarkResult(**{
        "benchmark": name,
        "title": benchmark.title,
        "protocol": protocol or benchmark.protocol + crop,
        "total": total,
        "restorer": {"engine": "test"},
        "pictures": tuple(PictureScore(name=str(i), **row) for i in range(pictures or total)),
        **facts,
    })  # fmt: skip


def paper(*tables, benchmarks=(RAIN,)):
    content = {
        "name": "mine",
        "title": "Mine",
        "settings": {
            "one": {"title": "One", "benchmarks": list(benchmarks), "tables": list(tables)}
        },
    }
    return parse_settings(content, Paper, DataError, "test")


def published(columns, rows, **facts):
    return {
        "source": "a book",
        "reliability": "first hand",
        **({} if "told" in facts else {"colour": "rgb"}),
        "columns": columns,
        "rows": rows,
        **facts,
    }


def table_of(own, *results):
    return make_grid([own], [Measured("ours", result) for result in results]).tables[0]


def places(table):
    """The column of each score, by method."""
    known = {column.key: column for column in table.columns}
    return {row.method: [known[key] for key in row.scores] for row in table.rows}


def test_a_score_of_the_same_pictures_and_colours_shares_a_column():
    table = table_of(paper(published({"Rain": RAIN}, {"Theirs": "37.1/0.98"})), scored(RAIN, 36.0))
    (ours,), (theirs,) = places(table)["ours"], places(table)["Theirs"]
    assert ours == theirs
    assert len(table.columns) == 1
    assert [row.ours for row in table.rows] == [True, False]
    assert table.missing == ()


@pytest.mark.parametrize(
    "result",
    [
        scored(RAIN, protocol="y-matlab"),
        scored(RAIN, protocol="rgb-8bit-crop4"),
        scored(RAIN, protocol="rgb-basicsr"),
        scored(RAIN, pictures=7),
        scored(RAIN, total=200),
        scored(RAIN, title="Rain100L, but another one"),
        scored("rain100l-y"),
    ],
    ids=["colour", "crop", "definition", "fewer", "more", "data", "benchmark"],
)
def test_other_data_crop_or_colour_space_stand_apart(result):
    table = table_of(paper(published({"Rain": RAIN}, {"Theirs": "37.1"})), result)
    (ours,), (theirs,) = places(table)["ours"], places(table)["Theirs"]
    assert ours.key != theirs.key
    assert (ours.label, ours.space) != (theirs.label, theirs.space)
    assert len(table.columns) == 2


@pytest.mark.parametrize(
    "facts",
    [{"told": "RGB by habit"}, {"colour": "y"}, {"crop": 2}, {"data": "noise cut"}],
    ids=["not told", "luma", "border", "pictures"],
)
def test_what_is_published_of_something_else_has_no_score_of_ours(facts):
    table = table_of(paper(published({"Rain": RAIN}, {"Theirs": "37.1"}, **facts)), scored(RAIN))
    assert places(table)["ours"][0].key != places(table)["Theirs"][0].key
    assert places(table)["Theirs"][0].ours == (facts.keys() <= {"colour", "crop"})


def test_an_average_is_ours_only_where_all_of_it_is():
    own = paper(
        published({"a": RAIN, "b": HAZE, "average": None}, {"Theirs": "30 20 25"}),
        benchmarks=(RAIN, HAZE),
    )
    part = table_of(own, scored(RAIN, 30.0))
    assert [column.label for column in places(part)["ours"]] == ["Rain100L, light rain streaks"]
    whole = table_of(own, scored(RAIN, 30.0), scored(HAZE, 26.0))
    (row,) = [row for row in whole.rows if row.ours]
    (average,) = [column.key for column in whole.columns if column.label == "average"]
    assert row.scores[average].psnr == pytest.approx(28.0)
    other = table_of(own, scored(RAIN, 30.0, protocol="y-matlab"), scored(HAZE, 26.0))
    assert "average" not in [column.label for column in places(other)["ours"]]


def test_what_is_missing_needs_data():
    table = table_of(paper(published({"Rain": RAIN}, {"Theirs": "37.1"})))
    assert table.missing == (RAIN,)
    grid = make_grid([paper(published({"Rain": RAIN}, {"Theirs": "37.1"}))], [])
    for text in (to_markdown(grid), to_html(grid)):
        assert NEEDS_DATA in text
        assert f"Not measured here: {RAIN}" in text


def test_other_benchmarks_stand_by_themselves():
    result = scored("cbsd68-noise25", published=BENCHMARKS["cbsd68-noise25"].published)
    grid = make_grid(
        [paper(benchmarks=[NOISE])], [Measured("ours", result), Measured("x", scored(NOISE))]
    )
    assert [other.method for other in grid.others] == ["ours", "FFDNet"]
    # The same pictures, but rounded: never below the heading of those that are not.
    assert all(row.method == "x" for row in grid.tables[0].rows)


@pytest.mark.parametrize(
    ("text", "score"),
    [("32.28/0.930", (32.28, 0.93)), ("30/.9", (30.0, 0.9)), ("31.5", (31.5, None)), ("-", None)],
)
def test_published_cells(text, score):
    assert read_cell(text) == score


@pytest.mark.parametrize("text", ["", "x", "31,5", "31.5/", "/0.9", "-1", "1e3", "nan"])
def test_cells_that_are_no_scores(text):
    with pytest.raises(ValueError, match="is no score"):
        read_cell(text)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (published({"Rain": RAIN}, {"Theirs": "37.1 38.2"}), "2 scores for 1 column"),
        (published({"Rain": RAIN}, {"Theirs": "good"}), "is no score"),
        (published({"Rain": RAIN}, {}, colour=None), "what is known of it in told"),
        (published({"Rain": RAIN}, {}, told="?", colour="rgb"), "what is known of it in told"),
        (published({"Rain": RAIN}, {}, reliability="hearsay"), "reliability"),
        (published({}, {}), "columns"),
    ],
)
def test_wrong_tables(table, said):
    with pytest.raises(DataError, match=said):
        paper(table)


def test_unknown_benchmarks_and_papers_are_told():
    with pytest.raises(DataError, match="names the benchmark 'rain'"):
        make_grid([paper(benchmarks=["rain"])], [])
    with pytest.raises(DataError, match="did you mean 'lora-ir'"):
        find_paper("lora-irr")


@pytest.mark.parametrize("name", PAPERS)
def test_the_catalogue_of_papers(name):
    own = PAPERS[name]
    grid = make_grid([own], [])
    for table in grid.tables:
        keys = [column.key for column in table.columns]
        assert len(keys) == len(set(keys))
        assert {key for row in table.rows for key in row.scores} <= set(keys)
        # Headings of two columns never look the same.
        heads = [(column.label, column.space) for column in table.columns]
        assert len(heads) == len(set(heads)), (table.setting, heads)
    for setting in own.settings.values():
        for recipe in setting.recipes:
            table, colon, _ = recipe.partition(":")
            place = TABLES / f"{table}.yaml" if colon else COMPARISONS / f"{table}.yaml"
            assert place.is_file(), recipe


def test_every_setting_of_lora_ir_has_a_recipe_for_its_stages():
    assert list(PAPERS["lora-ir"].settings) == ["i", "ii", "iii", "iv", "v"]
    for setting in PAPERS["lora-ir"].settings.values():
        (recipe,) = setting.recipes
        assert recipe_kind(recipe) == "all-in-one"
        assert load_all_in_one_recipe(recipe).guided.mode == "full"


class Cells(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.loads = 0, []
        self.feed(text)
        assert not self.rawdata

    def handle_starttag(self, tag, attributes):
        self.found += tag == "td"
        self.loads += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_is_whole_and_loads_nothing():
    name = '<script>alert(1)</script> & "x"'
    grid = make_grid(PAPERS.values(), [Measured(name, scored(RAIN))])
    text = to_html(grid)
    assert "<script" not in text
    page = Cells(text)
    assert page.found > 1000
    assert all(link.startswith("#") for link in page.loads)


def test_the_command(tmp_path):
    scores = tmp_path / "scores" / "mine.json"
    scores.parent.mkdir()
    as_is = scored(HAZE, psnr=None, ssim=None, restorer={})
    scores.write_text(Report(results=(scored(RAIN, 36.78), as_is)).to_json())
    (scores.parent / "other.json").write_text("{}")
    said = run("report", scores, "--paper", "lora-ir").stdout
    assert "**mine**" in said
    assert "36.78 / 0.9000" in said
    assert "**mine, inputs as they are**" in said
    assert "20.00 / 0.5000" in said
    files = [tmp_path / f"report.{suffix}" for suffix in ("md", "html", "json")]
    words = [word for file in files for word in ("-o", file)]
    assert run("report", scores.parent, *words).exit_code == EXIT_WELL
    document = json.loads(files[2].read_text("utf-8"))
    assert document["kind"] == "urushi-report"
    assert document == json.loads(run("report", scores.parent, "--json").stdout)
    assert {table["paper"] for table in document["tables"]} == set(PAPERS)
    taken = run("report", "-o", files[0])
    assert taken.exit_code == EXIT_FAILED
    assert run("report", "-o", files[0], "--overwrite").exit_code == EXIT_WELL
    assert "**mine**" not in files[0].read_text("utf-8")


def test_of_single_files_the_settings_that_they_measure_alone(tmp_path):
    def told(*words):
        return json.loads(run("report", *words, "--json").stdout)

    (tmp_path / "rain.json").write_text(Report(results=(scored(RAIN, 36.0),)).to_json())
    found = told(tmp_path / "rain.json")
    assert found["tables"]
    assert all(any(row["ours"] for row in table["rows"]) for table in found["tables"])
    assert set(found["notes"]) == {PAPERS[table["paper"]].title for table in found["tables"]}
    asked = told(tmp_path / "rain.json", "--paper", "lora-ir")
    assert len(asked["tables"]) == len(PAPERS["lora-ir"].settings)
    own = compared()
    rows = [row for row in own.rows if row.task == "stripes"]
    assert rows
    (tmp_path / "own.json").write_text(own.model_copy(update={"rows": tuple(rows)}).to_json())
    alone = told(tmp_path / "own.json")
    assert (alone["tables"], alone["notes"]) == ([], {})
    assert {other["benchmark"] for other in alone["others"]} == {"stripes"}


DROPS = "raindrop-rgb"


def compared(pictures=None, total=None, protocol="rgb-8bit", **facts: Any):
    """A comparison on raindrops and on a task of its own, with one row of each and their mean."""
    whole = BENCHMARKS[DROPS].pictures
    drops = {"pairs": "set:raindrop/train", "validation": "set:raindrop/test-a"}
    stripes = {"clean": "a", "degradation": {"name": "rain_streaks"}, "validation": "b"}
    plan = {
        "name": "mine", "methods": [{"method": "lora"}], "pairs": [16], "seeds": [0, 1],
        "steps": 5, "patch": 8, "batch": 1,
        "tasks": [{"name": "drops", **drops}, {"name": "stripes", **stripes}],
    }  # fmt: skip
    row: dict[str, Any] = {
        "base": "base", "label": "lora", "method": "lora", "pairs": 16, "seeds": (0, 1),
        "protocol": protocol, "pictures": pictures or whole, "total": total or whole,
        "psnr": {"mean": 31.25, "deviation": 0.5}, "ssim": {"mean": 0.9, "deviation": 0.01},
        "gain": None, "learning_rate": 1e-3, "parameters": 10, "share": 0.1, "adapter_bytes": 100,
        "seconds_per_step": 0.1, "peak_memory": None, **facts,
    }  # fmt: skip
    return Summary(
        comparison=Comparison.model_validate(plan),
        rows=tuple(Row.model_validate({**row, "task": t}) for t in ("drops", "stripes", MEAN)),
        machines=(),
        memory_kinds=(),
        finished=2,
        planned=2,
        failed=(),
        notes=(),
    )


def test_a_comparison_stands_beside_what_is_measured_alike():
    own = paper(published({"Drops": DROPS}, {"Theirs": "32.0"}), benchmarks=(DROPS,))
    grid = make_grid([own], scores_of(compared()))
    found = places(grid.tables[0])
    assert found["mine: lora, 16 pairs, 2 seeds"] == found["Theirs"]
    assert "31.25 ± 0.50 / 0.9000" in to_markdown(grid)
    assert "31.25 ± 0.50 / 0.9000" in to_html(grid)
    # A task of its own belongs to no benchmark; a mean over tasks to nothing at all.
    assert [(other.benchmark, other.title) for other in grid.others] == [
        ("stripes", "task of mine")
    ]


@pytest.mark.parametrize(
    "facts",
    [{"pictures": 3}, {"protocol": "y-matlab"}, {"total": 1000, "pictures": 1000}],
    ids=["fewer", "colour", "more"],
)
def test_a_comparison_that_is_measured_otherwise_stands_apart(facts):
    own = paper(published({"Drops": DROPS}, {"Theirs": "32.0"}), benchmarks=(DROPS,))
    table = make_grid([own], scores_of(compared(**facts))).tables[0]
    (ours,), (theirs,) = places(table)["mine: lora, 16 pairs, 2 seeds"], places(table)["Theirs"]
    assert ours.key != theirs.key
    assert (ours.label, ours.space) != (theirs.label, theirs.space)


def test_an_old_comparison_does_not_say_what_it_is_of():
    old = compared()
    rows = [row.model_copy(update={"protocol": "", "pictures": None}) for row in old.rows]
    own = paper(published({"Drops": DROPS}, {"Theirs": "32.0"}), benchmarks=(DROPS,))
    grid = make_grid([own], scores_of(old.model_copy(update={"rows": tuple(rows)})))
    assert [row.method for row in grid.tables[0].rows] == ["Theirs"]
    assert grid.tables[0].missing == (DROPS,)
    assert {other.pictures for other in grid.others} == {"not told"}


def test_files_of_several_folders(tmp_path):
    for folder, psnr in (("a", 30.0), ("b", 31.0)):
        place = tmp_path / folder
        place.mkdir()
        (place / "scores.json").write_text(Report(results=(scored(RAIN, psnr),)).to_json())
    (tmp_path / "comparison.json").write_text(compared().to_json())
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "one.json").write_text('{"kind": "urushi-cell"}')
    said = run("report", tmp_path)
    assert said.exit_code == EXIT_WELL
    for method in ("**a/scores**", "**b/scores**", "**mine: lora, 16 pairs, 2 seeds**"):
        assert method in said.stdout
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "comparison.json").write_text(
        compared(psnr={"mean": 20.0, "deviation": None}).to_json()
    )
    twice = run("report", tmp_path)
    assert twice.exit_code == EXIT_FAILED
    assert "two different scores on raindrop-rgb, 31.25 and 20.00 dB" in twice.stderr
    broken = tmp_path / "more" / "comparison.json"
    broken.write_text('{"kind": "urushi-comparison", "version": 1}')
    assert "not a document of a comparison" in run("report", broken).stderr


def test_wrong_usage(tmp_path):
    assert run("report", "-o", tmp_path / "report.pdf").exit_code == EXIT_USAGE
    (tmp_path / "x.json").write_text("{}")
    alone = run("report", tmp_path / "x.json")
    assert alone.exit_code == EXIT_FAILED
    assert "not a document of scores" in alone.stderr
    assert "holds no scores" in run("report", tmp_path).stderr
