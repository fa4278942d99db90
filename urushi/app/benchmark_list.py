"""The benchmarks that are known, and those whose pictures are here."""

from rich.table import Table
from rich.text import Text

from urushi.app.output import Output, printable
from urushi.errors import DataError

__all__ = ["all_present", "tell_catalog"]

_NAMED = 8


def all_present(out: Output, root: str | None) -> list[str]:
    """The benchmarks whose pictures are there."""
    from urushi.evaluation.benchmark import BENCHMARKS
    from urushi.evaluation.catalog import data_root

    folder = data_root(root)
    found = _count_pictures(root)
    missing = [name for name, count in found.items() if count is None]
    if len(missing) == len(BENCHMARKS):
        raise DataError(f"no benchmark's pictures are in {folder}: see  urushi evaluate --list")
    if missing:
        named, more = missing[:_NAMED], len(missing) - _NAMED
        rest = f" and {more} more, see  urushi evaluate --list" if more > 0 else ""
        out.say(f"left out, pictures are missing: {', '.join(named)}{rest}")
    return [name for name in found if name not in missing]


def _count_pictures(root: str | None) -> dict[str, int | None]:
    """How many pictures of each benchmark are there; None where some are missing."""
    from urushi.evaluation.benchmark import BENCHMARKS

    found: dict[str, int | None] = {}
    for name, benchmark in BENCHMARKS.items():
        try:
            found[name] = len(benchmark.samples(root))
        except DataError:
            found[name] = None
    return found


def tell_catalog(out: Output, root: str | None) -> None:
    """Shows all benchmarks in a table, or as JSON."""
    from urushi.evaluation.benchmark import BENCHMARKS

    found = _count_pictures(root)
    if out.json:
        listed = BENCHMARKS.items()
        out.document([{**b.model_dump(mode="json"), "found": found[name]} for name, b in listed])
        return
    table = Table(title="Benchmarks", title_justify="left")
    for column in ("name", "what it measures", "pictures", "here", "protocol", "licence"):
        table.add_column(column, overflow="fold")
    for name, benchmark in BENCHMARKS.items():
        here = found[name]
        cells = (
            name,
            benchmark.title,
            benchmark.pictures or "-",
            "-" if here is None else here,
            benchmark.protocol,
            benchmark.licence,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    out.show(table)
