"""What clients are told, as JSON."""

from typing import Annotated, Any, Literal

from fastapi import Depends, Request
from pydantic import BaseModel, Field

from urushi.serve.kept_work import Job, Picture, SentAdapter
from urushi.serve.problems import Problem
from urushi.serve.service import Service

__all__ = [
    "AdapterTold",
    "Client",
    "JobTold",
    "Look",
    "PictureTold",
    "Served",
    "problems",
]


def _service(request: Request) -> Service:
    return request.app.state.service


def _client(request: Request) -> str:
    return request.state.client


Served = Annotated[Service, Depends(_service)]
Client = Annotated[str, Depends(_client)]

_OF_ALL = (401, 403, 421, 500)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Declares what may go wrong, beside what may with every request."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": _WHY[status], "content": content, "model": Problem}
        for status in (*_OF_ALL, *statuses)
    }


_WHY = {
    400: "The request cannot be read.",
    401: "The service asks for a token.",
    403: "A page of another origin made the request.",
    404: "Nothing of that name is here.",
    408: "The body did not come in time.",
    409: "The job has not come so far, or failed.",
    410: "It was cancelled.",
    413: "Too many bytes or pixels.",
    421: "The service is not asked for by that host.",
    422: "It cannot be done with this file, or these values.",
    429: "Too much waits already; Retry-After says when to try again.",
    500: "A fault of the service.",
    501: "A package is not installed.",
    503: "The service is not ready.",
    504: "It took too long.",
    507: "Too much of the client is kept here.",
}


class Look(BaseModel):
    """What the router sees on a picture, and what would be done."""

    model_config = {
        "extra": "allow",
        "json_schema_extra": {
            "examples": [
                {
                    "seen": "noise",
                    "sure": 0.97,
                    "route": {"noise": 1.0},
                    "reason": "noise (97 %)",
                    "probabilities": {"noise": 0.97, "clean": 0.03},
                    "notes": [],
                }
            ]
        },
    }

    seen: str | None = None
    sure: float | None = None
    route: dict[str, float] = {}
    abstained: bool = False
    suggested: str | None = None
    reason: str = ""
    probabilities: dict[str, float] = {}
    notes: list[str] = []


class PictureTold(BaseModel):
    """A picture that is kept."""

    id: str
    name: str
    width: int
    height: int
    format: str
    bits: int
    channels: str
    alpha: bool
    profile: bool
    pages: int

    @classmethod
    def of(cls, picture: Picture) -> "PictureTold":
        """Tells of a picture."""
        return cls(id=picture.id, name=picture.name, **picture.facts)


class JobTold(BaseModel):
    """Where a job stands."""

    model_config = {
        "json_schema_extra": {
            "examples": [
                {
                    "id": "job-Zk3v",
                    "kind": "restore",
                    "state": "running",
                    "progress": 0.4,
                    "seconds_left": 3.2,
                    "position": 0,
                    "name": "photo.jpg",
                    "links": {"self": "/v1/jobs/job-Zk3v"},
                }
            ]
        }
    }

    id: str
    kind: Literal["restore", "adapt"]
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    progress: Annotated[float, Field(ge=0, le=1)] = 0.0
    seconds_left: float | None = None
    name: str
    picture: str | None = None
    notes: list[str] = []
    facts: Annotated[
        dict[str, Any], Field(description="What it says of itself: the router's choice, scores.")
    ] = {}
    problem: Problem | None = None
    links: dict[str, str] = {}

    @classmethod
    def of(cls, job: Job) -> "JobTold":
        """Tells of a job."""
        here = f"/v1/jobs/{job.id}"
        links = {"self": here}
        if job.state == "done":
            links["result"] = f"{here}/result"
            if job.sheet is not None:
                links["sheet"] = f"{here}/sheet"
        problem = None
        if job.problem is not None:
            status, sentence = job.problem
            problem = Problem(title="It failed", status=status, detail=sentence)
        facts = {
            key: value for key, value in job.facts.items() if key not in ("notes", "seconds_left")
        }
        return cls(
            id=job.id,
            kind="adapt" if job.kind == "adapt" else "restore",
            state=job.state,
            progress=min(1.0, max(0.0, job.progress)),
            seconds_left=job.facts.get("seconds_left", job.seconds_left),
            name=job.name,
            picture=None if job.picture is None else job.picture.id,
            notes=job.facts.get("notes", []),
            facts=facts,
            problem=problem,
            links=links,
        )


class AdapterTold(BaseModel):
    """An adapter that can be asked for."""

    model_config = {
        "json_schema_extra": {
            "examples": [{"id": "haze", "name": "haze", "ships": True, "method": "colora"}]
        }
    }

    id: str
    name: str
    ships: bool
    method: str = ""
    description: str = ""

    @classmethod
    def of(cls, adapter: SentAdapter) -> "AdapterTold":
        """Tells of an adapter that a client has sent."""
        said = {key: str(adapter.facts.get(key, "")) for key in ("method", "description")}
        return cls(id=adapter.id, name=adapter.name, ships=False, **said)
