"""Data sets as they are described: rules, the catalogue, and what checking one says."""

import json

import pytest
from commands import run
from made_sets import make, make_part, scene, write

from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL
from urushi.data.data_sets import DATA_SETS, DataSet, find_data_set, find_part, open_pairs
from urushi.data.pairs import PairedFolder
from urushi.data.set_check import check_data_set
from urushi.data.set_layouts import Rule, find_pairs
from urushi.errors import DataError
from urushi.evaluation.benchmark import evaluate
from urushi.evaluation.catalog import BENCHMARKS, find_benchmark
from urushi.evaluation.routes import class_of
from urushi.settings import parse_settings

PARTS = [(name, part) for name, data_set in DATA_SETS.items() for part in data_set.parts]
MINE = {
    "name": "mine",
    "title": "Mine",
    "folder": "mine",
    "source": "made for this test",
    "layout": "mine",
    "parts": {"all": {"input": "in/{id}_{shot}", "target": "out/{id}", "pictures": 4, "targets": 2,
                      "told": "me"}},
}  # fmt: skip


def described(**changes):
    return parse_settings({**MINE, **changes}, DataSet, DataError, "test")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("first", "second", "files", "pairs"),
    [
        # GoPro: folders on the way; a third folder beside them is no part of it.
        ("{scene}/blur/{n}", "{scene}/sharp/{n}",
         ["A/blur/1.png", "A/sharp/1.png", "A/blur_gamma/1.png", "B/blur/1.png", "B/sharp/1.png"],
         2),
        # DIV2K, SIDD, RainDrop.
        ("LR/X4/{id}x4", "HR/{id}", ["LR/X4/0801x4.png", "HR/0801.png"], 1),
        ("{s}/{id}_NOISY_SRGB_{n}", "{s}/{id}_GT_SRGB_{n}",
         ["a/1_NOISY_SRGB_010.PNG", "a/1_GT_SRGB_010.PNG", "b/1_NOISY_SRGB_010.PNG",
          "b/1_GT_SRGB_010.PNG"], 2),
        ("data/{id}_rain", "gt/{id}_clean", ["data/0_rain.png", "gt/0_clean.jpg"], 1),
        # SOTS and OTS: several inputs to one target, at any depth.
        ("hazy/{f*}/{id}_{a}_{b}", "gt/{id}",
         ["hazy/p/q/0025_0.8_0.2.jpg", "hazy/p/0025_1_0.1.jpg", "gt/0025.png"], 2),
        # Numbers of a split: 1 and 11 are two pictures.
        ("{t=[0-4]}{i=[0-9]}_hazy", "{t=[0-4]}{i=[0-9]}_GT",
         ["01_hazy.png", "01_GT.png", "11_hazy.png", "11_GT.png", "51_hazy.png", "51_GT.png"], 2),
    ],
)  # fmt: skip
def test_rules_pair_what_public_sets_hold(tmp_path, first, second, files, pairs):
    touch(tmp_path, *files)
    found = find_pairs(tmp_path, Rule(first), Rule(second))
    assert found.problems == ()
    assert len(found) == len({pair.name for pair in found}) == pairs


def test_what_has_no_partner_or_two_is_told(tmp_path):
    touch(tmp_path, "in/1.png", "in/2.png", "in/2.jpg", "in/3.png", "out/2.png", "out/3.png",
          "out/3.jpg", "out/4.png")  # fmt: skip
    found = find_pairs(tmp_path, Rule("in/{id}"), Rule("out/{id}"))
    assert [pair.name for pair in found] == ["2", "3"]
    told = " ".join(found.problems)
    for sentence in ("1.png has no target", "4.png has no input"):
        assert sentence in told
    assert told.count("has the same name as") == 2


def test_a_list_says_which_pairs_belong_to_a_part(tmp_path):
    touch(tmp_path, "b/1.png", "g/1.png", "b/2.png", "g/2.png", "b/3.png")
    (tmp_path / "list.txt").write_text("g/1.png b/1.png\n./b/3.png x\n")
    mine = described(parts={"all": {"input": "b/{id}", "target": "g/{id}", "listed": "list.txt"}})
    found = mine.pairs(tmp_path, "all")
    assert [pair.name for pair in found] == ["1"]
    assert ["3.png has no target" in problem for problem in found.problems] == [True]
    (tmp_path / "list.txt").unlink()
    with pytest.raises(DataError, match=r"list\.txt cannot be read"):
        mine.pairs(tmp_path, "all")


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"input": "in/{id}"}, "expected rules in input and target, or one in clean"),
        ({"input": "in/{id}", "target": "out/{name}"}, "no name in common"),
        ({"clean": "all"}, "names nothing that differs"),
        ({"clean": "../{id}"}, "no path below a folder"),
        ({"clean": "{id}/{id}"}, "twice"),
        ({"clean": "{id"}, "names nothing"),
        ({"clean": "{a}{b-c}"}, "brace"),
        ({"clean": "{id}", "pictures": 3}, "told is missing"),
        ({"clean": "{id}", "scale": 2}, "go with input and target"),
        ({"clean": "{id}", "pictures": 0, "told": "me"}, "greater than or equal to 1"),
        ({"clean": "{id}", "picture": 3}, "parts.all.picture is not a known key"),
    ],
)
def test_wrong_descriptions(part, said):
    with pytest.raises(DataError, match=said):
        described(parts={"all": part})


