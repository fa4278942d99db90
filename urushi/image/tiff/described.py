"""What a result may say of its source: no word about planes that would be wrong."""

from dataclasses import dataclass

from urushi.image.info import Header
from urushi.image.target import Layout
from urushi.image.tiff.picture_directories import description_of, has_tag, tiff_pages
from urushi.image.tiff.stacks import BLOCK, fitting_description, planes_of, stack_title

__all__ = ["Fitted", "fitted_words"]


@dataclass(frozen=True)
class Fitted:
    """What a result is to say of its source.

    Attributes:
        description: what the result's ImageDescription is to be; None where it is the source's,
            empty for none.
        imagej: whether what ImageJ writes beside its description is true of the result, too.
        notes: sentences about what was left out.
    """

    description: bytes | None = None
    imagej: bool = False
    notes: tuple[str, ...] = ()


def fitted_words(header: Header, layout: Layout, *, scale: int, complete: bool) -> Fitted:
    """Finds what the result of a TIFF may say.

    Args:
        header: of the source.
        layout: of the result.
        scale: by which both sides were enlarged.
        complete: all pages are written, in order, into a TIFF.

    """
    info = header.info
    pages = tiff_pages(info.path).pages if info.format == "tiff" else ()
    if info.page >= len(pages):
        return Fitted()
    page = pages[info.page]
    told = description_of(info.path, page)
    title, planes = stack_title(told), planes_of(told)
    same = (
        scale == 1
        and page.samples == layout.bands
        and not (page.separate and page.samples > 1)
        and info.orientation == 1
    )
    if title != "tifffile":  # which tells how many samples there are, and not of what type
        same = same and (page.bits, info.kind) == (layout.bits, layout.kind)
    # What is told of one plane is as true in a file of another format.
    whole = (complete or planes <= 1) and len(pages) * page.samples >= planes
    fitting = fitting_description(told, whole, same)
    beside = complete and whole and same and title == "ImageJ"
    notes = []
    if not beside and has_tag(info.path, page, BLOCK):
        notes.append("ImageJ's labels, colour tables and overlays are not in the result.")
    if fitting == told:
        return Fitted(None, beside, tuple(notes))
    if planes > 1 or not fitting:
        what = f"of {planes} planes" if planes > 1 else "of how the samples lie"
        notes.append(
            f"What {title}'s description says {what} is not true of the result and was left out."
        )
    return Fitted(fitting or b"", beside, tuple(notes))
