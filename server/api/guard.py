"""Checks before a request reaches the API: who may send it, how large it may be, and how slow the client may be."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from genie_cpp.server.common.faults import ApiError, told
from genie_cpp.server.common.limits import ServeLimits

OPEN = {"/health"}  # without a key, because load balancers have none
_UPLOADS = ("/sessions", "/reset", "/state")  # their bodies are pictures or saved worlds
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")  # clients can invent others
_PIECE = 64 << 10
_DRAIN_BYTES, _DRAIN_SECONDS = 256 << 20, 10.0


class Guard:
    """ASGI middleware. answered: called with each response's method, route and status. hosts: the host names to answer
    to; None: any. origins: web pages that may send requests."""

    def __init__(
        self,
        app: ASGIApp,
        limits: ServeLimits,
        answered: Callable[[str, str, int], None],
        api_key: str = "",
        origins: Collection[str] = (),
        hosts: Collection[str] | None = None,
    ) -> None:
        self.app, self.limits, self.answered, self.origins, self.hosts = app, limits, answered, origins, hosts
        self._key = api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if scope["type"] == "http":
            send = self._patient(scope, send)
        try:
            self._admit(scope["path"], headers)
            if scope["type"] == "http":
                self._length(scope["path"], headers)
        except ApiError as error:
            await _refuse(error, scope, receive, send, drain="expect" not in headers)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, self._bounded(scope["path"], receive), send)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            return  # the client does not read, so no error can be sent

    def _admit(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and _split(f"//{host}", "hostname") not in self.hosts:
            # With DNS rebinding a foreign name resolves to this machine, so the name itself is checked.
            raise ApiError(400, "this server does not answer to that host name", "ask for 127.0.0.1")
        origin = headers.get("origin")
        if origin is not None and origin not in self.origins and (_split(origin, "netloc") or None) != host:
            raise ApiError(403, "pages of other origins may not ask", "start the server with --cors-origin")
        if self._key and path not in OPEN:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._key):
                raise ApiError(401, "the API key is missing or wrong", "send it as Authorization: Bearer …")

    def _most(self, path: str) -> int:
        return self.limits.picture_bytes if path.endswith(_UPLOADS) else self.limits.message_bytes

    def _length(self, path: str, headers: Headers) -> None:
        length, most = headers.get("content-length", "0"), self._most(path)
        if "content-length" in headers and "transfer-encoding" in headers:
            # A proxy may end the request by the one header while this server ends it by the other (request smuggling).
            raise ApiError(400, "a request has a length or an encoding, not both", "leave Content-Length out")
        if not length.isdecimal() or len(length) > 18 or int(length) > most:
            raise _too_large(most)

    def _bounded(self, path: str, receive: Receive) -> Receive:
        """A `receive` that fails if the body is too long or arrives too slowly."""
        most, got, whole, deadline = self._most(path), 0, False, 0.0

        async def bounded() -> Message:
            nonlocal got, whole, deadline
            if whole:
                return await receive()  # waits for the message that the client has left
            deadline = deadline or time.monotonic() + self.limits.receive_seconds
            try:
                message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
            except asyncio.TimeoutError:
                whole = True
                raise _http(ApiError(408, f"the request took more than {self.limits.receive_seconds:g} s")) from None
            got += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if got > most:
                if not whole:
                    await _drain(receive)
                whole = True
                raise _http(_too_large(most))
            return message

        return bounded

    def _patient(self, scope: Scope, send: Send) -> Send:
        """A `send` in pieces. The client must accept each piece in time."""

        async def patient(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
                # The pattern of the route: with the real path, every session would create its own label.
                route = getattr(scope.get("route"), "path", "none")
                method = scope["method"] if route != "none" and scope["method"] in _METHODS else "other"
                self.answered(method, route, message["status"])
            if message["type"] != "http.response.body" or len(body) <= _PIECE:
                await asyncio.wait_for(send(message), self.limits.send_seconds)
                return
            for at in range(0, len(body), _PIECE):
                more = at + _PIECE < len(body) or message.get("more_body", False)
                piece = {**message, "body": body[at : at + _PIECE], "more_body": more}
                await asyncio.wait_for(send(piece), self.limits.send_seconds)

        return patient


def _split(address: str, part: str) -> str:
    """A part of an address, or "" if the address is malformed."""
    try:
        return getattr(urlsplit(address), part) or ""
    except ValueError:
        return ""


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is too large; {most} bytes are the limit", "send a smaller picture")


def _http(error: ApiError) -> HTTPException:
    # While it reads a body, FastAPI turns any other exception into a 400.
    return HTTPException(error.status, told(error)[1])  # type: ignore[arg-type]


async def _refuse(error: ApiError, scope: Scope, receive: Receive, send: Send, drain: bool) -> None:
    status, body = told(error)
    extra = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if "transfer-encoding" in Headers(scope=scope) and "content-length" in Headers(scope=scope):
        extra["Connection"] = "close"  # what follows cannot be told from the body
    response = JSONResponse(body, status, extra)
    if scope["type"] == "websocket":
        await WebSocket(scope, receive, send).send_denial_response(response)
        return
    if drain:
        await _drain(receive)
    await response(scope, receive, send)


async def _drain(receive: Receive) -> None:
    """Read what the client is still sending. A client that is cut off while it writes seldom sees the error."""
    got, deadline = 0, time.monotonic() + _DRAIN_SECONDS
    while got < _DRAIN_BYTES:
        try:
            message = await asyncio.wait_for(receive(), max(0.0, deadline - time.monotonic()))
        except asyncio.TimeoutError:
            return
        got += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
