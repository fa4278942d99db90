"""Writes the indexes of the decisions and of the log, from their headings.

python docs/indexes.py              # after adding one
"""

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parent
DECISIONS, LOG = DOCS / "decisions/README.md", DOCS / "log.md"
BEGIN = "<!-- made by  python docs/indexes.py -->"
END = "<!-- until here: index -->"

INTRODUCTION = """# Decisions

Half a page for each decision that had alternatives: what was decided, what else was tried or
possible, and why. A later one may replace an earlier one, and says so. `python docs/indexes.py`
writes this index.
"""


def main() -> None:
    DECISIONS.write_text(decisions_index(), "utf-8")
    text = LOG.read_text("utf-8")
    LOG.write_text(with_index(text), "utf-8")


def decisions_index() -> str:
    """The page that lists the decisions, newest first."""
    lines = [INTRODUCTION, "| | decided |", "|---:|---|"]
    for path in sorted(DOCS.glob("decisions/[0-9]*.md"), reverse=True):
        heading = path.read_text("utf-8").splitlines()[0].removeprefix("# ")
        title = re.sub(r"^\d+\s*[.:]\s*", "", heading)
        lines.append(f"| {int(path.name[:4])} | [{title}]({path.name}) |")
    return "\n".join(lines) + "\n"


def with_index(text: str) -> str:
    """The log with an index of its sections, below its first paragraph."""
    if BEGIN in text:
        before, _, rest = text.partition(f"{BEGIN}\n")
        text = before + rest.partition(f"{END}\n\n")[2]
    before, mark, after = text.partition("\n## ")
    titles = re.findall(r"^## (.+)$", text, re.M)
    lines = [f"- [{title}](#{anchor(title)})" for title in titles]
    index = "\n".join([BEGIN, *lines, END])
    return f"{before}\n{index}\n{mark}{after}"


def anchor(title: str) -> str:
    """What a heading is linked by."""
    plain = re.sub(r"[^\w\s-]", "", title.replace("`", "")).strip().lower()
    return re.sub(r"[-\s]+", "-", plain)


if __name__ == "__main__":
    main()
