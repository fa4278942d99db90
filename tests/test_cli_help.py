"""The command line as such: help, versions, usage, what it imports."""

import json
import tomllib

import pytest
from commands import ROOT, run, run_python, start

from urushi.app import options
from urushi.app.output import EXIT_FAILED, EXIT_USAGE, EXIT_WELL, printable, size_text, time_text
from urushi.inference import zoo
from urushi.inference.engines import ENGINES, PRECISIONS
from urushi.inference.health import DEPENDENCIES, EXTRAS
from urushi.inference.zoo import zoo_experts
from urushi.version import __version__

COMMANDS = (
    ["restore"], ["evaluate"], ["train"], ["degrade"], ["data", "pack"], ["data", "check"],
    ["inspect"], ["export"], ["import"], ["fetch"], ["import-peft"], ["doctor"], ["adapt"],
    ["profile"], ["compare"], ["serve"], ["push"], ["pull"],
)  # fmt: skip


@pytest.mark.parametrize("command", [[], ["data"], *COMMANDS], ids=" ".join)
def test_help_has_examples_and_exit_codes(command):
    result = run(*command, "--help")
    assert result.exit_code == EXIT_WELL
    assert "Examples" in result.stdout
    assert f"urushi {' '.join(command)}".strip() in result.stdout
    assert "Exit codes: 0 all is well" in result.stdout
    assert "\x1b" not in result.stdout


@pytest.mark.parametrize("command", ["restore", "evaluate", "export"])
def test_help_names_the_adapters_that_ship(command, monkeypatch, tmp_path):
    def told():
        shown = " ".join(run(command, "--help").stdout.replace("│", " ").split())
        return shown.partition("Those that ship: ")[2].partition(".")[0]

    assert told() == ", ".join(zoo_experts())
    monkeypatch.setattr(zoo, "ZOO", tmp_path)
    assert told() == "none"


def test_help_needs_nothing_heavy():
    code = """
import sys
from typer.testing import CliRunner
from urushi.app.cli import app
for command in ([], ["restore"], ["train"], ["evaluate"], ["data", "pack"]):
    assert CliRunner().invoke(app, [*command, "--help"]).exit_code == 0
heavy = {"torch", "numpy", "pyvips", "openvino", "accelerate", "PIL", "yaml"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr


def test_version():
    result = run("--version")
    assert result.exit_code == EXIT_WELL
    assert result.stdout.strip() == f"urushi {__version__}"


@pytest.mark.parametrize(
    "arguments",
    [
        ["mend"],
        ["restore"],
        ["restore", "a.png", "--engine", "abacus"],
        ["restore", "a.png", "--precision", "int4"],
        ["restore", "a.png", "--tile", "0"],
        ["restore", "a.png", "--tile", "many"],
        ["restore", "a.png", "--quality", "101"],
        ["degrade", "a.png"],
        ["degrade", "a.png", "-o", "b.png"],
        ["degrade", "a.png", "-o", "b.png", "--name", "jpeg", "--chain", "base-cpu"],
        ["degrade", "a.png", "--sheet", "s.png", "--set", "quality=[1,2]"],
        ["degrade", "a.png", "b.png", "--sheet", "s.png"],
        ["evaluate"],
        ["evaluate", "--all", "--benchmark", "x"],
        ["evaluate", "--as-is", "--degrade", "jpeg"],
        ["train", "base-cpu", "--device", "abacus"],
        ["data", "pack", "folder"],
        ["data", "pack", "folder", "out.zip"],
        ["inspect"],
        ["export", "m.safetensors", "--precision", "bf16"],
        ["export", "m.safetensors", "--precision", "int8"],
        ["export", "m.safetensors", "--clean", "photos"],
        ["export", "m.safetensors", "--crops", "8"],
        ["export", "a.safetensors", "--merged", "b", "--peft", "c"],
        ["export", "base", "--for", "browser"],
        ["export", "base", "--for", "browser", "-o", "site", "--static", "8x8"],
        ["export", "base", "--for", "darktable", "--merged", "a"],
        ["export", "base", "-o", "site.onnx", "--runtime", "a.tgz"],
        ["import-peft", "folder"],
        ["doctor", "--frobnicate"],
    ],
    ids=" ".join,
)
def test_wrong_usage_exits_with_2(arguments):
    result = run(*arguments)
    assert result.exit_code == EXIT_USAGE
    assert result.stdout == ""
    assert result.stderr


def test_lists_of_the_command_line_are_those_of_the_tables():
    assert ("auto", *ENGINES) == options.ENGINES
    assert options.PRECISIONS == PRECISIONS


def test_doctor_knows_the_declared_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    def names(requirements, extras):
        found = set()
        for requirement in requirements:
            if requirement.startswith("urushi["):
                for extra in requirement[7:-1].split(","):
                    found |= names(extras[extra], extras)
            else:
                found.add(requirement.split(">")[0].split("[")[0])
        return found

    extras = project["optional-dependencies"]
    assert set(DEPENDENCIES) == names(project["dependencies"], {})
    for extra, packages in EXTRAS.items():
        assert set(packages) == names(extras[extra], extras), extra


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def broken(*_args, **_options):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("urushi.inference.health.examine", broken)
    with pytest.raises(ZeroDivisionError, match="ours"):
        run("doctor")


def test_a_reader_that_goes_away_is_no_fault():
    process = start("evaluate", "--list")
    assert process.stdout is not None
    process.stdout.close()
    _, stderr = process.communicate()
    assert "Traceback" not in stderr
    assert "BrokenPipe" not in stderr


def test_text_of_strangers_gives_no_orders_to_the_terminal():
    assert printable("a\x1b[31mb\x07") == r"a\x1b[31mb\x07"
    assert printable("größe\n") == "größe\n"
    assert printable("\udcff") == "\N{REPLACEMENT CHARACTER}"
    # What an ASCII locale makes of UTF-8.
    assert printable("Gro\udcc3\udc9fe") == "Große"
    assert printable("\ud83d") == "\N{REPLACEMENT CHARACTER}"


def test_numbers_for_people():
    assert [size_text(n) for n in (7, 1500, 2_500_000)] == ["7 bytes", "1.5 kB", "2.5 MB"]
    assert [time_text(s) for s in (0.44, 200, 7500)] == ["0.4 s", "3 min 20 s", "2 h 5 min"]


def test_json_of_an_error_leaves_stdout_empty(tmp_path):
    result = run("inspect", tmp_path / "nothing.png", "--json")
    assert result.exit_code == EXIT_FAILED
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "nothing.png" in result.stderr


def test_evaluate_lists_the_catalog(tmp_path):
    result = run("evaluate", "--list", "--json", "-")
    listed = json.loads(result.stdout)
    assert {"name", "title", "protocol", "found"} <= set(listed[0])
    table = run("evaluate", "--list", "--data", tmp_path).stdout
    assert all(entry["name"] in table for entry in listed)
