"""Made pages: what photographs lack, drawn from a seed. Text, screens, charts, line art and more.

A network that has only seen photographs takes the clean white of a page for haze, and thin dark
strokes for rain. These pages are clean, so that it learns to leave them as they are.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from urushi.data.packed import Pixels
from urushi.data.pages_drawn import comic_page, line_page, map_page, pattern_page, star_page
from urushi.data.pages_written import chart_page, screen_page, text_page
from urushi.errors import DataError, nearest

__all__ = ["PAGE_KINDS", "PAGE_SIDE", "draw_page", "draw_pages", "installed_fonts", "made_pages"]

PageMaker = Callable[[int, int, random.Random, Sequence[Path]], Pixels]

PAGE_KINDS: Mapping[str, PageMaker] = {
    "text": text_page,
    "screen": screen_page,
    "chart": chart_page,
    "lines": line_page,
    "pattern": pattern_page,
    "map": map_page,
    "comic": comic_page,
    "stars": star_page,
}
"""Kinds of pages, and what draws them."""

PAGE_SIDE = 512
"""Height and width of the pages of a training, in pixels."""

_LEAST_SIDE, _GREATEST_SIDE = 16, 8192
# Text is what people have most of, and what suffers most.
_TURNS = ("text", "screen", "text", "chart", "lines", "text", "pattern", "map", "comic", "stars")
_FONT_FOLDERS = (
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/Library/Fonts",
    "/System/Library/Fonts",
    "C:/Windows/Fonts",
)
_MOST_FONTS = 40


def draw_page(kind: str, width: int, height: int, seed: int, fonts: Sequence[Path] = ()) -> Pixels:
    """Draws a page, the same for the same arguments, fonts and version of Pillow.

    Args:
        kind: an entry of `PAGE_KINDS`.
        width: in pixels, 16 to 8192.
        height: in pixels, 16 to 8192.
        seed: any whole number.
        fonts: TrueType or OpenType files, used beside the font that comes with Pillow.

    Returns:
        RGB, (height, width, 3).

    Raises:
        DataError: the kind is unknown, a side is out of range, or a font cannot be read.
    """
    if kind not in PAGE_KINDS:
        hint = nearest(kind, PAGE_KINDS) or f": known are {', '.join(PAGE_KINDS)}"
        raise DataError(f"there is no kind of page {kind!r}{hint}")
    if not all(_LEAST_SIDE <= side <= _GREATEST_SIDE for side in (width, height)):
        raise DataError(
            f"a page of {width}x{height} cannot be drawn: give sides of {_LEAST_SIDE} to"
            f" {_GREATEST_SIDE} pixels"
        )
    return PAGE_KINDS[kind](width, height, random.Random(f"{kind} {seed}"), tuple(fonts))


def made_pages(
    count: int, size: int, seed: int, fonts: Sequence[Path] = ()
) -> tuple[tuple[str, Callable[[], Pixels]], ...]:
    """Square pages of all kinds in turn, text more often: their names, and what draws each.

    Args:
        count: how many; the first ones are the same however many follow.
        size: side in pixels; see `draw_page`.
        seed: of the series.
        fonts: see `draw_page`.
    """
    kinds = [_TURNS[index % len(_TURNS)] for index in range(count)]
    return tuple(
        (
            f"pages/{index:05d}-{kind}",
            partial(draw_page, kind, size, size, seed * 100_003 + index, tuple(fonts)),
        )
        for index, kind in enumerate(kinds)
    )


def draw_pages(count: int, size: int, seed: int, fonts: Sequence[Path] = ()) -> Iterator[Pixels]:
    """Draws the pages of `made_pages`, one at a time."""
    return (draw() for _, draw in made_pages(count, size, seed, fonts))


@lru_cache(maxsize=1)
def installed_fonts() -> tuple[Path, ...]:
    """Fonts with Latin letters in the folders of the system, sorted by path; at most 40."""
    found = sorted(
        path
        for folder in _FONT_FOLDERS
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in (".ttf", ".otf")
    )
    step = max(1, len(found) // _MOST_FONTS)
    return tuple(path for path in found[::step] if _has_letters(path))[:_MOST_FONTS]


def _has_letters(path: Path) -> bool:
    """Fonts of signs alone show the same box for all letters, and some have no scalable form."""
    try:
        font = ImageFont.truetype(str(path), 20)
        shown = []
        for letter in "am":
            image = Image.new("L", (40, 40))
            ImageDraw.Draw(image).text((4, 4), letter, fill=255, font=font)
            shown.append(image.tobytes())
    except (OSError, ValueError):
        return False
    return shown[0] != shown[1]
