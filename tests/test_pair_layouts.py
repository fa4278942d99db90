"""Pairs as public sets lay them out, and two folders of any name."""

import pytest
from commands import run
from pictures import write_pictures

from urushi.app.output import EXIT_USAGE, EXIT_WELL
from urushi.data.pairs import PairedFolder


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("LR/080{}x4.png", "HR/080{}.png"),
        ("Data/{}_S6/{}_NOISY_010.PNG", "Data/{}_S6/{}_GT_010.PNG"),
        ("data/{}_rain.png", "gt/{}_clean.png"),
        ("train/GOPR{}/blur/47.png", "train/GOPR{}/sharp/47.png"),
    ],
)
def test_pairs_of_public_sets_are_found(tmp_path, first, second):
    names = [(first.format(i, i), second.format(i, i)) for i in range(3)]
    found = PairedFolder(touch(tmp_path, *sum(names, ())))
    assert found.problems == ()
    matched = {(p.input.relative_to(tmp_path), p.target.relative_to(tmp_path)) for p in found}
    assert {(a.as_posix(), b.as_posix()) for a, b in matched} == set(names)
    assert len({pair.name for pair in found}) == 3


def test_what_has_no_partner_is_told_where_both_sides_lie_in_one_folder(tmp_path):
    found = PairedFolder(touch(tmp_path, "1_noisy.png", "1_gt.png", "2_noisy.png", "sheet.png"))
    assert [pair.name for pair in found] == ["1_noisy"]
    told = " ".join(found.problems)
    assert "2_noisy.png has no target" in told
    assert "sheet.png does not tell" in told


def test_two_folders_of_any_name_are_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for side in ("mine", "theirs"):
        write_pictures(tmp_path / side, 2)
    both = ("--inputs", tmp_path / "mine", "--targets", tmp_path / "theirs")
    measured = run("evaluate", *both, "--as-is")
    assert measured.exit_code == EXIT_WELL, measured.stderr
    assert "2 pairs" in run("data", "check", *both, "--min-side", 16).stdout
    for words in (("evaluate", "--as-is"), ("data", "check"), ("adapt", "-o", "a.safetensors")):
        result = run(*words, *both[:2])
        assert result.exit_code == EXIT_USAGE
        assert "need each other" in " ".join(result.stderr.replace("│", " ").split())
    # What is refused leaves nothing behind.
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "theirs"]
