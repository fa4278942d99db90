"""Every benchmark of speed and memory, in one table beside the rows that are committed.

    python benchmarks/all.py [--quick] [--only NAME ...] [--data FOLDER]
    python benchmarks/all.py --keep      # the rows measured become the committed ones
    python benchmarks/all.py --write     # puts the committed rows into docs/measured.md

What is measured lies in a folder of its own until it is kept. Each benchmark runs with all
instructions of this processor and then as on one with AVX2 alone. `--quick` takes one round and
small pictures: it tells whether everything runs, and no figures to keep. A benchmark that needs
pictures is left out, with a word, where no `--data` is given.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import composites
import strengths
from measuring import RESULTS

__all__ = [
    "BEGIN",
    "BENCHMARKS",
    "END",
    "Benchmark",
    "figures",
    "page_of_rows",
    "page_table",
    "replaced",
]

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/measured.md"
BEGIN = "<!-- made by  python benchmarks/all.py --write -->"
END = "<!-- until here: speed and memory -->"
TABLES: Mapping[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    "composites": composites.table, "strengths": strengths.table,
}  # fmt: skip
"""Reports of what is no speed: what makes the table of the page from their rows."""
OLDER = {"ONEDNN_MAX_CPU_ISA": "AVX2", "OV_CPU_MAX_ISA": "AVX2"}
SETS: Mapping[str, Mapping[str, str]] = {"": {}, "-avx2": OLDER}
"""What is put behind a report's name -> the limits it was measured under."""

Row = Mapping[str, Any]
Figure = tuple[str, str]


@dataclass(frozen=True)
class Benchmark:
    """A script, and what of its rows is told.

    Attributes:
        name: of the script and of its report.
        told: the figures of one row, by what they are called, in the order of the table.
        quick: options of a short run.
        data: what the script calls the folder of pictures that it needs; None where it needs none.
        options: of every run.
    """

    name: str
    told: Callable[[Row], list[Figure]]
    quick: tuple[str, ...] = ()
    data: str | None = None
    options: tuple[str, ...] = ()


def _restore(row: Row) -> list[Figure]:
    name, found = row["name"], [("megapixels a second", f"{row['pixels_per_second'] / 1e6:.2f}")]
    found.append(("times plain torch", f"{row['ratio_to_eager']:.2f}"))
    if "peak_megabytes_beyond" in row:
        found.append(("memory beyond the runtime", f"{row['peak_megabytes_beyond']} MB"))
    return [(f"{name}: {what}", value) for what, value in found]


def _choosing(row: Row) -> list[Figure]:
    name = f"choosing, {row['way']}" if "way" in row else "choosing"
    found = [(f"{name}: ready in", f"{row['ready']:.2f} s")]
    for size, one in row.items():
        if isinstance(one, Mapping) and "of_mending" in one:
            value = f"{one['choosing']:.2f} s, {one['of_mending']:.2f} of mending"
            found.append((f"{name}: {size}", value))
    return found


def _startup(row: Row) -> list[Figure]:
    value = f"{row['cpu_seconds']:.2f} s of the processor, {row['seconds']:.2f} s"
    if "cpu_to_import" in row:
        value += f" ({row['cpu_to_import']:.1f} times the import)"
    return [(f"one picture from the start, {row['way']}", value)]


def _memory(row: Row) -> list[Figure]:
    value = f"{row['peak']} MB, {row['beyond']} beyond the runtime, estimate {row['estimate']}"
    return [(f"memory, {row['size']}, task {row['task']}", value)]


def _small(row: Row) -> list[Figure]:
    value = f"{row['ratio_cpu']:.2f} of the engine"
    return [(f"small pictures, task {row['task']}, sizes {row['sizes']}", value)]


def _plain(row: Row) -> list[Figure]:
    """Every number of a row, behind what is said of it."""
    said = ", ".join(str(value) for value in row.values() if isinstance(value, str))
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float)}
    return [(f"{said}: {key.replace('_', ' ')}", f"{value:g}") for key, value in numbers.items()]


def _large(row: Row) -> list[Figure]:
    what = {"engine": "the engine alone", "tiff": "TIFF of 16 bits in P3", "none": "base"}
    name = f"12 MP, {what.get(row['row'], row['row'])}"
    found = [(f"{name}: time", f"{row['seconds']:.1f} s, {row['cpu']:.1f} s of the processor")]
    if row["megabytes"]:
        found.append((f"{name}: memory beyond the runtime", f"{row['megabytes']} MB"))
    if "of_engine" in row:
        found.append((f"{name}: of the engine's speed", f"{row['of_engine']:.2f}"))
    if "against" in row:
        found.append((f"{name}: times the version before", f"{row['against']:.2f}"))
    return found


def _steps(row: Row) -> list[Figure]:
    name = f"a step of {row['variant']}, the code {row['code']}"
    ratio = f"{row['to_first_full_cpu']:.2f} of full tuning before"
    return [(name, f"{row['cpu']:.2f} s of the processor, {ratio}")]


def _cluster(row: Row) -> list[Figure]:
    what = (
        "one small picture" if row["pictures"] == "one" else f"{row['restored']:,} small pictures"
    )
    name = f"{what}, {'Ray on this machine' if row['way'] == 'cluster' else 'the command'}"
    return [(name, f"{row['wall']:.1f} s, {row['cpu']:.1f} s of the processor")]


def _shards(row: Row) -> list[Figure]:
    value = f"{row['patches_per_second']} a second, "
    value += f"{row['cpu_milliseconds_per_patch']:.1f} ms of the processor each"
    return [(f"patches of 128 for a training, {row['name']}", value)]


