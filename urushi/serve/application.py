"""The HTTP interface and the page: an ASGI application around a service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from urushi.errors import UrushiError
from urushi.serve import routes_adapters, routes_jobs, routes_pictures
from urushi.serve.answers import Served, problems
from urushi.serve.gate import Gate
from urushi.serve.problems import RefusedError, answer, status_of
from urushi.serve.requests import invalid, refuse_unknown
from urushi.serve.service import Service
from urushi.serve.service_wording import in_forms
from urushi.version import __version__

__all__ = ["make_app"]

STATIC = Path(__file__).parent / "static"
_ABOUT = (
    "Mends pictures: what `urushi restore` does, as a service. Errors are problem documents "
    "(RFC 9457) whose `detail` is the command's own sentence, with fields in place of options."
)


def make_app(service: Service) -> ASGIApp:
    """The application that serves a service; it starts and stops it with itself."""

    @asynccontextmanager
    async def life(_app: FastAPI) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.stop)

    app = FastAPI(
        title="Urushi",
        version=__version__,
        description=_ABOUT,
        lifespan=life,
        openapi_url="/v1/openapi.json",
        # Their pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    for routes in (routes_pictures, routes_jobs, routes_adapters):
        app.include_router(routes.router, dependencies=[Depends(refuse_unknown)])
    _add_watching(app)
    _add_errors(app)
    _add_page(app)
    _close_forms(app)
    settings = service.settings
    return Gate(app, settings.limits, settings.hosts, settings.token, service.metrics)


def _add_watching(app: FastAPI) -> None:
    """What those ask who watch the service."""

    @app.get("/healthz", tags=["watching"], responses=problems())
    async def healthz() -> dict[str, str]:
        """Whether the service answers at all."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["watching"], responses=problems(503))
    async def readyz(service: Served) -> dict[str, str]:
        """Whether pictures are restored now."""
        if service.ready:
            return {"status": "ready"}
        why = next((lane.problem for lane in service.lanes if lane.problem), "")
        if service.stopping:
            why = "the service is being stopped"
        raise RefusedError(503, why or "the workers are still coming up", retry=1)

    @app.get(
        "/metrics",
        tags=["watching"],
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}, **problems()},
    )
    async def metrics(service: Served) -> Response:
        """What Prometheus reads."""
        content, kind = service.metrics.text()
        return Response(content, media_type=kind)


def _add_errors(app: FastAPI) -> None:
    """All that goes wrong is told in one form."""

    @app.exception_handler(RefusedError)
    async def refusal(_request: Request, error: RefusedError) -> JSONResponse:
        return answer(error)

    @app.exception_handler(UrushiError)
    async def known(_request: Request, error: UrushiError) -> JSONResponse:
        return answer(RefusedError(status_of(type(error).__name__), in_forms(str(error))))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> JSONResponse:
        headers = dict(error.headers or {})
        if error.status_code == 405:
            # The framework names those of the first route of the path alone.
            path = getattr(request.scope.get("route"), "path", "")
            methods = [name.upper() for name in app.openapi()["paths"].get(path, {})] or ["GET"]
            headers["Allow"] = ", ".join(sorted(methods))
        return answer(RefusedError(error.status_code, str(error.detail), headers=headers))

    @app.exception_handler(RequestValidationError)
    async def not_valid(request: Request, error: RequestValidationError) -> JSONResponse:
        return answer(invalid(request, error.errors()[0] if error.errors() else {}))

    @app.exception_handler(Exception)
    async def unexpected(_request: Request, error: Exception) -> JSONResponse:
        return answer(RefusedError(500, f"unexpected {type(error).__name__}"))


def _close_forms(app: FastAPI) -> None:
    """Lets the description say that forms have no other fields; see `refuse_unknown`."""
    described = app.openapi

    def openapi() -> dict[str, Any]:
        whole = described()
        for name, shape in whole["components"]["schemas"].items():
            if name.startswith("Body_"):
                shape["additionalProperties"] = False
        return whole

    app.openapi = openapi


def _add_page(app: FastAPI) -> None:
    """The page, whose files hold nothing of anybody."""

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"Cache-Control": "no-cache"})

    @app.get("/favicon.ico", include_in_schema=False)
    async def icon() -> FileResponse:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
