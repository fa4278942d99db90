"""The sheet of `urushi restore --look`: pictures, what was seen on them, and what would be done."""

import os
from bisect import bisect
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw, ImageFont

from urushi.errors import TargetError
from urushi.image.formats.known import is_picture_name
from urushi.inference.naming import LOOK_NAME, real
from urushi.routing.wording import advice, percent
from urushi.sheet import GAP, INK, PAPER, fitted, is_sheet, refuse_other, shortened, write_sheet

if TYPE_CHECKING:
    from urushi.inference.choice import Choice
    from urushi.inference.look import Looked
    from urushi.inference.naming import Found

__all__ = ["PER_SHEET", "LookSheets", "is_look_sheet", "kind_done", "sheet_path", "would_be_done"]

_SUFFIXES = (".jpg", ".jpeg", ".png")

_COLUMNS, _ROWS = 5, 8
PER_SHEET = _COLUMNS * _ROWS

_WIDTH, _HEIGHT = 288, 216  # of a picture in its cell
_TEXT, _SMALL, _LINE = 15, 13, 20
_BARS = 3
_CELL = _HEIGHT + 6 * _LINE + 2 * GAP
_WHOLE, _IN_PART = 0.995, ", in part"
_LEAST = 0.05  # a class less probable than this gets no bar, unless it is among the two likeliest

_GREY, _TRACK, _FADED = (110, 110, 110), (226, 226, 222), (150, 150, 150)
_EXPERT, _ALONE, _HINT, _FAILED = (25, 95, 170), (90, 130, 90), (190, 120, 0), (180, 40, 40)
_LEGEND = (
    (_EXPERT, "an expert would act"),
    (_ALONE, "the base alone"),
    (_HINT, "the base alone, with a hint"),
    (_FAILED, "cannot be read"),
)


def sheet_path(output: str) -> tuple[Path, bool]:
    """Where the sheet goes, and whether the user gave the name.

    Args:
        output: `NAME.jpg`, `NAME.png` or a folder, which need not be there.

    Raises:
        TargetError: the name is that of no sheet.
    """
    path = Path(output)
    if path.is_dir() or output.endswith(("/", os.sep)) or not path.suffix:
        return path / LOOK_NAME, False
    if path.suffix.lower() not in _SUFFIXES:
        raise TargetError(
            f"'{output}' is not a name for a sheet: expected NAME.jpg, NAME.png or a folder, "
            "since --look "
            "restores nothing",
            usage=True,
        )
    return path, True


def is_look_sheet(path: Path) -> bool:
    """Whether the file is a sheet of `--look` of the name that it has where nobody gave one."""
    stem = Path(LOOK_NAME).stem
    return path.name.startswith(stem) and is_picture_name(path) and is_sheet(path)