BENCHMARKS = (
    Benchmark("restore", _restore, ("--skip-large", "--rounds", "1"), options=("--skip-large",)),
    Benchmark("choosing", _choosing, ("--rounds", "1")),
    Benchmark("startup", _startup, ("--quick",)),
    Benchmark("large", _large, ("--quick",)),
    Benchmark("memory", _memory, ("--quick",)),
    Benchmark("small", _small, ("--count", "4"), data="--data"),
    Benchmark("adapt_steps", _steps),
    Benchmark("cluster", _cluster, ("--count", "8")),
    Benchmark("shards", _shards, ("--quick",)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Every benchmark of speed and memory.")
    names = [one.name for one in BENCHMARKS]
    parser.add_argument("--quick", action="store_true", help="a short run, to see that all works")
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--sets", nargs="+", choices=["all", "avx2"], default=["all", "avx2"])
    parser.add_argument("--data", type=Path, help="folder of pictures, for those that need some")
    parser.add_argument("--keep", action="store_true", help="commit what is measured")
    parser.add_argument(
        "--write", action="store_true", help="measure nothing, write docs/measured.md"
    )
    options = parser.parse_args()
    if options.write:
        PAGE.write_text(page_of_rows(PAGE.read_text("utf-8")), "utf-8")
        return
    if options.keep and options.quick:
        parser.error("--quick measures no figures to keep: leave --quick or --keep out")
    with tempfile.TemporaryDirectory() as folder:
        failed = list(run(options, Path(folder)))
        print(table(figures(RESULTS), figures(Path(folder))))
        if options.keep:
            for path in Path(folder).glob("*.json"):
                (RESULTS / path.name).write_bytes(path.read_bytes())
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def run(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Runs the benchmarks, their reports into a folder; yields the names of those that failed."""
    for behind, limits in SETS.items():
        if (behind.lstrip("-") or "all") not in options.sets:
            continue
        for one in BENCHMARKS:
            script = HERE / f"{one.name}.py"
            if one.name not in options.only or not script.is_file():
                continue
            words = [sys.executable, str(script), *one.options]
            words += one.quick if options.quick else ()
            if one.data is not None:
                if options.data is None:
                    print(f"{one.name} is left out: it needs --data FOLDER", file=sys.stderr)
                    continue
                words += [one.data, str(options.data)]
            own = {"URUSHI_RESULTS": str(folder), **limits}
            print(f"{one.name}{behind}", file=sys.stderr, flush=True)
            done = subprocess.run(words, env={**os.environ, **own}, stdout=sys.stderr)
            if done.returncode:
                yield f"{one.name}{behind}"


def figures(folder: Path) -> dict[str, dict[str, str]]:
    """What the reports of a folder tell: by the name of the set, values by what they are."""
    found: dict[str, dict[str, str]] = {}
    for behind in SETS:
        for one in BENCHMARKS:
            path = folder / f"{one.name}{behind}.json"
            if path.is_file():
                rows = json.loads(path.read_text("utf-8"))["rows"]
                told = [figure for row in rows for figure in one.told(row)]
                found.setdefault(behind, {}).update(told)
    return found


def processors(folder: Path) -> dict[str, str]:
    """The processor of each set that there are reports of."""
    found = {}
    for behind in SETS:
        for one in BENCHMARKS:
            path = folder / f"{one.name}{behind}.json"
            if path.is_file():
                machine = json.loads(path.read_text("utf-8"))["machine"]
                found.setdefault(behind, f"{machine['processor']}, {machine['cores']} cores")
    return found


def table(
    committed: Mapping[str, Mapping[str, str]], today: Mapping[str, Mapping[str, str]]
) -> str:
    """Today's figures beside the committed ones, in plain text."""
    lines = []
    for behind, values in today.items():
        lines.append(f"\n{behind.lstrip('-').upper() or 'all instructions'}")
        before = committed.get(behind, {})
        for name, value in values.items():
            lines.append(f"  {name}\n      today {value}; committed {before.get(name, 'nothing')}")
    return "\n".join(lines)


def page_table(folder: Path = RESULTS) -> str:
    """The committed figures in Markdown: a row each, a column for each set of instructions."""
    found, where = figures(folder), processors(folder)
    titles = [f"{where[b]}{', AVX2 alone' if b else ''}" for b in found]
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for name in dict.fromkeys(name for values in found.values() for name in values):
        lines.append(f"| {name} | {' | '.join(v.get(name, '') for v in found.values())} |")
    return "\n".join(lines)


def page_of_rows(text: str) -> str:
    """The page with every table of the committed rows."""
    text = replaced(text, page_table())
    for name, table_of in TABLES.items():
        rows = json.loads((RESULTS / f"{name}.json").read_text("utf-8"))["rows"]
        begin = BEGIN.replace(" -->", f": {name} -->")
        text = replaced(text, table_of(rows), begin, f"<!-- until here: {name} -->")
    return text


def replaced(text: str, content: str, begin: str = BEGIN, end: str = END) -> str:
    """A text with other content between the two markers.

    Raises:
        ValueError: they are not there, once each and in their order.
    """
    before, found, rest = text.partition(begin)
    _, last, after = rest.partition(end)
    if not found or not last or begin in rest or end in before + after:
        raise ValueError(f"expected {begin} and {end}, once each and in this order")
    return f"{before}{begin}\n{content}\n{end}{after}"


if __name__ == "__main__":
    main()
