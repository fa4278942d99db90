"""The documentation: the site builds, links lead somewhere, and what is generated is current."""

import importlib
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from commands import ROOT, environment

import urushi
from urushi.adapters import METHODS

DOCS = ROOT / "docs"
# Attributes by which a page loads something; a link is only followed.
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("source", "src"), ("iframe", "src")}
# A page may name these as its own address or kin without loading them.
NAMED = {"canonical", "next", "prev"}


class Page(HTMLParser):
    """What a page loads, links to, and can be linked at."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.links, self.anchors = set(), set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "a" and found.get("href"):
            self.links.add(found["href"])
        for name, value in found.items():
            named = tag == "link" and set((found.get("rel") or "").split()) & NAMED
            if (tag, name) in LOADS and value and not named:
                self.loads.add(value)


def script(name):
    """A module of `docs`, which is no package."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


def test_the_site_builds_whole(tmp_path):
    """One test: building takes seconds."""
    site = tmp_path / "site"
    command = [sys.executable, str(DOCS / "build.py"), str(site)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path: Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 40
    broken, elsewhere = [], []
    for path, page in pages.items():
        for target in page.loads | page.links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                if target in page.loads and parts.scheme != "data":
                    elsewhere.append(f"{path.name}: {target}")
                continue
            # The page for what is not found stands at no place of its own.
            if path.name == "404.html":
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = found / "index.html" if found.is_dir() else found
            if not found.is_file():
                broken.append(f"{path.name}: {target}")
                continue
            anchors = pages[found].anchors if found in pages and target in page.links else ()
            if parts.fragment and anchors and unquote(parts.fragment) not in anchors:
                broken.append(f"{path.name}: {target}")
    assert not broken
    assert not elsewhere
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet
    reference = (site / "python.html").read_text("utf-8")
    for name in set(urushi.__all__) - {"__version__"}:
        assert f'id="urushi.{name}"' in reference, name
    assert "<table>" in (site / "measured.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[gone](nowhere.md)", "nowhere.md leads nowhere"),
        ("![gone](pictures/nowhere.png)", "pictures/nowhere.png leads nowhere"),
        ("[gone](../nowhere.py)", "../nowhere.py leads nowhere"),
    ],
)
def test_a_link_that_leads_nowhere_is_an_error(text, said):
    build, problems = script("build"), []
    build.linked(text, "docs/index.md", build.pages(), problems)
    assert problems == [f"docs/index.md: {said}"]


def test_links_are_those_of_the_site():
    build, problems = script("build"), []
    text = (
        "[card](../urushi/zoo/base.md#scores) [code](../pyproject.toml) `[not](a.md)` "
        "[`pyproject.toml`](../pyproject.toml) ![drawn](pictures/tiles.png)\n\n"
        "```\n[nor](this.md)\n```\n[far](https://example.org) [made](command-line.md)"
    )
    found = build.linked(text, "docs/index.md", build.pages(), problems)
    assert not problems
    assert found == (
        "[card](cards/base.md#scores) code (`pyproject.toml`) `[not](a.md)` "
        "`pyproject.toml` ![drawn](pictures/tiles.png)\n\n"
        "```\n[nor](this.md)\n```\n[far](https://example.org) [made](command-line.md)"
    )


def test_every_page_can_be_reached():
    """By the navigation, or by the index of its folder."""
    config = yaml.safe_load((DOCS / "mkdocs.yml").read_text("utf-8").replace("@ROOT@", "/"))

    def leaves(entry):
        if isinstance(entry, str):
            yield entry
        for part in entry.values() if isinstance(entry, dict) else ():
            for one in part if isinstance(part, list) else [part]:
                yield from leaves(one)

    named = {leaf for entry in config["nav"] for leaf in leaves(entry)}
    places = {place for place in script("build").pages().values() if place.endswith(".md")}
    indexed = {place for place in places if place.startswith(("cards/", "decisions/0", "results/"))}
    assert places - indexed == named - {"command-line.md", "cards.md"}


def test_the_page_of_the_command_line_has_every_option():
    module = script("command_line")
    text, count = module.command_line_page(), 0
    for name, command in module.commands():
        section = text.partition(f"\n## {name.removeprefix('urushi ')}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            shown = parameter.param_type_name == "option" and not parameter.hidden
            for option in parameter.opts if shown else ():
                assert f"`{option}`" in section, f"{name} {option}"
                count += 1
        assert "\nurushi " in section
    assert count > 150
    assert "\x1b" not in text


def test_indexes_are_current():
    indexes = script("indexes")
    advice = "run  python docs/indexes.py"
    assert indexes.DECISIONS.read_text("utf-8") == indexes.decisions_index(), advice
    text = indexes.LOG.read_text("utf-8")
    assert indexes.with_index(text) == text, advice
    for path in DOCS.glob("decisions/0*.md"):
        assert re.match(r"# (?:0*)(\d+)[.:] \S", path.read_text("utf-8")), path.name


def test_the_counts_are_of_the_package():
    counts = script("counts")
    modules = {counts.module_of(path) for _, paths in counts.packages() for path in paths}
    assert {"urushi", "urushi.api", "urushi.adapters.colora"} <= modules
    assert counts.table().splitlines()[-1].startswith("| **all** | ")
    text = counts.PAGE.read_text("utf-8")
    assert text.count(counts.BEGIN) == text.count(counts.END) == 1


def test_every_figure_has_its_command():
    figures = script("figures")
    drawn = {file for file, _ in figures.FIGURES.values()}
    assert drawn == {path.name for path in figures.PICTURES.iterdir()}
    text = "".join(path.read_text("utf-8") for path in DOCS.rglob("*.md"))
    for name, (file, _) in figures.FIGURES.items():
        assert f"pictures/{file}" in text
        assert f"python docs/figures.py {name}" in text


def test_figures_are_drawn(tmp_path, monkeypatch):
    figures = script("figures")
    monkeypatch.setattr(figures, "PICTURES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["figures.py", "layers", "tiles"])
    figures.main()
    assert {path.name for path in tmp_path.iterdir()} == {"layers.png", "tiles.png"}


def test_the_readme_is_short_and_keeps_its_commands():
    text = (ROOT / "README.md").read_text("utf-8")
    lines = text.splitlines()
    assert len(lines) < 140
    assert max(map(len, lines)) <= 120
    assert re.search(r"^make demo\b", text, re.M)
    assert re.search(r"^make test\b", text, re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert "://" in target or (ROOT / target).exists(), target


def test_pages_have_short_lines():
    for path in [*DOCS.glob("*.md"), *DOCS.glob("extend/*.md")]:
        if path.name in ("log.md", "measured.md"):
            continue
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            table = line.startswith("|")
            assert table or len(line) <= 120, f"{path.name}:{number}"


def test_methods_in_the_docs_exist():
    text = (DOCS / "measured.md").read_text("utf-8")
    assert all(f"| `{name}` |" in text for name in METHODS)
