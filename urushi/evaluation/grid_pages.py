"""The report of scores beside published ones as Markdown, and as one HTML page."""

from collections.abc import Iterable, Sequence
from html import escape

from urushi.evaluation.grid import NEEDS_DATA, Column, Grid, Row, Score, SettingTable

__all__ = ["to_html", "to_markdown"]

INTRODUCTION = (
    "Scores of ours beside published ones: PSNR in dB / SSIM. Two scores share a column only if "
    "they are of the same pictures, in the same colour space, with the same border cut off. "
    "Published definitions of SSIM differ and are rarely told. Numbers behind methods are those of "
    "the sources below each table; behind ± stands the standard deviation over seeds; "
    f'"{NEEDS_DATA}" is what was not measured here.'
)


def to_markdown(grid: Grid) -> str:
    """The report as Markdown."""
    lines = ["# Scores beside published ones", "", INTRODUCTION, ""]
    paper = ""
    titles = list(grid.notes)
    for table in grid.tables:
        if table.paper != paper:
            paper, title = table.paper, titles.pop(0)
            lines += [f"## {title}", "", *([grid.notes[title], ""] if grid.notes[title] else [])]
        lines += [f"### {table.paper}, {table.setting}: {table.title}", ""]
        lines += [f"Recipes: {', '.join(f'`{name}`' for name in table.recipes)}", ""] * bool(
            table.recipes
        )
        lines += _markdown_table(
            ["method", *(f"{column.label}<br>{column.space}" for column in table.columns)],
            ([_method(row), *_cells(row, table.columns)] for row in _all_rows(table)),
        )
        lines += [""] + [f"{text}  " for text in _below(table)] + [""]
    if grid.others:
        lines += [
            "## Other benchmarks",
            "",
            "Ours, and what is published for the same pictures.",
            "",
        ]
        lines += _markdown_table(_OTHER, _other_rows(grid))
        lines += [""]
    return "\n".join(lines)


def _markdown_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [_markdown_row(heads), "|---|" + "---:|" * (len(heads) - 1)]
    return [*lines, *(_markdown_row(row) for row in rows)]


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


_OTHER = ("benchmark", "what it measures", "colour space", "pictures", "method", "PSNR / SSIM")


def _other_rows(grid: Grid) -> Iterable[list[str]]:
    for other in grid.others:
        method = other.method if other.ours else f"{other.method} ({other.source})"
        text = _text(other.score, other.ours)
        yield [other.benchmark, other.title, other.space, other.pictures, method, text]


def _all_rows(table: SettingTable) -> list[Row]:
    """Its rows; one of ours also where nothing was measured."""
    if any(row.ours for row in table.rows):
        return list(table.rows)
    return [Row(method="Urushi", ours=True, source=0, scores={}), *table.rows]


def _method(row: Row) -> str:
    return f"**{row.method}**" if row.ours else f"{row.method} [{row.source}]"


def _cells(row: Row, columns: Sequence[Column]) -> list[str]:
    return [_cell(row, column) for column in columns]


def _cell(row: Row, column: Column) -> str:
    score = row.scores.get(column.key)
    if score is not None:
        return _text(score, row.ours)
    return NEEDS_DATA if row.ours and column.ours else "-"


def _text(score: Score, ours: bool) -> str:
    psnr = f"{score.psnr:.2f}" + (f" ± {score.deviation:.2f}" if score.deviation else "")
    if score.ssim is None:
        return psnr
    # Published SSIM as it stands there, mostly with three digits.
    digits = 4 if ours or round(score.ssim, 3) != score.ssim else 3
    return f"{psnr} / {score.ssim:.{digits}f}"


def _below(table: SettingTable) -> list[str]:
    lines = [f"[{n}] {s.source} ({s.reliability})" for n, s in enumerate(table.sources, start=1)]
    if table.missing:
        lines.append(f"Not measured here: {', '.join(table.missing)}.")
    return [*lines, table.note] if table.note else lines


