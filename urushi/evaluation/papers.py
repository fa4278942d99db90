"""What papers measured: settings, benchmarks, published scores; ``urushi/data/catalog/papers``.

A published score stands with its source, how reliable that is, and what it was computed on: the
benchmark, the colour space, the border that was cut. What nobody told is said so; such a score
stands in a column of its own.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from urushi.data.data_sets import CATALOG
from urushi.errors import DataError, nearest
from urushi.names import counted
from urushi.settings import Settings, SettingsFolder

__all__ = ["PAPERS", "Colour", "Paper", "PaperSetting", "PublishedTable", "find_paper", "read_cell"]

Colour = Literal["rgb", "y", "y-swapped", "grey"]
_CELL = re.compile(r"(\d+(?:\.\d+)?)(?:/(\d?\.\d+))?")


def read_cell(text: str) -> tuple[float, float | None] | None:
    """PSNR in dB and SSIM of `32.28/0.930`; None of `-`, which is none.

    Raises:
        ValueError: the text is neither.
    """
    if text == "-":
        return None
    found = _CELL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no score such as 32.28, 32.28/0.930, or - for none")
    return float(found[1]), None if found[2] is None else float(found[2])


class PublishedTable(Settings):
    """Scores from one source.

    Attributes:
        source: where they stand.
        reliability: `first hand`: its authors' own table; `second hand`: someone's text of it;
            `read off a figure`; `earlier version`: of the paper, and of the method.
        colour: of the comparison; null where it is not told.
        crop: pixels cut off on every side.
        told: what is known of the colour space where `colour` is null.
        data: what is different in their pictures, where something is.
        columns: benchmark of each column by its heading; null is of no benchmark that can be
            measured, such as an average.
        rows: scores by method, one for each column, apart by spaces.
    """

    source: str
    reliability: Literal["first hand", "second hand", "read off a figure", "earlier version"]
    colour: Colour | None = None
    crop: Annotated[int, Field(ge=0)] = 0
    told: str = ""
    data: str = ""
    columns: Annotated[dict[str, str | None], Field(min_length=1)]
    rows: dict[str, str]

    @model_validator(mode="after")
    def _whole(self) -> "PublishedTable":
        if (self.colour is None) != bool(self.told):
            raise ValueError("expected the colour space in colour, or what is known of it in told")
        for method, text in self.rows.items():
            cells = [read_cell(cell) for cell in text.split()]
            if len(cells) != len(self.columns):
                raise ValueError(
                    f"{method} has {counted(len(cells), 'score')} for "
                    f"{counted(len(self.columns), 'column')}"
                )
        return self


class PaperSetting(Settings):
    """One experiment of a paper.

    Attributes:
        title: what is learned, for a person.
        recipes: that train it here; rows of tables may be patterns.
        benchmarks: what is measured on, names in the catalogue.
        note: what to mind.
        tables: published scores.
    """

    title: str
    recipes: list[str] = []
    benchmarks: Annotated[list[str], Field(min_length=1)]
    note: str = ""
    tables: list[PublishedTable] = []


class Paper(Settings):
    """A paper, or a table that many share; the keys of a YAML file.

    Attributes:
        name: of the file, without suffix.
        title: of the paper, with its authors.
        note: what to mind.
        settings: by name.
    """

    name: str
    title: str
    note: str = ""
    settings: Annotated[dict[str, PaperSetting], Field(min_length=1)]


PAPERS: Mapping[str, Paper] = SettingsFolder(CATALOG / "papers", Paper, DataError)


def find_paper(name: str) -> Paper:
    """The paper of that name.

    Raises:
        DataError: there is none.
    """
    if name not in PAPERS:
        hint = nearest(name, PAPERS)
        raise DataError(
            f"there is no paper {name!r}{hint}: known are {', '.join(PAPERS)}", usage=True
        )
    return PAPERS[name]
