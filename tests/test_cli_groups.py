"""Groups of options: a command takes them whole, the command line has their fields."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from urushi.app.groups import EngineGroup, grouped


@dataclass(frozen=True, kw_only=True)
class Size:
    width: Annotated[int, typer.Option("--width", "-w", min=1, help="Columns.")] = 3
    height: Annotated[int, typer.Option("--height", help="Rows.")] = 4


@dataclass(frozen=True, kw_only=True)
class Paper:
    colours: Annotated[list[str] | None, typer.Option("--colour", help="Repeatable.")] = None


@pytest.fixture(scope="module")
def called():
    app, calls = typer.Typer(), []

    @app.command()
    @grouped
    def draw(
        name: Annotated[str, typer.Argument()],
        *,
        size: Size,
        bold: Annotated[bool, typer.Option("--bold")] = False,
        paper: Paper,
    ) -> None:
        """Draws."""
        calls.append((name, size, bold, paper))

    def run(*words):
        calls.clear()
        result = CliRunner().invoke(app, [*words])
        return result, calls[0] if calls else None

    return run


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["a"], ("a", Size(), False, Paper())),
        (["a", "-w", "9", "--bold"], ("a", Size(width=9), True, Paper())),
        (
            ["--height", "2", "a", "--colour", "x", "--colour", "y"],
            ("a", Size(height=2), False, Paper(colours=["x", "y"])),
        ),
    ],
)
def test_a_command_gets_its_groups(called, words, expected):
    assert called(*words)[1] == expected


def test_help_shows_fields_in_the_order_of_the_groups(called):
    said = called("--help")[0].stdout
    places = [said.index(word) for word in ("--width", "--height", "--bold", "--colour")]
    assert places == sorted(places)
    assert "Columns." in said
    assert "size" not in said.lower()


def test_fields_are_checked_as_options_are(called):
    result, call = called("a", "--width", "0")
    assert result.exit_code == 2
    assert call is None


@pytest.mark.parametrize(
    ("given", "overlap"), [({}, 16), ({"tile": 20}, 10), ({"tile": 512}, 16), ({"overlap": 3}, 3)]
)
def test_tiles_overlap_by_half_of_a_small_one(given, overlap):
    assert EngineGroup(**given).options()["overlap"] == overlap
