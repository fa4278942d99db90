"""Builds the documentation site; a broken link, reference or snippet is an error.

    python docs/build.py [FOLDER]       # build/site if not given

Pages are the Markdown files of this folder, and files that stand elsewhere because that is where
they are needed: the cards of the models, reports of comparisons, the change log. Their links to one
another are rewritten for the site; links to files that are no pages become the names of these
files. The page of the command line is written from the parser itself.
"""

import argparse
import os
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

from command_line import command_line_page

ROOT = Path(__file__).resolve().parents[1]
STAGE, SITE = ROOT / "build" / "docs", ROOT / "build" / "site"
PICTURES = (".png", ".jpg", ".svg", ".css")
# `[text](target)` and `![text](target)`, but nothing within code.
_LINK = re.compile(r"`[^`\n]+`|(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_COMPLAINT = re.compile(r"(?i)^(?:\x1b\[\d+m)*(griffe|warning|error|mkdocstrings)\b")
_COMMENT = re.compile(r"^<!--.*?-->$", re.M)
_FENCED = re.compile(r"(^ {0,3}```.*?^ {0,3}```[^\n]*$)", re.M | re.S)


def main() -> None:
    parser = argparse.ArgumentParser(description="Builds the documentation site.")
    parser.add_argument("folder", nargs="?", type=Path, default=SITE, help="where it goes")
    folder = parser.parse_args().folder.absolute()
    stage = STAGE if folder == SITE else folder.with_name(f"{folder.name}-pages")
    write_pages(stage)
    raise SystemExit(build(stage, folder))


def pages() -> dict[str, str]:
    """Files of the repository that are in the site: path there -> path in the site."""
    found = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", *PICTURES):
            name = path.relative_to(ROOT).as_posix()
            found[name] = name.removeprefix("docs/")
    for path in sorted((ROOT / "urushi/zoo").glob("*.md")):
        found[path.relative_to(ROOT).as_posix()] = f"cards/{path.name}"
    for path in sorted((ROOT / "benchmarks/results").glob("*/*")):
        if path.suffix in (".md", *PICTURES):
            found[path.relative_to(ROOT).as_posix()] = f"results/{path.parent.name}/{path.name}"
    return found


def write_pages(stage: Path) -> None:
    """Writes all pages, and the configuration beside them."""
    shutil.rmtree(stage, ignore_errors=True)
    places, problems = pages(), []
    for name, place in places.items():
        target = stage / "pages" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix != ".md":
            shutil.copyfile(ROOT / name, target)
            continue
        text = _COMMENT.sub("", (ROOT / name).read_text("utf-8"))
        target.write_text(linked(text, name, places, problems), "utf-8")
    (stage / "pages/command-line.md").write_text(command_line_page(), "utf-8")
    (stage / "pages/cards.md").write_text(cards_page(), "utf-8")
    config = (ROOT / "docs/mkdocs.yml").read_text("utf-8").replace("@ROOT@", ROOT.as_posix())
    (stage / "mkdocs.yml").write_text(config, "utf-8")
    if problems:
        raise SystemExit("\n".join(problems))


def linked(text: str, name: str, places: dict[str, str], problems: list[str]) -> str:
    """The text of a file with the links that it has as a page of the site.

    Args:
        text: Markdown.
        name: of the file, from the root of the repository.
        places: see `pages`.
        problems: gets a line for each link that leads nowhere.
    """
    made = set(places.values()) | {"command-line.md", "cards.md"}
    here, from_place = posixpath.dirname(name), posixpath.dirname(places[name])

    def moved(match: re.Match[str]) -> str:
        shown, label, target = match.groups()
        if target is None:
            return match[0]  # code
        path, mark, anchor = target.partition("#")
        if "://" in target or target.startswith(("mailto:", "#")):
            return match[0]
        found = posixpath.normpath(posixpath.join(here, path))
        if name.startswith("docs/") and found.removeprefix("docs/") in made - set(places.values()):
            return match[0]  # a page that is made here
        if found in places:
            return f"{shown}[{label}]({posixpath.relpath(places[found], from_place)}{mark}{anchor})"
        if not (ROOT / found).exists():
            problems.append(f"{name}: {target} leads nowhere")
        return f"`{found}`" if label.strip("`") in (path, found) else f"{label} (`{found}`)"

    parts = _FENCED.split(text)
    parts[::2] = [_LINK.sub(moved, part) for part in parts[::2]]
    return "".join(parts)


def cards_page() -> str:
    """The index of the cards."""
    lines = ["# Model cards", "", "What every file that ships is, and what it was measured to do."]
    lines += ["", "| file | is |", "|---|---|"]
    first = ("all-in-one", "base")
    names = [path.stem for path in sorted((ROOT / "urushi/zoo").glob("*.md"))]
    for name in (*first, *(name for name in names if name not in first)):
        text = (ROOT / f"urushi/zoo/{name}.md").read_text("utf-8").split("\n\n")[1]
        sentence = " ".join(text.split()).partition(". ")[0].rstrip(".")
        sentence = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", sentence)
        lines.append(f"| [{name}](cards/{name}.md) | {sentence} |")
    return "\n".join(lines) + "\n"


def build(stage: Path, folder: Path) -> int:
    """Builds the site, and puts it into a folder; returns the exit code.

    Whatever is complained of is an error, also where the program that builds goes on.
    """
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        command,
        cwd=stage,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    print(done.stdout, end="")
    complaints = [line for line in done.stdout.splitlines() if _COMPLAINT.match(line)]
    if done.returncode or complaints:
        return done.returncode or 1
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(stage / "site", folder)
    shutil.rmtree(stage)
    print(folder / "index.html")
    return 0


if __name__ == "__main__":
    main()
