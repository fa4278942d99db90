"""Counts modules and lines of the package, for the page on the architecture.

python docs/counts.py               # prints the table
python docs/counts.py --write       # puts it into docs/architecture.md, between its markers
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/architecture.md"
BEGIN = "<!-- made by  python docs/counts.py --write -->"
END = "<!-- until here: counts -->"


def main() -> None:
    parser = argparse.ArgumentParser(description="Modules and lines of the package.")
    parser.add_argument("--write", action="store_true", help="put the table into the page")
    if not parser.parse_args().write:
        print(table())
        return
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{PAGE} has lost its markers"
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}", "utf-8")


def table() -> str:
    """Modules and lines of each package, in Markdown."""
    lines = ["| package | modules | lines | modules with one importer |", "|---|---:|---:|---:|"]
    importers = importers_of()
    total = [0, 0, 0]
    for name, paths in packages():
        counts = (
            len(paths),
            sum(len(path.read_text("utf-8").splitlines()) for path in paths),
            sum(importers.get(module_of(path), 0) == 1 for path in paths),
        )
        total = [before + count for before, count in zip(total, counts, strict=True)]
        lines.append(f"| `{name}` | {' | '.join(f'{count:,}' for count in counts)} |")
    lines.append(f"| **all** | {' | '.join(f'{count:,}' for count in total)} |")
    return "\n".join(lines)


def packages() -> Iterator[tuple[str, list[Path]]]:
    """Each package right below the root, with the modules in it; the root's own modules first."""
    root = ROOT / "urushi"
    yield "urushi", sorted(root.glob("*.py"))
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if paths := sorted(folder.rglob("*.py")):
            yield f"urushi.{folder.name}", paths


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def importers_of() -> dict[str, int]:
    """How many modules of the package import each of them, at any place in their code."""
    import grimp

    graph = grimp.build_graph("urushi", cache_dir=None)
    return {
        module: len(graph.find_modules_that_directly_import(module)) for module in graph.modules
    }


if __name__ == "__main__":
    main()
