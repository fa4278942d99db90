"""What clients may ask for, as forms and as JSON, checked before anything else happens."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from fastapi import Form, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic.fields import FieldInfo

from urushi.errors import nearest
from urushi.files.router_facts import MOST_STRENGTH
from urushi.serve.field_sentences import empty, wrong
from urushi.serve.problems import RefusedError

__all__ = ["Wish", "invalid", "parse_adapters", "refuse_unknown", "unknown_field", "wish_of_form"]

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST = 16
_FORMS = ("multipart/form-data", "application/x-www-form-urlencoded")

Share = Annotated[float, Field(ge=0, le=1)]
Format = Annotated[
    Literal["png", "jpg", "jpeg", "tif", "tiff", "webp", "avif"],
    # As the command takes it.
    BeforeValidator(lambda said: said.lower().lstrip(".") if isinstance(said, str) else said),
]
_FORMATS = get_args(get_args(Format)[0])


class Wish(BaseModel):
    """How a picture is to be restored; whatever is left out is as the command has it."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"task": "auto", "strength": 0.8, "format": "png"}]},
    )

    task: Annotated[
        str | None,
        Field(
            min_length=1,
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
        str | None,
        Field(
            min_length=1,
            max_length=2000,
            description="Adapters that mend the picture in place of what is chosen, each once, by "
            "name or id, with their strengths from 0 to 2.",
            examples=["haze:0.5,noise:0.25"],
        ),
    ] = None
    format: Annotated[
        Format | None, Field(description="Of the result; that of the picture if not given.")
    ] = None
    quality: Annotated[
        int | None,
        Field(
            ge=1,
            le=100,
            description="Of JPEG, WebP and AVIF; 100 makes WebP and AVIF lossless. If not given, "
            "95, AVIF 85; a lossless WebP or AVIF stays lossless.",
        ),
    ] = None
    strip_metadata: Annotated[bool, Field(description="Leave out EXIF and XMP.")] = False

    def plain(self) -> dict[str, Any]:
        """For workers: plain values, adapters as pairs of a name and a strength.

        Raises:
            RefusedError: the adapters cannot be read.
        """
        return {**self.model_dump(), "adapters": parse_adapters(self.adapters or "")}


def parse_adapters(text: str) -> list[tuple[str, float]]:
    """Reads `NAME:STRENGTH,NAME`; the strength is 1 if not given. There are none in no text.

    Raises:
        RefusedError: it is not that, a strength is out of range, or a name is there twice.
    """
    found: dict[str, float] = {}
    for part in (piece.strip() for piece in text.split(",") if text):
        name, colon, number = part.partition(":")
        try:
            strength = float(number) if colon else 1.0
        except ValueError:
            strength = float("nan")
        if not _NAME.fullmatch(name) or not 0 <= strength <= MOST_STRENGTH:
            raise RefusedError(
                422,
                f"adapters has {part[:80]!r}: expected NAME, or NAME:STRENGTH such as haze:0.5; "
                f"strengths are from 0 to {MOST_STRENGTH:g}",
            )
        if name in found:
            raise RefusedError(
                422, f"adapters has {name} twice: give it once, with the strength that you want"
            )
        found[name] = strength
    if len(found) > _MOST:
        raise RefusedError(422, f"adapters has {len(found)}: at most {_MOST} are mixed")
    return list(found.items())


async def refuse_unknown(request: Request) -> None:
    """Refuses what would be ignored: fields and parameters that the address does not have.

    Raises:
        RefusedError: there are such, one that counts once is given several times, or one is empty.
    """
    route = request.scope.get("route")
    if not isinstance(route, APIRoute):
        return
    known = list(_dependants(route.dependant))
    query = {field.alias: field for one in known for field in one.query_params}
    _refuse(request.query_params.multi_items(), query, "parameter of this address")
    form = {field.alias: field for one in known for field in one.body_params}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if form and kind in _FORMS:
        # Read already: this is what the fields were taken from.
        sent = await request.form()
        _refuse(sent.multi_items(), form, "field of this form")


def unknown_field(
    name: str, known: Collection[str], what: str = "field of this form"
) -> RefusedError:
    """The refusal of a name that is none of those known."""
    there = ", ".join(sorted(known)) or "none"
    shown = f"{name[:80]!r} is no {what}{nearest(name, known)}"
    return RefusedError(422, f"{shown}: it has {there}")


def invalid(request: Request, error: Mapping[str, Any]) -> RefusedError:
    """The refusal of a request whose fields are not what they have to be.

    Args:
        request: of one of the addresses.
        error: the first that pydantic found.
    """
    beside: dict[str, FieldInfo] = {}
    body: dict[str, FieldInfo] = {}
    route = request.scope.get("route")
    for one in _dependants(route.dependant) if isinstance(route, APIRoute) else ():
        for field in (*one.path_params, *one.query_params, *one.header_params):
            beside[field.alias] = field.field_info
        for field in one.body_params:
            inside = getattr(field.field_info.annotation, "model_fields", None)
            body |= inside or {field.alias: field.field_info}
    loc = error.get("loc", ())
    if error.get("type") == "extra_forbidden":
        return unknown_field(".".join(str(part) for part in loc[1:]), body)
    return RefusedError(422, wrong(error, {**beside, **body}, list(body)))


def _dependants(one: Dependant) -> Iterator[Dependant]:
    yield one
    for inner in one.dependencies:
        yield from _dependants(inner)


def _refuse(given: Iterable[tuple[str, Any]], known: dict[str, Any], what: str) -> None:
    given = list(given)
    for name, count in Counter(name for name, _ in given).items():
        if name not in known:
            raise unknown_field(name, known, what)
        if count > 1 and get_origin(known[name].field_info.annotation) is not list:
            raise RefusedError(422, f"{name} is given {count} times: give it once")
        if any(key == name and value == "" for key, value in given):
            raise RefusedError(422, empty(name, known[name].field_info))


def _said(**schema: Any) -> WithJsonSchema:
    """What a field of a form is, where it is there at all: forms have no null."""
    return WithJsonSchema(schema)


def wish_of_form(
    task: Annotated[
        str | None, Form(max_length=64), _said(type="string", minLength=1, maxLength=64)
    ] = None,
    strength: Annotated[float, Form(ge=0, le=1)] = 1.0,
    luma: Annotated[float, Form(ge=0, le=1)] = 1.0,
    chroma: Annotated[float, Form(ge=0, le=1)] = 1.0,
    adapters: Annotated[
        str | None, Form(max_length=2000), _said(type="string", minLength=1, maxLength=2000)
    ] = None,
    format: Annotated[Format | None, Form(), _said(type="string", enum=list(_FORMATS))] = None,
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
