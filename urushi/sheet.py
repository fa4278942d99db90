"""Contact sheets: pictures beside one another, each with a caption."""

import io
import os
from bisect import bisect
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from urushi.errors import TakenError, TargetError
from urushi.writing import refuse_taken, whole_file

__all__ = [
    "GAP",
    "INK",
    "PAPER",
    "contact_sheet",
    "fitted",
    "is_sheet",
    "refuse_other",
    "shortened",
    "write_sheet",
]

# The comment by which a sheet of ours is told from a photograph of that name.
_MARK = b"Urushi sheet"

PAPER = (250, 250, 248)
INK = (30, 30, 30)
GAP = 8
_CAPTION = 14
_TITLE = 20


def fitted(picture: np.ndarray, cell_size: tuple[int, int]) -> Image.Image:
    """The picture as large as it fits, aspect kept; enlarged by whole factors only, unblurred.

    Args:
        picture: RGB `(H, W, 3)`, floats in [0, 1] or uint8.
        cell_size: width and height in pixels.
    """
    height, width = picture.shape[:2]
    scale = min(cell_size[0] / width, cell_size[1] / height)
    if scale >= 1:
        factor = int(scale)
        size = (width * factor, height * factor)
    else:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
    if picture.dtype != np.uint8:
        picture = (np.clip(np.nan_to_num(picture), 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(picture)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS)


def shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """The text, with an ellipsis where it would be wider than the cell.

    Args:
        text: of one line.
        font: that it is drawn with.
        width: in pixels.
    """
    if len(text) <= width and font.getlength(text) <= width:  # no letter has less than a pixel
        return text
    fits = bisect(range(min(len(text), width)), width, key=lambda n: font.getlength(text[:n] + "…"))
    return text[: max(0, fits - 1)] + "…"


def contact_sheet(
    cells: Sequence[Sequence[tuple[np.ndarray, str]]],
    cell_size: tuple[int, int] = (384, 288),
    title: str | None = None,
) -> Float32[np.ndarray, "h w 3"]:
    """Lay pictures out in rows, each centred in a cell of the same size above its caption.

    Args:
        cells: rows of (picture, caption); pictures are RGB float32 in [0, 1], (H, W, 3), of any
            sizes. Rows may have different lengths. Line breaks in a caption make further lines.
        cell_size: width and height in pixels in which a picture is fitted.
        title: written above everything.

    Returns:
        The sheet, RGB in [0, 1].
    """
    font = ImageFont.load_default(size=_CAPTION)
    large = ImageFont.load_default(size=_TITLE)
    line = _CAPTION + 4
    across = max((len(row) for row in cells), default=0)
    lines = [max((text.count("\n") + 1 for _, text in row), default=1) for row in cells]
    head = _TITLE + 2 * GAP if title else 0
    width = max(1, across) * (cell_size[0] + GAP) + GAP
    height = head + GAP + sum(cell_size[1] + many * line + 2 * GAP for many in lines)
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    if title:
        text = shortened(title, large, width - 2 * GAP)
        draw.text((GAP, GAP), text, fill=INK, font=large)
    top = head + GAP
    for row, many in zip(cells, lines, strict=True):
        for index, (picture, caption) in enumerate(row):
            left = GAP + index * (cell_size[0] + GAP)
            image = fitted(picture, cell_size)
            corner = (
                left + (cell_size[0] - image.width) // 2,
                top + (cell_size[1] - image.height) // 2,
            )
            sheet.paste(image, corner)
            for number, text in enumerate(caption.split("\n")):
                place = (left, top + cell_size[1] + number * line + 2)
                draw.text(place, shortened(text, font, cell_size[0]), fill=INK, font=font)
        top += cell_size[1] + many * line + 2 * GAP
    return np.asarray(sheet, np.float32) / np.float32(255)


def is_sheet(path: Path) -> bool:
    """Whether the file is a sheet that `write_sheet` made."""
    try:
        with Image.open(path) as image:
            told = image.info.get("comment", image.info.get("Comment", b""))
            return told in (_MARK, _MARK.decode())
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def write_sheet(
    path: Path,
    sheet: Float32[np.ndarray, "h w 3"] | Image.Image,
    *,
    overwrite: bool = False,
    named: bool = False,
) -> None:
    """Writes a sheet; one whose name nobody gave goes never over anything but another sheet.

    Args:
        path: `NAME.jpg` or `NAME.png`.
        sheet: RGB in [0, 1], or an image in RGB.
        overwrite: replace a sheet that is there.
        named: the name was given by the user, so that `overwrite` holds for whatever is there.

    Raises:
        TargetError: the name is taken, or the disk refuses.
    """
    refuse_other(path, overwrite=overwrite, named=named)
    if not isinstance(sheet, Image.Image):
        sheet = Image.fromarray((np.clip(sheet, 0, 1) * 255).round().astype(np.uint8))
    content = io.BytesIO()
    if path.suffix.lower() == ".png":
        mark = PngImagePlugin.PngInfo()
        mark.add_text("Comment", _MARK.decode())
        sheet.save(content, "PNG", pnginfo=mark)
    else:
        sheet.save(content, "JPEG", quality=95, subsampling=0, comment=_MARK)
    try:
        with whole_file(path, overwrite=overwrite) as part:
            part.write_bytes(content.getvalue())
    except OSError as error:
        raise TargetError(
            f"'{path}' cannot be written ({error.strerror or error}): choose another folder."
        ) from error


def refuse_other(path: Path, *, overwrite: bool, named: bool = False) -> None:
    """Refuses a name that is taken, as `write_sheet` does.

    Raises:
        TakenError: something is there that is not to be replaced.
    """
    if overwrite and not named and os.path.lexists(path) and not is_sheet(path):
        raise TakenError(
            f"'{path}' is no sheet of Urushi and is left as it is: move it, or choose another name."
        )
    refuse_taken([path], overwrite)
