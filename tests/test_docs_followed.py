"""The pages of `docs/extend` followed word for word: files written, lines added, commands run."""

import re
import shutil
import subprocess
import sys

import pytest
from commands import ROOT, environment
from pictures import write_pictures
from PIL import Image
from test_adapt import write_pairs
from world import write_tiny_model

from urushi.image import read_picture

PAGES = ("method", "backbone", "degradation", "benchmark")
_BLOCK = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)
_TABLE = re.compile(r"^(?:METHODS: .*?^    |_BUILT_IN: .*? = )\{\n", re.M | re.S)

# One process for all commands: importing torch takes longer than most of them.
RUN = """
import os, shlex, sys
from typer.testing import CliRunner
from urushi.app.cli import app
for line in sys.stdin.read().splitlines():
    if line.startswith("cd "):
        os.chdir(line[3:])
        continue
    done = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
    if done.exit_code:
        sys.exit(f"{line}\\n{done.output}\\n{done.exception!r}")
"""


def blocks(page):
    text = (ROOT / f"docs/extend/{page}.md").read_text("utf-8")
    return _BLOCK.findall(text)


def put(root, name, content):
    """Writes a file as a page says, or adds its lines to one that is there."""
    path = root / name
    if not path.exists():
        path.write_text(content, "utf-8")
        return
    text = path.read_text("utf-8")
    imports, entry = "", content
    if content.startswith("from "):
        imports, _, entry = content.partition("\n\n")
        imports += "\n"
    assert entry.startswith("    ")
    last = [match.end() for match in re.finditer(r"^from urushi\..*\n", text, re.M)][-1]
    if text[:last].rstrip().endswith("("):
        last = text.index(")\n", last) + 2
    text = text[:last] + imports + text[last:]
    table = _TABLE.search(text)
    assert table is not None, name
    path.write_text(text[: table.end()] + entry + text[table.end() :], "utf-8")


def fill(here):
    """What the pages call pictures of yours."""
    here.mkdir()
    write_pictures(here / "photos", 4, height=72, width=96)
    write_pairs(here / "mine")
    shutil.copy(here / "photos/picture0.png", here / "photo.png")
    Image.open(here / "photo.png").save(here / "photo.jpg", quality=95)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """The package with a small zoo, and all that the pages add."""
    root = tmp_path_factory.mktemp("followed")
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "*.onnx", "*.int8")
    shutil.copytree(ROOT / "urushi", root / "urushi", ignore=ignored)
    (root / "urushi/zoo/base.profile.json").unlink()
    write_tiny_model(root / "urushi/zoo/base.safetensors")
    for page in PAGES:
        for _, name, content in blocks(page):
            if name.startswith("urushi/"):
                put(root, name, content)
    return root


def test_pages_are_followed(tree):
    lines, made = [], {}
    for page in PAGES:
        here = tree / page
        fill(here)
        lines.append(f"cd {here}")
        for kind, name, content in blocks(page):
            if name and not name.startswith("urushi/"):
                put(here, name, content)
            elif not kind:
                found = [line for line in content.splitlines() if line.startswith("urushi ")]
                lines += found
                made[page] = made.get(page, 0) + len(found)
    assert min(made[page] for page in PAGES) >= 3
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\n".join(lines), text=True, capture_output=True, check=False,
        cwd=tree, env={**environment(), "PYTHONPATH": str(tree), "URUSHI_KEEP_COMPILED": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before = read_picture(tree / "method/photo.jpg")
    assert not (read_picture(tree / "method/mended.png") == before).all()
    dark = read_picture(tree / "degradation/dark.png")
    assert dark[0, 0].mean() < 0.5 * read_picture(tree / "degradation/photo.jpg")[0, 0].mean()
    assert (tree / "backbone/runs/plain/plain.safetensors").is_file()


def test_what_is_added_is_linted(tree):
    names = [name for page in PAGES for _, name, _ in blocks(page) if name.startswith("urushi/")]
    config = str(ROOT / "pyproject.toml")
    ruff = [sys.executable, "-m", "ruff"]
    new = [str(tree / name) for name in names if not name.endswith("__init__.py")]
    for words in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *words, "--no-cache", "--config", config, *new],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
