"""Jobs: their state, their end, their results; and several results as one file."""

import asyncio
import zipfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi import Path as InPath
from fastapi.responses import FileResponse, Response
from pydantic import StringConstraints
from starlette.background import BackgroundTask

from urushi.serve.answers import Client, JobTold, Served, problems
from urushi.serve.kept_work import Item, Job
from urushi.serve.problems import RefusedError
from urushi.serve.routes_pictures import sent_result

__all__ = ["router"]

router = APIRouter()

Id = Annotated[str, InPath(max_length=80)]
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


@router.get("/v1/jobs", tags=["jobs"], responses=problems(422))
async def jobs(service: Served, client: Client) -> list[JobTold]:
    """Tells of all jobs of this client, the latest first."""
    own = service.store.all(Job, client)
    return [JobTold.of(job) for job in reversed(own)]


@router.get("/v1/jobs/{id}", tags=["jobs"], responses=problems(404, 422))
async def job(
    service: Served,
    client: Client,
    id: Id,
    wait: Annotated[
        float,
        Query(ge=0, le=30, description="Seconds to wait for its end, so that few need to ask."),
    ] = 0.0,
) -> JobTold:
    """Tells where a job stands."""
    found = service.store.get(Job, id, client)
    if wait and not found.finished and found.task is not None:
        done = asyncio.shield(asyncio.wrap_future(found.task.future))
        await asyncio.wait([done], timeout=wait)
        if done.done():
            done.exception()
        await asyncio.sleep(0)
    return JobTold.of(found)


@router.delete("/v1/jobs/{id}", tags=["jobs"], status_code=202, responses=problems(404, 422))
async def cancel(service: Served, client: Client, id: Id) -> JobTold:
    """Cancels a job that waits or runs, and removes one that is finished."""
    found = service.store.get(Job, id, client)
    if found.finished:
        service.store.remove(found)
    else:
        service.cancel(found)
    return JobTold.of(found)


@router.get(
    "/v1/jobs/{id}/result",
    tags=["jobs"],
    response_class=Response,
    responses={200: {"content": _BINARY}, **problems(404, 409, 410, 413, 422, 501, 503, 504)},
)
async def result(service: Served, client: Client, id: Id) -> FileResponse:
    """The file that a job gave: a picture, or an adapter."""
    return sent_result(service.store.get(Job, id, client))


@router.get(
    "/v1/jobs/{id}/sheet",
    tags=["jobs"],
    response_class=Response,
    responses={
        200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 422),
    },
)
async def sheet(service: Served, client: Client, id: Id) -> FileResponse:
    """Before and after, of an adaptation."""
    found = service.store.get(Job, id, client)
    if found.sheet is None or not found.sheet.exists():
        raise RefusedError(404, "this job has no sheet")
    return FileResponse(found.sheet, media_type="image/jpeg")


@router.get(
    "/v1/archive",
    tags=["jobs"],
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        **problems(404, 409, 410, 413, 422, 501, 503, 504, 507),
    },
)
async def archive(
    service: Served,
    client: Client,
    job: Annotated[
        list[Annotated[str, StringConstraints(max_length=80)]],
        Query(max_length=200, description="Jobs whose results are meant."),
    ],
) -> FileResponse:
    """The results of several jobs as one zip file."""
    found = [service.store.get(Job, id, client) for id in dict.fromkeys(job)]
    files = [(one.name, Path(sent_result(one).path)) for one in found]
    service.store.admit(client, sum(path.stat().st_size for _, path in files))
    id, folder = service.store.place("archive")
    held = service.store.add(Item(id, client, folder))
    whole = folder / "urushi.zip"
    try:
        await asyncio.to_thread(_pack, files, whole)
    except BaseException:
        service.store.remove(held)
        raise
    gone = BackgroundTask(service.store.remove, held)
    return FileResponse(whole, media_type="application/zip", filename="urushi.zip", background=gone)


def _pack(files: list[tuple[str, Path]], target: Path) -> None:
    """Pictures are compressed already: they are stored as they are, under names that differ."""
    taken: set[str] = set()
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as pack:
        for name, path in files:
            free, number = name, 2
            while free.casefold() in taken:
                shown = Path(name)
                free, number = f"{shown.stem}_{number}{shown.suffix}", number + 1
            taken.add(free.casefold())
            pack.write(path, free)
