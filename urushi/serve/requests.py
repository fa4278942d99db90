"""What clients may ask for, as forms and as JSON, checked before anything else happens."""

import re
from typing import Annotated, Any, Literal, get_args

from fastapi import Form
from pydantic import BaseModel, Field, WithJsonSchema

from urushi.serve.problems import RefusedError

__all__ = ["Wish", "parse_adapters", "wish_of_form"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 16

Share = Annotated[float, Field(ge=0, le=1)]
Format = Literal["png", "jpg", "jpeg", "tif", "tiff", "webp", "avif"]


class Wish(BaseModel):
    """How a picture is to be restored; whatever is left out is as the command has it."""

    model_config = {
        "json_schema_extra": {"examples": [{"task": "auto", "strength": 0.8, "format": "png"}]}
    }

    task: Annotated[
        str | None,
        Field(
            max_length=64,
            description="auto: see what the picture needs; none: the base alone; or a task such "
            "as haze.",
        ),
    ] = None
    strength: Annotated[
        Share, Field(description="Blend with the picture as it was, from 0 to 1.")
    ] = 1.0
    luma: Annotated[
        Share, Field(description="How much of the change of lightness is kept, times strength.")
    ] = 1.0
    chroma: Annotated[
        Share, Field(description="How much of the change of colour is kept, times strength.")
    ] = 1.0
    adapters: Annotated[
        str,
        Field(
            max_length=2000,
            description="Adapters that mend the picture in place of what is chosen, by name or "
            "id, with their strengths.",
            examples=["haze:0.5,noise:0.25"],
        ),
    ] = ""
    format: Annotated[
        Format | None, Field(description="Of the result; that of the picture if not given.")
    ] = None
    quality: Annotated[int | None, Field(ge=1, le=100, description="Of lossy formats.")] = None
    strip_metadata: Annotated[bool, Field(description="Leave out EXIF and XMP.")] = False

    def plain(self) -> dict[str, Any]:
        """For workers: plain values, adapters as pairs of a name and a strength.

        Raises:
            RefusedError: the adapters cannot be read.
        """
        return {**self.model_dump(), "adapters": parse_adapters(self.adapters)}


def parse_adapters(text: str) -> list[tuple[str, float]]:
    """Reads `NAME:STRENGTH,NAME`; the strength is 1 if not given.

    Raises:
        RefusedError: it is not that.
    """
    found: list[tuple[str, float]] = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, colon, number = part.partition(":")
        try:
            strength = float(number) if colon else 1.0
        except ValueError:
            strength = float("nan")
        if not _NAME.fullmatch(name) or not -4 <= strength <= 4:
            raise RefusedError(
                422, f"adapters has {part[:80]!r}: expected NAME, or NAME:STRENGTH such as haze:0.5"
            )
        found.append((name, strength))
    if len(found) > _MOST:
        raise RefusedError(422, f"adapters has {len(found)}: at most {_MOST} are mixed")
    return found


def _said(**schema: Any) -> WithJsonSchema:
    """What a field of a form is, where it is there at all: forms have no null."""
    return WithJsonSchema(schema)


def wish_of_form(
    task: Annotated[str | None, Form(max_length=64), _said(type="string", maxLength=64)] = None,
    strength: Annotated[float, Form(ge=0, le=1)] = 1.0,
    luma: Annotated[float, Form(ge=0, le=1)] = 1.0,
    chroma: Annotated[float, Form(ge=0, le=1)] = 1.0,
    adapters: Annotated[str, Form(max_length=2000)] = "",
    format: Annotated[
        Format | None, Form(), _said(type="string", enum=list(get_args(Format)))
    ] = None,
    quality: Annotated[
        int | None, Form(ge=1, le=100), _said(type="integer", minimum=1, maximum=100)
    ] = None,
    strip_metadata: Annotated[bool, Form()] = False,
) -> Wish:
    """A wish out of form fields."""
    return Wish(
        task=task,
        strength=strength,
        luma=luma,
        chroma=chroma,
        adapters=adapters,
        format=format,
        quality=quality,
        strip_metadata=strip_metadata,
    )