def test_each_stands_for_many(tmp_path):
    mine = described(
        each={"scale": ["2", "3"]},
        parts={"x<scale>": {"input": "X<scale>/{id}", "target": "HR/{id}", "scale": "<scale>"}},
        benchmarks={"mine-x<scale>": {"part": "x<scale>", "crop_border": "<scale>"}},
    )
    assert {name: part.scale for name, part in mine.parts.items()} == {"x2": 2, "x3": 3}
    assert mine.benchmarks["mine-x3"] == {"part": "x3", "crop_border": 3}
    with pytest.raises(DataError, match=r"of a part 'al' that is none \(did you mean 'all'"):
        described(benchmarks={"mine": {"part": "al"}})


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_part_is_read_as_it_is_laid_out(tmp_path, name):
    data_set = DATA_SETS[name]
    # Many parts of one set have the same rule.
    for part in list(data_set.parts)[:: max(1, len(data_set.parts) // 4)]:
        folder = make(tmp_path / part, data_set, part, 2, 24, 12)
        plan = data_set.parts[part]
        pictures = data_set.pictures(folder, part)
        assert len(pictures) == 2, part
        report = check_data_set(data_set, folder, parts=[part], decode=False).parts[0]
        assert (report.unpaired, report.unreadable, report.sizes) == ((), (), ())
        assert (report.found, report.missing) == (2, "")
        if plan.clean is None:
            pairs = data_set.pairs(folder, part)
            assert pairs.problems == ()
            assert [pair.target for pair in pairs] == pictures


def test_the_catalogue_says_where_it_knows_from():
    for name, part in PARTS:
        data_set = DATA_SETS[name]
        assert data_set.source
        assert data_set.layout
        assert data_set.parts[part].pictures is None or data_set.parts[part].told
    assert len(DATA_SETS) > 25
    assert DATA_SETS["hide"].parts["test"].pictures is None  # nobody told


def test_benchmarks_of_data_sets():
    for name, data_set in DATA_SETS.items():
        for benchmark in data_set.benchmarks:
            found = find_benchmark(benchmark)
            assert found.name == benchmark
            assert find_part(found.data or "")[0].name == name
            assert found.pictures == data_set.parts[data_set.benchmarks[benchmark]["part"]].pictures
    made = BENCHMARKS["set5-lr4-noise30"]
    assert (made.protocol, made.crop_border, made.pictures) == ("y-matlab", 4, 5)


def test_of_several_kinds_of_damage_none_is_the_right_one():
    classes = ("clean", "haze", "rain", "noise")
    assert class_of(BENCHMARKS["cdd11-haze"], classes) == "haze"
    for name in ("cdd11-haze_rain", "made-cdd11-haze_rain", "mio100-b-haze_noise"):
        with pytest.raises(DataError, match="several kinds of damage"):
            class_of(BENCHMARKS[name], classes)
        assert class_of(BENCHMARKS[name], classes, "haze") == "haze"


def test_a_benchmark_of_a_data_set_is_measured(tmp_path):
    make_part(tmp_path, "set5/x2", 5)
    files = evaluate(None, "set5-lr2", root=tmp_path)
    assert (files.protocol, len(files.pictures)) == ("y-matlab-crop2", 5)
    make_part(tmp_path, "cbsd68/test", 68, 16, 16)
    noisy = evaluate(None, "cbsd68-float-noise25", root=tmp_path, limit=2)
    assert all(18 < row.psnr_input < 23 for row in noisy.pictures)
    with pytest.raises(DataError, match="needs the folder"):
        evaluate(None, "gopro-rgb", root=tmp_path)


def test_what_is_missing_or_different_is_told_exactly(tmp_path):
    mine = described()
    for name in ("1_a", "1_b", "2_a", "3_a"):
        write(tmp_path / "in" / name, scene(1, 16, 24))
    for name in ("1", "2"):
        write(tmp_path / "out" / name, scene(2, 16, 24))
    report = check_data_set(mine, tmp_path)
    assert not report.ok
    (part,) = report.parts
    assert (part.found, part.expected, part.found_targets) == (3, 4, 2)
    assert "3 of 4, 1 missing" in part.lines()[0]
    assert [s.endswith("in/3_a.png has no target") for s in part.unpaired] == [True]

    write(tmp_path / "out" / "3", scene(2, 16, 25))
    report = check_data_set(mine, tmp_path)
    assert report.parts[0].sizes == (("out/3.png", "25x16", "24x16"),)
    assert "targets 3 of 2, 1 too many" in report.parts[0].lines()[0]

    cut = tmp_path / "out" / "2.png"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "in" / "1_b.png").write_bytes(b"no picture")
    write(tmp_path / "other", scene(3, 16, 24))
    report = check_data_set(mine, tmp_path)
    assert {name for name, _ in report.parts[0].unreadable} == {"in/1_b.png", "out/2.png"}
    assert report.others == 1
    quick = check_data_set(mine, tmp_path, decode=False)
    assert [name for name, _ in quick.parts[0].unreadable] == ["in/1_b.png"]
    assert "headers alone were read" in " ".join(quick.lines())


def test_a_data_set_that_is_whole(tmp_path):
    mine = described(
        parts={"all": {"clean": "{id}", "pictures": 2, "size": [24, 16], "told": "me"}}
    )
    for index in range(2):
        write(tmp_path / str(index), scene(index, 16, 24))
    report = check_data_set(mine, tmp_path)
    assert report.ok
    assert report.lines()[-1] == "all is there as described"
    write(tmp_path / "1", scene(1, 17, 24))
    assert check_data_set(mine, tmp_path).parts[0].sizes == (("1.png", "24x17", "24x16"),)


def test_the_command_checks_by_name(tmp_path, monkeypatch):
    folder = make_part(tmp_path, "lol/test", 15, 16, 24)
    assert run("data", "check", "lol", "--root", tmp_path, "--part", "test").exit_code == EXIT_WELL
    assert run("data", "check", "lol", "--root", folder, "--part", "test").exit_code == EXIT_WELL
    whole = run("data", "check", "lol", "--root", tmp_path, "--json")
    assert whole.exit_code == EXIT_FAILED
    document = json.loads(whole.stdout)
    assert [part["ok"] for part in document["parts"]] == [False, True]
    assert "our485/high does not exist" in document["parts"][0]["missing"]
    monkeypatch.setenv("URUSHI_DATA", str(tmp_path))
    assert "485" not in run("data", "check", "lol", "--part", "test").stdout
    own = tmp_path / "own.yaml"
    own.write_text(json.dumps({**MINE, "folder": "LOLdataset", "parts": {
        "all": {"input": "eval15/low/{id}", "target": "eval15/high/{id}"}}}))  # fmt: skip
    told = run("data", "check", own, "--root", tmp_path)
    assert told.exit_code == EXIT_WELL
    assert "15; no source tells how many there must be" in told.stdout


def test_wrong_usage_is_told(tmp_path):
    missing = run("data", "check", "gopor", "--root", tmp_path)
    assert missing.exit_code == EXIT_USAGE
    assert "did you mean 'gopro'" in missing.stderr
    assert run("data", "check", "--root", tmp_path).exit_code == EXIT_USAGE
    assert run("data", "check", tmp_path, "--quick").exit_code == EXIT_USAGE
    part = run("data", "check", "gopro", "--root", tmp_path, "--part", "trian")
    assert "its parts are train, test" in part.stderr
    with pytest.raises(DataError, match=r"has no part 'tset' \(did you mean 'test'"):
        find_part("set:gopro/tset")
    with pytest.raises(DataError, match="no data set 'x'"):
        find_data_set("x")


def test_the_command_lists_data_sets():
    listed = run("data", "list").stdout
    assert "gopro" in listed
    assert "train (2103)" in listed
    told = run("data", "list", "snow100k").stdout
    assert "number not told" in told
    assert "test/Snow100K-L/synthetic/{name}" in told
    assert len(json.loads(run("data", "list", "--json").stdout)) == len(DATA_SETS)


def test_recipes_name_folders_or_parts(tmp_path):
    make_part(tmp_path, "raindrop/test-a", 3)
    assert len(open_pairs(tmp_path, "set:raindrop/test-a")) == 3
    assert isinstance(open_pairs(tmp_path, "RainDrop/test_a"), PairedFolder)