_STYLE = """
:root { color-scheme: light dark; --line: #c9c4bd; --soft: #f4f1ec; --ours: #f9e6df;
  --grey: #77716a; }
@media (prefers-color-scheme: dark) {
  :root { --line: #4a4640; --soft: #26231f; --ours: #43271d; --grey: #9a938a; }
}
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; }
h1, h2, h3 { line-height: 1.2; } h2 { margin-top: 3rem; } h3 { margin-top: 2rem; }
nav { columns: 20rem; font-size: .9rem; } nav a { display: block; }
.wide { overflow-x: auto; border: 1px solid var(--line); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { border-bottom: 1px solid var(--line); padding: .3rem .7rem; text-align: right; }
thead th { background: var(--soft); font-weight: 600; vertical-align: bottom; white-space: normal;
  min-width: 7rem; }
thead small { color: var(--grey); display: block; font-weight: 400; }
th:first-child, td:first-child { background: Canvas; left: 0; position: sticky; text-align: left; }
thead th:first-child { background: var(--soft); }
.ours td { background: var(--ours); font-weight: 600; }
.none { color: var(--grey); font-weight: 400; }
.below, p.note { color: var(--grey); font-size: .9rem; } .below p { margin: .15rem 0; }
.texts td, .texts th { text-align: left; }
sup { font-weight: 400; } code { font-size: .9em; }
"""


def to_html(grid: Grid) -> str:
    """The report as one HTML page, which loads nothing."""
    body = ["<h1>Scores beside published ones</h1>", f"<p>{escape(INTRODUCTION)}</p>"]
    links = [
        f'<a href="#{_anchor(t)}">{escape(f"{t.paper}, {t.setting}: {t.title}")}</a>'
        for t in grid.tables
    ]
    body += [f"<nav>{''.join(links)}</nav>"]
    paper, titles = "", list(grid.notes)
    for table in grid.tables:
        if table.paper != paper:
            paper, title = table.paper, titles.pop(0)
            body += [f"<h2>{escape(title)}</h2>"]
            body += [f'<p class="note">{escape(grid.notes[title])}</p>'] * bool(grid.notes[title])
        body += _html_table(table)
    if grid.others:
        body += ["<h2>Other benchmarks</h2>", '<div class="wide"><table class="texts"><thead><tr>']
        body += [f"<th>{escape(head)}</th>" for head in _OTHER] + ["</tr></thead><tbody>"]
        for other, row in zip(grid.others, _other_rows(grid), strict=True):
            kind = ' class="ours"' if other.ours else ""
            body += [f"<tr{kind}>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>"]
        body += ["</tbody></table></div>"]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Urushi: scores beside published ones</title><style>{_STYLE}</style></head>\n"
        "<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _anchor(table: SettingTable) -> str:
    return escape(f"{table.paper}-{table.setting}")


def _html_table(table: SettingTable) -> list[str]:
    body = [f'<h3 id="{_anchor(table)}">{escape(table.setting)}: {escape(table.title)}</h3>']
    if table.recipes:
        named = ", ".join(f"<code>{escape(name)}</code>" for name in table.recipes)
        body.append(f"<p>Recipes: {named}</p>")
    body += ['<div class="wide"><table><thead><tr><th>method</th>']
    body += [
        f"<th>{escape(column.label)}<small>{escape(column.space)}</small></th>"
        for column in table.columns
    ]
    body += ["</tr></thead><tbody>"]
    for row in _all_rows(table):
        number = "" if row.ours else f" <sup>[{row.source}]</sup>"
        cells = [f"<td>{escape(row.method)}{number}</td>"]
        for cell in _cells(row, table.columns):
            grey = ' class="none"' if cell in (NEEDS_DATA, "-") else ""
            cells.append(f"<td{grey}>{escape(cell)}</td>")
        body.append(f"<tr{' class=ours' if row.ours else ''}>{''.join(cells)}</tr>")
    body += ["</tbody></table></div>", '<div class="below">']
    return [*body, *(f"<p>{escape(text)}</p>" for text in _below(table)), "</div>"]
