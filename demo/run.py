"""Mends the pictures of `demo/pictures` into `demo/out`, and says what it was worth.

make demo
"""

import sys
import time
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from urushi.evaluation.metrics import named_protocol, score
from urushi.image import inspect_picture, read_picture, write_picture
from urushi.inference.auto import AutoRestorer
from urushi.inference.choice import Choice
from urushi.inference.picture_files import restore_picture
from urushi.sheet import contact_sheet

HERE = Path(__file__).resolve().parent
INPUTS, REFERENCES, OUT = HERE / "pictures/input", HERE / "pictures/reference", HERE / "out"


def main() -> int:
    console = Console()
    begin = time.perf_counter()
    chooser = AutoRestorer()
    facts = chooser.describe()
    console.print(
        f"{facts['router']}: router, experts and base on {facts['engine']}, {facts['device']}, "
        f"{facts['precision']}"
    )
    title = "PSNR in dB against the undamaged picture"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("picture", "kind", "seen", "before", "after", "gain"):
        left = name in ("picture", "kind", "seen")
        table.add_column(name, justify="left" if left else "right", no_wrap=name != "kind")
    OUT.mkdir(exist_ok=True)
    rows, worse = [], []
    for source in sorted(INPUTS.iterdir()):
        target = OUT / source.name
        choice = chooser.choose_file(source)
        restore_picture(chooser.restorer(choice), source, target, overwrite=True)
        pictures = [read_picture(path) for path in (source, target)]
        reference = read_picture(REFERENCES / f"{source.stem}.webp")
        before, after = (score(p, reference, named_protocol("rgb-8bit")).psnr for p in pictures)
        if after <= before:
            worse.append(source.name)
        cells = (f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}")
        seen = short(choice)
        table.add_row(source.name, kind_of(source), seen, *cells)
        captions = (f"{source.name}: {before:.2f} dB", f"{seen}: {after:.2f} dB", "undamaged")
        rows.append(list(zip([*pictures, reference], captions, strict=True)))
    console.print(table)
    # Two pictures side by side: six columns; what the base did alone is in brackets.
    pairs = [[cell for row in rows[i : i + 2] for cell in row] for i in range(0, len(rows), 2)]
    sheet = OUT / "before-after.png"
    title = "Before, after, undamaged"
    write_picture(sheet, contact_sheet(pairs, cell_size=(288, 192), title=title), overwrite=True)
    seconds = time.perf_counter() - begin
    here = Path.cwd()
    console.print(
        f"{len(rows)} pictures in {seconds:.1f} s: they lie in {shown(OUT, here)}, "
        f"before and after in {shown(sheet, here)}"
    )
    if worse:
        console.print(f"not improved: {', '.join(worse)}")
    return 1 if worse else 0


def short(choice: Choice) -> str:
    """What was seen, and how sure it was; what the base does alone is in brackets."""
    assert choice.decision is not None
    seen = choice.decision.seen
    told = f"{seen} {100 * choice.decision.probabilities[seen]:.0f} %"
    return told if choice.route else f"({told})"


def kind_of(path: Path) -> str:
    info = inspect_picture(path)
    words = [] if (info.bits, info.kind) == (8, "rgb") else [f"{info.bits} bit {info.kind}"]
    if info.has_alpha:
        words.append("alpha")
    if info.has_profile:
        words.append("profile")
    if info.orientation != 1:
        words.append("turned")
    return ", ".join(words)


def shown(path: Path, here: Path) -> Path:
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    sys.exit(main())
