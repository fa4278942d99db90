"""`urushi serve`: a page for people and an HTTP interface for programs."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from urushi.app.dry_run import restoring_of
from urushi.app.groups import EngineGroup, grouped
from urushi.app.options import MaybeModel, Router, require
from urushi.app.output import Output, examples
from urushi.errors import UrushiError

if TYPE_CHECKING:
    from urushi.serve.limits import Limits
    from urushi.serve.service import Service, Settings

__all__ = ["EPILOG", "serve"]

EPILOG = examples(
    "urushi serve",
    "urushi serve --port 8080 --work /var/cache/urushi",
    "urushi serve --host 0.0.0.0 --token-file token.txt --allow-host pictures.example.org",
)
_TOKEN = "URUSHI_TOKEN"
_SHORTEST = 16
_MB = 1_000_000
# Whoever waits for a result when the service ends has so many seconds to fetch it.
_FETCHING = 3.0


@dataclass(frozen=True, kw_only=True)
class DoorGroup:
    """Where it listens, and to whom."""

    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where it listens: this computer alone."),
    ] = "127.0.0.1"
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 for any that is free.")
    ] = 8000
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help=f"Holds what requests must bear; the environment variable {_TOKEN} does as well.",
        ),
    ] = None
    allow_anonymous: Annotated[
        bool,
        typer.Option(
            "--allow-anonymous", help="Listen beyond this computer without a token, for anybody."
        ),
    ] = False
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name that it is asked for by, beside that of --host; repeatable, * for any.",
        ),
    ] = None

    def token(self) -> str | None:
        """What requests must bear; None for nothing.

        Raises:
            UrushiError: the file cannot be read, or what is there could be guessed.
        """
        file = self.token_file
        if file is None and _TOKEN not in os.environ:
            return None
        where = _TOKEN if file is None else str(file)
        try:
            text = os.environ[_TOKEN] if file is None else file.read_text(encoding="ascii")
        except (OSError, ValueError) as error:
            raise UrushiError(
                f"{where}: cannot be read as a token ({error}): give another"
            ) from error
        token = text.strip()
        if len(token) < _SHORTEST or not token.isascii() or len(token.split()) != 1:
            raise UrushiError(
                f"{where}: holds no token: {_SHORTEST} letters and digits or more are expected, "
                "such as  python -c 'import secrets; print(secrets.token_urlsafe())'  gives"
            )
        return token

    def names(self, token: str | None) -> tuple[str, ...]:
        """Names that the service is asked for by.

        Raises:
            BadParameter: it could be reached from elsewhere, and nothing keeps strangers away.
        """
        host = self.host
        loopback = host == "localhost" or host == "::1" or host.startswith("127.")
        if not loopback and token is None and not self.allow_anonymous:
            raise typer.BadParameter(
                f"--host {host} can be reached from elsewhere: give --token-file FILE, or "
                "--allow-anonymous where anybody may use it."
            )
        own = ("localhost", "127.0.0.1", "::1")
        bound = () if host in ("0.0.0.0", "::", "") else (host,)
        named = (*own, *bound, *(self.allow_host or ()))
        return tuple(f"[{name}]" if ":" in name else name for name in named)


@dataclass(frozen=True, kw_only=True)
class LimitGroup:
    """What one request, one job and one client may take."""

    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="FOLDER", help="For temporary files; the system's if none."),
    ] = None
    max_mb: Annotated[int, typer.Option("--max-mb", min=1, metavar="N", help="Of one request.")] = (
        512
    )
    max_megapixels: Annotated[
        int, typer.Option("--max-megapixels", min=1, metavar="N", help="Of one picture.")
    ] = 200
    max_seconds: Annotated[
        float, typer.Option("--max-seconds", min=1, metavar="S", help="That one job may run.")
    ] = 900
    queue: Annotated[
        int, typer.Option("--queue", min=1, metavar="N", help="Jobs that wait at most.")
    ] = 64
    client_jobs: Annotated[
        int,
        typer.Option(
            "--client-jobs", min=1, metavar="N", help="Of one address, that wait or run at most."
        ),
    ] = 64
    client_mb: Annotated[
        int,
        typer.Option(
            "--client-mb", min=1, metavar="N", help="Of the disk that one address may fill."
        ),
    ] = 8192
    keep_minutes: Annotated[
        float,
        typer.Option(
            "--keep-minutes", min=0.1, metavar="M", help="That results stay after the last use."
        ),
    ] = 60
    adapt_minutes: Annotated[
        float,
        typer.Option("--adapt-minutes", min=0.1, metavar="M", help="That learning may take."),
    ] = 30

    def limits(self) -> "Limits":
        """The same in the units of the service."""
        from urushi.serve.limits import Limits

        return Limits(
            body=self.max_mb * _MB,
            pixels=self.max_megapixels * 1_000_000,
            seconds=self.max_seconds,
            queue=self.queue,
            client_jobs=self.client_jobs,
            client_disk=self.client_mb * _MB,
            keep=60 * self.keep_minutes,
            adapt_minutes=self.adapt_minutes,
        )


@grouped
def serve(
    *,
    door: DoorGroup,
    limited: LimitGroup,
    model: MaybeModel = None,
    router: Router = None,
    engine: EngineGroup,
) -> None:
    """Serve a page for mending pictures, and an HTTP interface under /v1."""
    needed = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
    require(needed, "serving", "serve")
    token = door.token()
    names = door.names(token)
    from urushi.serve.service import Settings

    options = engine.options()
    restoring_of(model, router, None, None, options)  # what cannot be is told now, by no worker
    settings = Settings(
        options, _found(router), model, limited.work, limited.limits(), names, token
    )
    _run(settings, door.host, door.port)


def _run(settings: "Settings", host: str, port: int) -> None:
    """Serves until a signal comes; what runs then comes to its end."""
    import socket
    import tempfile

    import uvicorn

    from urushi.serve.application import make_app
    from urushi.serve.service import Service

    out = Output()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        # From here on whoever comes waits, and is not turned away.
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise UrushiError(
            f"{host} port {port} cannot be listened at ({error.strerror or error}): choose "
            "another --port, 0 for any that is free, or another --host"
        ) from error
    try:
        service = Service(settings)
    except OSError as error:
        listening.close()
        raise UrushiError(
            f"{settings.work or 'the folder for temporary files'} takes no files "
            f"({error.strerror or error}): give another --work"
        ) from error
    # What clients send is no matter for this log.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # Bodies of requests go where all the rest goes; this process is the service's alone.
    tempfile.tempdir = str(service.store.spool)
    config = uvicorn.Config(
        make_app(service),
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=20,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 5,
        h11_max_incomplete_event_size=64 * 1024,
    )
    shown = f"[{host}]" if ":" in host else host
    out.say(f"serving at http://{shown}:{listening.getsockname()[1]}/ until Ctrl-C")
    try:
        _server(config, service).run(sockets=[listening])
    finally:
        listening.close()
        service.store.close()
    out.say("stopped")


def _server(config: Any, service: "Service") -> Any:
    """Serves until a signal comes: what runs comes to its end, and may be fetched, before it goes.

    A second signal ends it at once.
    """
    import threading
    import time

    import uvicorn

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            if service.stopping:
                self.should_exit = self.force_exit = True
                return
            service.stopping = True
            threading.Thread(target=self._drain, daemon=True).start()

        def _drain(self) -> None:
            busy = not service.main.idle
            service.drain()
            if busy:
                time.sleep(_FETCHING)
            self.should_exit = True

    return Server(config)


def _found(router: str | None) -> str | None:
    """The all-in-one file; that it cannot be is told at once, not by a worker."""
    from urushi.inference.zoo import find_all_in_one

    found = find_all_in_one(router)
    return None if router is None or found is None else str(found.absolute())
