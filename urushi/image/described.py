"""A source's header as it fits its result: no word about planes that would be wrong."""

from dataclasses import dataclass, replace

from urushi.image.imagej import BLOCK
from urushi.image.info import Header
from urushi.image.libvips import fields_of, vips
from urushi.image.stacks import fitting_description, planes_of, stack_title
from urushi.image.target import Layout
from urushi.image.tiff_pages import description_of, has_tag, tiff_pages

__all__ = ["Fitted", "fitted_header"]

_DESCRIPTION = "image-description"


@dataclass(frozen=True)
class Fitted:
    """What a result is to say of its source.

    Attributes:
        header: the source's, without what would be wrong.
        description: what the result's ImageDescription is to be; None where it is the source's,
            empty for none.
        imagej: whether what ImageJ writes beside its description is true of the result, too.
        notes: sentences about what was left out.
    """

    header: Header
    description: bytes | None = None
    imagej: bool = False
    notes: tuple[str, ...] = ()


def fitted_header(header: Header, layout: Layout, *, scale: int, complete: bool) -> Fitted:
    """Takes out of a TIFF's header what its result may not say.

    Args:
        header: of the source.
        layout: of the result.
        scale: by which both sides were enlarged.
        complete: all pages are written, in order, into a TIFF.

    """
    info = header.info
    pages = tiff_pages(info.path).pages if info.format == "tiff" else ()
    if info.page >= len(pages):
        return Fitted(header)
    page = pages[info.page]
    told = description_of(info.path, page)
    same = (
        scale == 1
        and (page.bits, page.samples) == (layout.bits, layout.bands)
        and layout.kind == info.kind
        and not (page.separate and page.samples > 1)
        and info.orientation == 1
    )
    whole = complete and len(pages) * page.samples >= planes_of(told)
    fitting = fitting_description(told, whole, same)
    beside = whole and same and stack_title(told) == "ImageJ"
    notes = []
    if not beside and has_tag(info.path, page, BLOCK):
        notes.append("ImageJ's labels, colour tables and overlays are not in the result.")
    if fitting == told:
        return Fitted(header, None, beside, tuple(notes))
    image = header.image.copy()
    if _DESCRIPTION in fields_of(image):
        image.remove(_DESCRIPTION)
    if fitting:
        text = vips().GValue.gstr_type
        image.set_type(text, _DESCRIPTION, fitting.decode("utf-8", "replace"))
    planes = planes_of(told)
    if planes > 1 or not fitting:
        what = f"of {planes} planes" if planes > 1 else "of how the samples lie"
        notes.append(
            f"What {stack_title(told)}'s description says {what} is not true of the result and was"
            " left out."
        )
    return Fitted(replace(header, image=image), fitting or b"", beside, tuple(notes))
