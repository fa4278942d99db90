"""Pictures: restored and answered at once, looked at, or kept and shown part by part."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, File, Header, Query, UploadFile
from fastapi import Path as InPath
from fastapi.responses import FileResponse, JSONResponse, Response

from urushi.inference.strength import Strength
from urushi.serve.answers import Client, JobTold, Look, PictureTold, Served, problems
from urushi.serve.kept_work import Job, Picture
from urushi.serve.problems import RefusedError
from urushi.serve.requests import Wish, parse_adapters, wish_of_form
from urushi.serve.service import Service, refused
from urushi.serve.shown_pictures import TILE, Levels, encoded, shown_blend
from urushi.serve.uploads import keep_picture

__all__ = ["router", "sent_result"]

router = APIRouter()

Sent = Annotated[UploadFile, File(description="The picture.")]
Id = Annotated[str, InPath(max_length=80)]
_SENT = problems(400, 408, 413, 422, 429, 501, 503, 504, 507)
_PICTURE: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".jpe": "image/jpeg",
    ".jfif": "image/jpeg",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".hif": "image/heif",
    ".safetensors": "application/octet-stream",
}
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The restored picture. `Link` names its job, which tells more.",
        "content": dict.fromkeys(sorted(set(_TYPES.values())), _PICTURE),
    },
    202: {"description": "A job that restores it; `Location` names it.", "model": JobTold},
}


async def _kept(service: Service, client: str, file: UploadFile) -> Picture:
    """A picture that was sent, whose header is sound and not too large."""
    service.check_open()
    picture = await keep_picture(service.store, client, file)
    try:
        await service.inspect(picture)
    except BaseException:
        service.store.remove(picture)
        raise
    return picture


def sent_result(job: Job) -> FileResponse:
    """The file that a job gave.

    Raises:
        RefusedError: it has given none.
    """
    if job.problem is not None:
        raise RefusedError(*job.problem)
    if job.result is None or job.state != "done":
        raise RefusedError(409, "it is not done yet: ask for its state, and then again", retry=1)
    if not job.result.exists():
        raise RefusedError(404, "its time is over: send the picture again")
    return FileResponse(
        job.result,
        media_type=_TYPES.get(job.result.suffix.lower(), "application/octet-stream"),
        filename=job.name,
        headers={"Link": f'</v1/jobs/{job.id}>; rel="describedby"', "Cache-Control": "no-store"},
    )


# Which part of a picture is shown.
Level = Annotated[int, InPath(ge=0, le=40)]
Place = Annotated[int, InPath(ge=0, le=10**6)]


@router.post(
    "/v1/restore",
    tags=["restore"],
    response_class=Response,
    responses={**_ANSWERS, **_SENT},
    summary="Restore a picture",
)
async def restore(
    service: Served,
    client: Client,
    file: Sent,
    wish: Annotated[Wish, Depends(wish_of_form)],
    prefer: Annotated[
        str, Header(description="`respond-async` asks for a job in any case.", max_length=200)
    ] = "",
) -> Response:
    """Gives the restored picture, byte for byte what `urushi restore` gives with these options.

    A picture that is large, or has to wait long, becomes a job instead.
    """
    plain = wish.plain()
    service.resolved(plain, client)
    service.store.admit_job(client)
    picture = await _kept(service, client, file)
    try:
        job = service.restore(picture, plain)
    except RefusedError:
        service.store.remove(picture)
        raise
    limits = service.settings.limits
    small = picture.facts["width"] * picture.facts["height"] <= limits.at_once
    if small and "respond-async" not in prefer.lower():
        assert job.task is not None
        waited = asyncio.shield(asyncio.wrap_future(job.task.future))
        try:
            async with asyncio.timeout(limits.at_once_seconds):
                await waited
        except TimeoutError:
            pass
        except Exception as error:
            service.store.remove(picture)
            if job.problem is not None:
                raise RefusedError(*job.problem) from error
            raise refused(error) from error
        except asyncio.CancelledError:
            # Whoever asked is gone.
            service.cancel(job)
            raise
        else:
            # The future's own callback notes down what came of it, and may be later than this.
            for _ in range(500):
                if job.finished:
                    job.keep = picture.keep = limits.keep_answered
                    return sent_result(job)
                await asyncio.sleep(0.01)
    told = JobTold.of(job)
    return JSONResponse(told.model_dump(), 202, {"Location": told.links["self"]})


@router.post(
    "/v1/look", tags=["restore"], responses=_SENT, summary="Tell what is seen on a picture"
)
async def look(service: Served, client: Client, file: Sent) -> Look:
    """Tells what the router sees on a picture and what would be done. Nothing is kept."""
    picture = await _kept(service, client, file)
    try:
        return Look(**await service.awaited(service.look(picture), _names(picture)))
    finally:
        service.store.remove(picture)


@router.post(
    "/v1/pictures",
    tags=["pictures"],
    status_code=201,
    responses=_SENT,
    summary="Keep a picture for a while",
)
async def add_picture(service: Served, client: Client, file: Sent) -> PictureTold:
    """Keeps a picture, to be restored in several ways and shown part by part."""
    return PictureTold.of(await _kept(service, client, file))


@router.get("/v1/pictures/{id}", tags=["pictures"], responses=problems(404, 422))
async def picture(service: Served, client: Client, id: Id) -> PictureTold:
    """Tells of a picture that is kept."""
    return PictureTold.of(service.store.get(Picture, id, client))


@router.delete(
    "/v1/pictures/{id}", tags=["pictures"], status_code=204, responses=problems(404, 409, 422)
)
async def forget(service: Served, client: Client, id: Id) -> None:
    """Removes a picture, and what became of it."""
    found = service.store.get(Picture, id, client)
    own = [job for job in service.store.all(Job, client) if job.picture is found]
    for job in own:
        if not job.finished:
            service.cancel(job)
        else:
            service.store.remove(job)
    if found.busy:
        raise RefusedError(409, "it is being worked with, and what runs was cancelled: ask again")
    service.store.remove(found)


@router.get(
    "/v1/pictures/{id}/look", tags=["pictures"], responses=problems(404, 422, 429, 501, 503, 504)
)
async def look_at(service: Served, client: Client, id: Id) -> Look:
    """Tells what the router sees on a picture that is kept."""
    found = service.store.get(Picture, id, client)
    return Look(**await service.awaited(service.look(found), _names(found)))


@router.post(
    "/v1/pictures/{id}/restore",
    tags=["pictures"],
    status_code=202,
    responses=problems(400, 404, 408, 413, 422, 429, 503),
)
async def restore_kept(service: Served, client: Client, id: Id, wish: Wish) -> JobTold:
    """Begins to restore a picture that is kept."""
    found = service.store.get(Picture, id, client)
    service.store.admit(client)
    return JobTold.of(service.restore(found, wish.plain(), shown=True))


@router.get(
    "/v1/pictures/{id}/tiles/{level}/{column}/{row}",
    tags=["pictures"],
    response_class=Response,
    responses={
        200: {"content": {"image/png": _PICTURE, "image/jpeg": _PICTURE}},
        **problems(404, 422, 429, 503, 504),
    },
)
async def tile_before(
    service: Served,
    client: Client,
    id: Id,
    level: Level,
    column: Place,
    row: Place,
) -> Response:
    """A part of a picture as it is shown: level 0 is its full size, each further one half of it."""
    found = service.store.get(Picture, id, client)
    await service.awaited(service.levels(found), _names(found))
    return await asyncio.to_thread(_tile, found, None, Strength(), level, column, row)


@router.get(
    "/v1/jobs/{id}/tiles/{level}/{column}/{row}",
    tags=["jobs"],
    response_class=Response,
    responses={
        200: {"content": {"image/png": _PICTURE, "image/jpeg": _PICTURE}},
        **problems(404, 409, 422, 429, 503, 504),
    },
)
async def tile_after(
    service: Served,
    client: Client,
    id: Id,
    level: Level,
    column: Place,
    row: Place,
    strength: Annotated[float, Query(ge=0, le=1)] = 1.0,
    luma: Annotated[float, Query(ge=0, le=1)] = 1.0,
    chroma: Annotated[float, Query(ge=0, le=1)] = 1.0,
) -> Response:
    """A part of a result as it is shown, blended with the picture as it was."""
    job = service.store.get(Job, id, client)
    if job.state != "done" or job.picture is None or not job.levels.exists():
        raise RefusedError(409, "there is nothing of it to be shown")
    await service.awaited(service.levels(job.picture), _names(job.picture))
    mixed = Strength(strength, luma, chroma)
    return await asyncio.to_thread(_tile, job.picture, job, mixed, level, column, row)


@router.get(
    "/v1/pictures/{id}/try",
    tags=["pictures"],
    response_class=Response,
    responses={200: {"content": {"image/png": _PICTURE}}, **problems(404, 422, 429, 501, 503, 504)},
)
async def attempt(
    service: Served,
    client: Client,
    id: Id,
    adapters: Annotated[str, Query(max_length=2000, description="As in `Wish`.")] = "",
    level: Annotated[int, Query(ge=0, le=40)] = 0,
    left: Annotated[int, Query(ge=0, le=10**7)] = 0,
    top: Annotated[int, Query(ge=0, le=10**7)] = 0,
    width: Annotated[int, Query(ge=1, le=1024)] = 512,
    height: Annotated[int, Query(ge=1, le=1024)] = 512,
) -> Response:
    """A part of a picture restored by a mix of adapters, to see what they would do."""
    found = service.store.get(Picture, id, client)
    wish = service.resolved({"task": "none", "adapters": parse_adapters(adapters)}, client)
    await service.awaited(service.levels(found), _names(found))
    with Levels(found.levels) as levels:
        if level >= len(levels.sizes):
            raise RefusedError(404, f"level is {level}: the last one is {len(levels.sizes) - 1}")
        rows, columns = levels.sizes[level]
    if top >= rows or left >= columns:
        raise RefusedError(404, f"the picture has {columns}x{rows} pixels at that level")
    box = (top, left, min(height, rows - top), min(width, columns - left))
    arguments = {"levels": str(found.levels), "level": level, "box": box, "wish": wish}
    png = await service.quickly("try", arguments, _names(found))
    return Response(png, media_type="image/png", headers={"Cache-Control": "no-store"})


def _tile(
    picture: Picture, job: Job | None, strength: Strength, level: int, column: int, row: int
) -> Response:
    with Levels(picture.levels) as levels:
        if level >= len(levels.sizes):
            raise RefusedError(404, f"level is {level}: the last one is {len(levels.sizes) - 1}")
        rows, columns = levels.sizes[level]
        top, left = row * TILE, column * TILE
        if top >= rows or left >= columns:
            raise RefusedError(404, "there is no such part of the picture")
        part = levels.part(level, top, left, TILE, TILE)
    if job is not None:
        with Levels(job.levels) as after:
            if after.sizes == levels.sizes:
                part = shown_blend(part, after.part(level, top, left, TILE, TILE), strength)
            else:
                part = after.part(level, top, left, TILE, TILE)
    format = "png" if level == 0 else "jpeg"
    # What is at an address never changes, but it is somebody's picture.
    headers = {"Cache-Control": "private, max-age=600"}
    return Response(encoded(part, format), media_type=f"image/{format}", headers=headers)


def _names(picture: Picture) -> dict[str, str]:
    return {str(picture.source): picture.name, picture.source.name: picture.name}
