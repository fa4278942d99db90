"""What went wrong, as an HTTP status and the sentence that the command would say (RFC 9457)."""

import math
from collections.abc import Mapping

from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from urushi import errors

__all__ = ["Problem", "RefusedError", "answer", "status_of"]

TITLES: Mapping[int, str] = {
    400: "Bad request",
    401: "A token is needed",
    403: "Not allowed",
    404: "Not here",
    405: "Not done here",
    406: "Not to be had in that form",
    408: "Too slow",
    409: "Not now",
    410: "Gone",
    411: "Without a length",
    413: "Too large",
    415: "No such format",
    421: "Another host",
    422: "Cannot be done with this",
    429: "Too much at once",
    500: "A fault of the service",
    501: "Not installed here",
    503: "Not ready",
    504: "Took too long",
    507: "No room",
}


class Problem(BaseModel):
    """What went wrong."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Cannot be done with this",
                    "status": 422,
                    "detail": "'photo.jpg' holds no picture: choose another file.",
                }
            ]
        }
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class RefusedError(Exception):
    """A request is not served.

    Args:
        status: of the answer.
        detail: one sentence.
        retry: seconds after which it may be worth trying again.
        headers: more of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        retry: float | int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry = status, detail, retry
        self.headers = dict(headers or {})


def answer(refusal: RefusedError) -> JSONResponse:
    """The response that tells it."""
    headers = dict(refusal.headers)
    if refusal.retry is not None:
        headers["Retry-After"] = str(max(1, math.ceil(refusal.retry)))
    if refusal.status == 401:
        headers.setdefault("WWW-Authenticate", 'Bearer realm="urushi"')
    title = TITLES.get(refusal.status, "Not done")
    problem = Problem(title=title, status=refusal.status, detail=refusal.detail)
    return JSONResponse(
        problem.model_dump(), refusal.status, headers, media_type="application/problem+json"
    )


# The first that fits counts.
_STATUS: tuple[tuple[type[errors.UrushiError], int], ...] = (
    (errors.TooLargeError, 413),
    (errors.MissingExtraError, 501),
    (errors.OutOfMemoryError, 503),
    (errors.EngineError, 422),
    (errors.UrushiError, 422),
)
_NAMES = {name: getattr(errors, name) for name in errors.__all__ if name[0].isupper()}


def status_of(kind: str) -> int:
    """The status for an exception of `urushi.errors`, by its name; 500 for any other."""
    found = _NAMES.get(kind)
    if found is None:
        return 500
    return next(status for known, status in _STATUS if issubclass(found, known))
