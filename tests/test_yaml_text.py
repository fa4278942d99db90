"""YAML from anywhere: bounded in size, nesting, digits and repetition, and told in a line."""

import pytest

from urushi.errors import RecipeError
from urushi.settings import Settings, parse_settings, read_settings, set_values, shown
from urushi.training.recipe import load_recipe
from urushi.yaml_text import YAMLTextError, parse_yaml

LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 40)
)
MERGES = "a0: &a0 {k0: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}], k{i}: 1}}\n" for i in range(1, 40)
)
BEYOND = {
    "nested": ("a: " + "[" * 100_000, "nested deeper"),
    "nested and closed": ("a: " + "[" * 3000 + "]" * 3000, "nested deeper"),
    "indented": ("- " * 3000, "nested deeper"),
    "digits": ("a: " + "9" * 6000, "a number of 6,000 characters"),
    "hexadecimal": ("a: 0x" + "f" * 5000, "a number of 5,002 characters"),
    "said to be a number": ("a: !!int '" + "1:" * 3000 + "1'", "characters"),
    "laughs": (LAUGHS, "stands for more than"),
    "merges": (MERGES, "stands for more than"),
    "itself": ("a: &a [*a]", "holds itself"),
    "merged into itself": ("a: &a {<<: *a}", "holds itself"),
    "an alias": ("a: *" + "n" * 5000, "undefined alias"),
    "an impossible date": ("a: !!timestamp 2020-99-99", "not of the kind"),
    "no date": ("a: !!timestamp abc", "not of the kind"),
    "no number": ("a: !!int ''", "not of the kind"),
    "no truth": ("a: !!bool zzz", "not of the kind"),
    "code": ("a: !!python/object/apply:os.getcwd []", "constructor"),
    "a list as a key": ("? [a]\n: b", "unhashable"),
    "a zero": ("\0", "not allowed"),
}


class Known(Settings):
    steps: int = 1
    more: dict[str, int] = {}


@pytest.mark.parametrize("how", BEYOND)
def test_what_is_beyond_a_bound_is_told_in_a_line(tmp_path, how):
    text, words = BEYOND[how]
    with pytest.raises(YAMLTextError, match=words):
        parse_yaml(text)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(RecipeError, match=words) as caught:
        load_recipe(tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_many_values_are_not_all_read(monkeypatch):
    monkeypatch.setattr("urushi.yaml_text._MOST_VALUES", 100)
    assert len(parse_yaml("[" + "1, " * 90 + "1]")) == 91
    with pytest.raises(YAMLTextError, match="more than 100 values"):
        parse_yaml("[" + "1, " * 110 + "1]")


def test_a_file_too_large_is_not_read(tmp_path):
    (tmp_path / "a.yaml").write_text("#" * 300_000)
    with pytest.raises(RecipeError, match="too many"):
        load_recipe(tmp_path / "a.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2020-01-01", "2020-01-01"),
        ("2020-99-99", "2020-99-99"),
        ("1:30", "1:30"),
        ("190:20:30.15", "190:20:30.15"),
        ("12", 12),
        ("-1_000", -1000),
        ("0x1f", 31),
        ("0b11", 3),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.0e-3", 0.001),
        (".inf", float("inf")),
        ("yes", True),
        ("~", None),
        ("", None),
        ("&a [1, *a1]".replace("*a1", "2"), [1, 2]),
    ],
)
def test_ordinary_values_are_what_they_were(text, value):
    assert parse_yaml(text) == value


def test_aliases_and_merges_still_work():
    read = parse_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]")
    assert read == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}


def test_settings_on_the_command_line_are_bounded():
    for text in ("steps=" + "9" * 5000, "steps=" + "[" * 5000, ".".join("a" * 3000) + "=1"):
        with pytest.raises(RecipeError) as caught:
            set_values({}, [text], RecipeError)
        assert len(str(caught.value)) < 600


def test_values_are_named_in_bounded_sentences():
    deep: object = "x" * 10_000
    for _ in range(50):
        deep = {"a": [deep] * 100}
    for value in (deep, "x" * 10_000, list(range(10_000)), {str(i): i for i in range(1000)}):
        assert len(shown(value)) <= 200
        with pytest.raises(RecipeError) as caught:
            parse_settings({"steps": value}, Known, RecipeError, "a.yaml")
        assert len(str(caught.value)) < 600
    with pytest.raises(RecipeError) as caught:
        parse_settings({"more": {"k" * 10_000: "x"}}, Known, RecipeError, "a.yaml")
    assert len(str(caught.value)) < 600
    assert shown("a b") == "'a b'"


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", ["a"], {"a": 1}, 3, None, "x" * 300])
def test_a_parent_that_no_file_can_be_called(tmp_path, name):
    import yaml

    (tmp_path / "a.yaml").write_text(yaml.safe_dump({"extends": name, "name": "a"}))
    with pytest.raises(RecipeError):
        load_recipe(tmp_path / "a.yaml")


def test_a_value_of_the_wrong_kind_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("steps: 1:30\n")
    with pytest.raises(RecipeError, match="steps is '1:30': input should be a valid integer"):
        read_settings(tmp_path / "a.yaml", Known, RecipeError)
