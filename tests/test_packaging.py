"""What is distributed: a source distribution whose tests run, and true statements about it."""

import subprocess
import sys
import tomllib
from pathlib import PurePosixPath

import pytest
from commands import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Folders of which all that is not made by a run is distributed.
FOLDERS = ("benchmarks", "docs", "examples", "findings", "integrations", "tests", "urushi")
MADE = (".pyc", ".pyo")


@pytest.fixture(scope="module")
def distributed(tmp_path_factory):
    """Names of the files of a source distribution, as setuptools lists them."""
    folder = tmp_path_factory.mktemp("egg")
    code = "from setuptools import setup; setup()"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "-q", "egg_info", "--egg-base", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set((folder / "urushi.egg-info/SOURCES.txt").read_text("utf-8").split("\n"))


def test_a_source_distribution_holds_all_that_tests_need(distributed):
    expected = {"Makefile", "constraints.txt", "README.md", "CONTRIBUTING.md", "CHANGELOG.md"}
    expected |= {"LICENSE", "pyproject.toml", ".ci/run", "runs/README.md"}
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*"):
            name = path.relative_to(ROOT)
            hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
            if path.is_file() and path.suffix not in MADE and not hidden:
                expected.add(name.as_posix())
    expected |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "demo/pictures").rglob("*.*")}
    assert not expected - distributed


def test_nothing_made_is_distributed(distributed):
    for name in map(PurePosixPath, distributed):
        assert name.suffix not in MADE
        assert not {"__pycache__", ".venv", "build"} & set(name.parts)
        assert name.parts[:2] != ("demo", "out")


def test_no_extra_brings_torchvision():
    text = " ".join(word for extra in PROJECT["optional-dependencies"].values() for word in extra)
    for package in ("torchvision", "spandrel", "timm", "open_clip", "lpips"):
        assert package not in text


def test_every_version_is_pinned():
    constraints = (ROOT / "constraints.txt").read_text("utf-8").lower()
    pinned = {line.partition("==")[0].replace("_", "-") for line in constraints.splitlines()}
    wanted = [*PROJECT["dependencies"]]
    for extra in PROJECT["optional-dependencies"].values():
        wanted += extra
    for requirement in wanted:
        name = requirement.partition(">=")[0].partition("[")[0].lower().replace("_", "-")
        assert name == "urushi" or name in pinned, requirement
