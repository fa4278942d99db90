"""Adapters: those that ship, those that clients send, and those that are learnt from pairs."""

import shutil
from typing import Annotated

from fastapi import APIRouter, File, Form, UploadFile
from fastapi import Path as InPath
from pydantic import WithJsonSchema

from urushi.files.adapter import read_adapter_header
from urushi.inference.zoo import ZOO
from urushi.names import counted
from urushi.serve.answers import AdapterTold, Client, JobTold, Served, problems
from urushi.serve.kept_work import SentAdapter
from urushi.serve.problems import RefusedError
from urushi.serve.uploads import keep_file, shown_name, stem_of, suffix_for

__all__ = ["router"]

router = APIRouter()

Id = Annotated[str, InPath(max_length=80)]
_MOST_PAIRS = 500


@router.get("/v1/adapters", tags=["adapters"], responses=problems(422))
async def adapters(service: Served, client: Client) -> list[AdapterTold]:
    """Tells of all adapters that this client can ask for."""
    ships = []
    for name in service.experts:
        header = read_adapter_header(ZOO / f"{name}.safetensors")
        facts = {"method": header.method, "description": header.description}
        ships.append(AdapterTold(id=name, name=name, ships=True, **facts))
    return [*ships, *(AdapterTold.of(one) for one in service.store.all(SentAdapter, client))]


@router.post(
    "/v1/adapters",
    tags=["adapters"],
    status_code=201,
    responses=problems(400, 408, 413, 422, 429, 501, 503, 504, 507),
)
async def add_adapter(
    service: Served,
    client: Client,
    file: Annotated[UploadFile, File(description="An adapter file, NAME.safetensors.")],
) -> AdapterTold:
    """Keeps an adapter for a while. It is data: nothing in it is executed."""
    service.check_open()
    service.store.admit(client, file.size or 0)
    id, folder = service.store.place("adapter")
    name = shown_name(file.filename, "adapter.safetensors")
    path = folder / "adapter.safetensors"
    sent = SentAdapter(id, client, folder, name=stem_of(name), path=path)
    try:
        await keep_file(file, path, service.settings.limits.adapter)
        sent.facts = await service.quickly(
            "check_adapter", {"path": str(path)}, {str(path): name, path.name: name}
        )
    except BaseException:
        service.store.remove(sent)
        raise
    return AdapterTold.of(service.store.add(sent))


@router.delete(
    "/v1/adapters/{id}", tags=["adapters"], status_code=204, responses=problems(404, 403, 422)
)
async def forget_adapter(service: Served, client: Client, id: Id) -> None:
    """Removes an adapter that this client has sent."""
    if id in service.experts:
        raise RefusedError(403, f"{id} ships with Urushi and stays")
    service.store.remove(service.store.get(SentAdapter, id, client))


@router.post(
    "/v1/adapt",
    tags=["adapters"],
    status_code=202,
    responses=problems(400, 408, 413, 422, 429, 501, 503, 507),
)
async def adapt(
    service: Served,
    client: Client,
    inputs: Annotated[list[UploadFile], File(min_length=1, description="Bad pictures.")],
    targets: Annotated[
        list[UploadFile],
        File(min_length=1, description="Good ones; the n-th belongs to the n-th bad one."),
    ],
    name: Annotated[str, Form(max_length=60, description="Of the adapter.")] = "mine",
    minutes: Annotated[float, Form(gt=0, le=1440, description="To learn, at most.")] = 5.0,
    steps: Annotated[
        int | None,
        Form(ge=1, le=100_000, description="To learn, at most; instead of minutes."),
        WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 100_000}),
    ] = None,
) -> JobTold:
    """Learns from pairs of pictures. The result is an adapter, which can be used here at once."""
    if len(inputs) != len(targets):
        sent = f"{counted(len(inputs), 'input')} and {counted(len(targets), 'target')}"
        raise RefusedError(422, f"{sent} were sent: each needs the other")
    if len(inputs) > _MOST_PAIRS:
        raise RefusedError(422, f"{len(inputs)} pairs were sent: at most {_MOST_PAIRS} are taken")
    most = service.settings.limits.adapt_minutes
    if minutes > most:
        raise RefusedError(422, f"minutes is {minutes:g}: at most {most:g} are given here")
    service.check_open()
    service.store.admit_job(client)
    service.store.admit(client, sum(file.size or 0 for file in (*inputs, *targets)))
    id, folder = service.store.place("job")
    try:
        for side, files in (("input", inputs), ("target", targets)):
            (folder / side).mkdir()
            for number, file in enumerate(files):
                suffix = suffix_for(file.filename or "", await file.read(64))
                path = folder / side / f"{number:04d}{suffix}"
                await keep_file(file, path)
                facts = {"source": str(path), "max_pixels": service.settings.limits.pixels}
                shown = shown_name(file.filename)
                await service.quickly("inspect", facts, {str(path): shown, path.name: shown})
        wish = {"minutes": None if steps else minutes, "steps": steps}
        return JobTold.of(service.adapt(client, shown_name(name, "mine"), folder, id, wish))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