class LookSheets:
    """Draws pictures as they are looked at; a sheet is written when it is full.

    So memory grows neither with their number nor with their size.

    Args:
        path: of the first sheet; others are `NAME-2.jpg` and so on. None draws none.
        items: the files to be drawn, for which names of sheets have to be free.
        overwrite: replace sheets that are there; files of other kinds only where the name is
            `named` by the user.
        named: see `overwrite`.

    Attributes:
        items: those without sheets that are to be replaced, which are no pictures.
        written: the sheets that are there by now.

    Raises:
        TargetError: a name is taken, or the folder cannot be made.
    """

    def __init__(
        self, path: Path | None, items: "Sequence[Found]", *, overwrite: bool, named: bool
    ) -> None:
        self.items, self.written = list(items), list[Path]()
        self._path, self._overwrite, self._named = path, overwrite, named
        self._cells: list[Image.Image] = []
        self._kinds: list[str] = []
        self._count = 0
        if path is None:
            return
        names = [self._nth(number) for number in range(-(-len(items) // PER_SHEET))]
        for name in names:
            refuse_other(name, overwrite=overwrite, named=named)
        replaced = {real(name) for name in names}
        self.items = [item for item in items if not _is_replaced(item.source, replaced)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TargetError(
                f"{path.parent} cannot be created ({error.strerror or error}): choose another "
                "folder"
            ) from error

    def add(self, looked: "Looked") -> None:
        """Draws one picture.

        Raises:
            TargetError: a sheet cannot be written.
        """
        if self._path is None:
            return
        if len(self._cells) == PER_SHEET:
            self._write()
        self._count += 1
        self._cells.append(_cell(looked, self._count))
        self._kinds.append(kind_done(looked.choice))

    def finish(self) -> list[Path]:
        """Writes what is left, and gives all sheets.

        Raises:
            TargetError: a sheet cannot be written.
        """
        if self._cells:
            self._write()
        return self.written

    def _nth(self, number: int) -> Path:
        assert self._path is not None
        if number == 0:
            return self._path
        return self._path.with_name(f"{self._path.stem}-{number + 1}{self._path.suffix}")

    def _write(self) -> None:
        path = self._nth(len(self.written))
        first = self._count - len(self._cells) + 1
        counts = Counter(self._kinds).most_common()
        which = f"Picture {first}" if first == self._count else f"Pictures {first} to {self._count}"
        title = f"{which}: " + ", ".join(f"{kind} {number}" for kind, number in counts)
        sheet = _page(self._cells, title)
        write_sheet(path, sheet, overwrite=self._overwrite, named=self._named)
        self.written.append(path)
        self._cells, self._kinds = [], []


def _is_replaced(source: Path, sheets: set[Path]) -> bool:
    """Whether a source is a sheet that is written anew; no picture is replaced by one."""
    if real(source) not in sheets or not os.path.lexists(source):
        return False
    if is_sheet(source):
        return True
    raise TargetError(f"{source}: the sheet would replace it: choose another name with -o")


def would_be_done(choice: "Choice | None") -> str:
    """What would be done with a picture, in a few words."""
    said = kind_done(choice)
    if choice is None or len(choice.route) != 1 or not said.endswith(_IN_PART):
        return said
    return f"{said} ({percent(choice.route[0][1])})"


def kind_done(choice: "Choice | None") -> str:
    """The same without numbers, so that it can be counted."""
    if choice is None:
        return "cannot be read"
    if not choice.route:
        return "base alone"
    names = " and ".join(name for name, _ in choice.route)
    if len(choice.route) > 1:
        return f"{names} experts"
    whole = all(weight >= _WHOLE for _, weight in choice.route)
    return f"{names} expert" + ("" if whole else _IN_PART)


def _page(cells: Sequence[Image.Image], title: str) -> Image.Image:
    columns = min(_COLUMNS, len(cells))
    rows = -(-len(cells) // columns)
    head = 2 * _LINE + 3 * GAP
    # Wide enough for the legend.
    width = max(columns * (_WIDTH + 2 * GAP), 2 * (_WIDTH + 2 * GAP)) + 2 * GAP
    sheet = Image.new("RGB", (width, head + rows * (_CELL + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    large, small = _font(18), _font(_SMALL)
    draw.text((2 * GAP, GAP), shortened(title, large, width - 4 * GAP), fill=INK, font=large)
    left = 2 * GAP
    for colour, words in _LEGEND:
        top = GAP + _LINE + 10
        draw.rectangle((left, top, left + 10, top + 10), fill=colour)
        draw.text((left + 16, top - 3), words, fill=_GREY, font=small)
        left += int(16 + small.getlength(words) + 14)
    for index, cell in enumerate(cells):
        row, column = divmod(index, columns)
        sheet.paste(cell, (GAP + column * (_WIDTH + 2 * GAP) + GAP, head + row * (_CELL + GAP)))
    return sheet


def _cell(looked: "Looked", number: int) -> Image.Image:
    cell = Image.new("RGB", (_WIDTH, _CELL), PAPER)
    draw = ImageDraw.Draw(cell)
    colour = _colour(looked.choice)
    draw.rectangle((0, 0, _WIDTH - 1, _HEIGHT - 1), fill=(238, 238, 235))
    if looked.small is not None:
        image = fitted(looked.small, (_WIDTH, _HEIGHT))
        cell.paste(image, ((_WIDTH - image.width) // 2, (_HEIGHT - image.height) // 2))
    draw.rectangle((0, _HEIGHT, _WIDTH - 1, _HEIGHT + 4), fill=colour)
    top = _HEIGHT + GAP
    name = looked.name + ("" if looked.page is None else f", page {looked.page + 1}")
    font, small = _font(_TEXT), _font(_SMALL)
    draw.text((0, top), _named(number, name, font), fill=INK, font=font)
    draw.text((0, top + _LINE), would_be_done(looked.choice), fill=colour, font=font)
    top += 2 * _LINE
    decision = None if looked.choice is None else looked.choice.decision
    if decision is None:
        words = looked.message if looked.choice is None else looked.choice.reason
        words = words.replace(str(looked.source), looked.name)
        _write_lines(draw, top, _plain(words), _GREY, 5)
        return cell
    rows = sorted(decision.probabilities.items(), key=lambda item: -item[1])[:_BARS]
    rows = [row for index, row in enumerate(rows) if index < 2 or row[1] >= _LEAST]
    for index, (kind, chance) in enumerate(rows):
        _bar(draw, top + index * _LINE, kind, chance, INK if index == 0 else _GREY)
    if looked.choice is not None and looked.choice.suggested is not None:
        top += _BARS * _LINE + 2
        said = shortened(advice(looked.choice.suggested), small, _WIDTH)
        draw.text((0, top), said, fill=_HINT, font=small)
    return cell


def _colour(choice: "Choice | None") -> tuple[int, int, int]:
    if choice is None:
        return _FAILED
    if choice.route:
        return _EXPERT
    return _ALONE if choice.suggested is None else _HINT


def _bar(
    draw: ImageDraw.ImageDraw, top: int, kind: str, chance: float, ink: tuple[int, int, int]
) -> None:
    """The name of a class, a bar as long as it is probable, and the percentage."""
    font = _font(_SMALL)
    left, right = 84, _WIDTH - 44
    draw.text((0, top), shortened(kind, font, left - 6), fill=ink, font=font)
    draw.rectangle((left, top + 4, right, top + 13), fill=_TRACK)
    if chance > 0:
        draw.rectangle((left, top + 4, left + (right - left) * chance, top + 13), fill=_FADED)
    said = percent(chance)
    draw.text((_WIDTH - font.getlength(said), top), said, fill=ink, font=font)


def _named(number: int, name: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont") -> str:
    """Number and name; of one that is too long the middle is left out, not its end."""
    name = _plain(name)

    def of(kept: int) -> str:
        if kept == len(name):
            return f"{number}  {name}"
        return f"{number}  {name[: kept // 2]}…{name[len(name) - (kept - kept // 2) :]}"

    most = min(len(name), _WIDTH)
    if most == len(name) and font.getlength(of(most)) <= _WIDTH:
        return of(most)
    return of(max(0, bisect(range(most), _WIDTH, key=lambda kept: font.getlength(of(kept))) - 1))


def _write_lines(
    draw: ImageDraw.ImageDraw, top: int, text: str, ink: tuple[int, int, int], most: int
) -> None:
    """Text of several lines; what does not fit is cut off."""
    font = _font(_SMALL)
    lines = [""]
    for word in text[: most * _WIDTH].split():
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(joined) > _WIDTH:
            lines.append(word)
        else:
            lines[-1] = joined
    if len(lines) > most:
        lines = [*lines[: most - 1], " ".join(lines[most - 1 :])]
    for index, line in enumerate(lines):
        draw.text((0, top + index * 17), shortened(line, font, _WIDTH), fill=ink, font=font)


def _plain(text: str) -> str:
    """Names may hold anything, even line breaks and bytes that are no characters."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


@lru_cache
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size=size)
