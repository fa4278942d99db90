"""What stands before every request: who may ask, from where, for which host, and how much is read.

An ASGI application around another one. It decides before a byte of the body is read, and counts
the body's bytes as they come in.
"""

import asyncio
import hmac
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from urushi.serve.kept_work import client_of
from urushi.serve.limits import Limits
from urushi.serve.problems import RefusedError, answer
from urushi.serve.prometheus_metrics import Metrics

__all__ = ["Gate", "host_of"]

# Without a token: the page itself, which holds nothing of anybody, and what watches the service.
_OPEN = ("/", "/healthz", "/readyz", "/v1/openapi.json", "/favicon.ico")
_OPEN_BELOW = "/static/"
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "
        b"blob: data:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
)


class _RefusedError(HTTPException):
    """Raised through whoever reads the body."""


def host_of(text: str) -> str:
    """The host of a `Host` header, lower case, without its port; empty where there is none."""
    try:
        return (urlsplit(f"//{text.strip()}").hostname or "").rstrip(".").lower()
    except ValueError:
        return ""


class Gate:
    """Lets requests through, or refuses them.

    Args:
        app: what serves them.
        limits: of the service.
        hosts: names that it is asked for by; `*` for any.
        token: that every request must bear; None for no token.
        metrics: told of every answer.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        hosts: Iterable[str],
        token: str | None,
        metrics: Metrics,
    ) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._hosts = {host_of(host) or host for host in hosts}
        self._token = None if token is None else token.encode()
        self._sending: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message.get("headers", [])}
                message["headers"] = [
                    *message.get("headers", []),
                    *(pair for pair in _HEADERS if pair[0] not in given),
                ]
            await send(message)

        client = client_of((scope.get("client") or (None,))[0])
        scope.setdefault("state", {})["client"] = client
        has_body = scope["method"] not in _SAFE
        try:
            self._check(scope)
            if has_body:
                self._admit(client)
                self._sending[client] += 1
        except RefusedError as refusal:
            await answer(refusal)(scope, receive, noting)
        else:
            try:
                await self._app(scope, self._counting(scope, receive, client, has_body), noting)
            finally:
                if has_body and not scope["state"].get("read"):
                    self._read(scope, client)
        finally:
            self._metrics.request(_route(scope), status, time.perf_counter() - begun)

    def _admit(self, client: str) -> None:
        """Refuses more bodies at a time than there may be jobs."""
        all_of_them = sum(self._sending.values())
        if (
            self._sending[client] >= self._limits.client_jobs
            or all_of_them >= 2 * self._limits.queue
        ):
            raise RefusedError(429, "too much is being sent at the moment: try again", retry=2)

    def _read(self, scope: Scope, client: str) -> None:
        scope["state"]["read"] = True
        self._sending[client] -= 1
        if self._sending[client] <= 0:
            del self._sending[client]

    def _check(self, scope: Scope) -> None:
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host = headers.get("host", [])
        own = host_of(host[0]) if len(host) == 1 else ""
        if "*" not in self._hosts and own not in self._hosts:
            raise RefusedError(
                421,
                f"this service is not {own[:100] or 'what was asked for'!r}: name that host with "
                "--allow-host where it should be",
            )
        self._check_origin(scope, headers, host[0] if host else "")
        path = scope["path"]
        if self._token is not None and path not in _OPEN and not path.startswith(_OPEN_BELOW):
            self._check_token(headers.get("authorization", []))
        length = headers.get("content-length", [""])[0]
        if length.isdigit() and int(length) > self._limits.body:
            raise _too_much(self._limits)

    def _check_origin(self, scope: Scope, headers: dict[str, list[str]], host: str) -> None:
        """Refuses what pages of others make a browser send."""
        origin = headers.get("origin", [""])[0]
        site = headers.get("sec-fetch-site", [""])[0]
        foreign = origin and urlsplit(origin).netloc.lower() != host.lower()
        if (foreign or site == "cross-site") and scope["method"] not in _SAFE:
            raise RefusedError(403, "pages of other origins may not use this service")

    def _check_token(self, given: list[str]) -> None:
        assert self._token is not None
        kind, _, token = (given[0] if len(given) == 1 else "").partition(" ")
        right = hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        if kind.lower() != "bearer" or not right:
            raise RefusedError(401, "a token is needed: send  Authorization: Bearer TOKEN")

    def _counting(self, scope: Scope, receive: Receive, client: str, has_body: bool) -> Receive:
        """Receives a body up to the limits of size and time."""
        until = time.monotonic() + self._limits.upload_seconds
        size, whole = 0, False

        async def counted() -> Message:
            nonlocal size, whole
            if whole or not has_body:
                return await receive()
            try:
                async with asyncio.timeout(max(0.0, until - time.monotonic())):
                    message = await receive()
            except TimeoutError as error:
                sentence = (
                    f"the request was not there after {self._limits.upload_seconds:g} seconds"
                )
                raise _RefusedError(408, sentence) from error
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self._limits.body:
                    refusal = _too_much(self._limits)
                    raise _RefusedError(refusal.status, refusal.detail)
                whole = not message.get("more_body", False)
            else:
                whole = True
            if whole:
                self._read(scope, client)
            return message

        return counted


def _too_much(limits: Limits) -> RefusedError:
    return RefusedError(413, f"at most {limits.body / 1e6:.0f} MB are taken at a time")


def _route(scope: Scope) -> str:
    """The pattern that a path fits, of which there are few."""
    route: Any = scope.get("route")
    found = getattr(route, "path", None)
    if isinstance(found, str):
        return found
    return "/static" if scope["path"].startswith(_OPEN_BELOW) else "none"
