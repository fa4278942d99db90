"""A source's header as it fits its result: no word about planes that would be wrong."""

from dataclasses import replace

from urushi.image.info import Header
from urushi.image.libvips import fields_of, vips
from urushi.image.stacks import fitting_description, planes_of, stack_title
from urushi.image.target import Layout
from urushi.image.tiff_pages import description_of, tiff_pages

__all__ = ["fitted_header"]

_DESCRIPTION = "image-description"


def fitted_header(
    header: Header, layout: Layout, *, scale: int, complete: bool
) -> tuple[Header, bytes | None, str]:
    """Takes out of a TIFF's header what its result may not say.

    Args:
        header: of the source.
        layout: of the result.
        scale: by which both sides were enlarged.
        complete: all pages are written, in order, into a TIFF.

    Returns:
        The header; what the result's description is to be, None where nothing is changed and empty
        for none; and a note, empty without a reason for one.
    """
    info = header.info
    pages = tiff_pages(info.path).pages if info.format == "tiff" else ()
    if info.page >= len(pages):
        return header, None, ""
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
    if fitting == told:
        return header, None, ""
    image = header.image.copy()
    if _DESCRIPTION in fields_of(image):
        image.remove(_DESCRIPTION)
    if fitting:
        text = vips().GValue.gstr_type
        image.set_type(text, _DESCRIPTION, fitting.decode("utf-8", "replace"))
    planes = planes_of(told)
    note = ""
    if planes > 1 or not fitting:
        what = f"of {planes} planes" if planes > 1 else "of how the samples lie"
        note = (
            f"What {stack_title(told)}'s description says {what} is not true of the result and was"
            " left out."
        )
    return replace(header, image=image), fitting or b"", note
