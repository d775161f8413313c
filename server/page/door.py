"""Who may come in: pages of this machine's own address, and whoever has the key."""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost", "::1")
KEY = "key"  # in an address
_SECONDS = 30 * 24 * 3600  # that a browser keeps the key
# The page loads nothing from other hosts, and no other page may embed it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Door:
    """ASGI middleware. Without a key, only names of this machine are answered.

    The key comes once, in the address (`?key=…`). The browser then keeps it in a cookie that scripts cannot read and
    that other sites cannot send, and is led to the address without it.
    """

    def __init__(self, app: ASGIApp, key: str = "", port: int = 0, root_path: str = "") -> None:
        """port: a part of the cookie's name, because browsers do not keep the cookies of two ports apart. root_path:
        what a proxy has before the page's path, whether or not it takes it away."""
        self.app, self._key, self._cookie, self._root = app, key, f"genie_key_{port}", root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if self._root:
            path = scope["path"]  # in ASGI it includes the root path; a proxy may have taken that away
            path = path if f"{path}/".startswith(f"{self._root}/") else self._root + path
            scope = {**scope, "root_path": self._root, "path": path}
        headers = Headers(scope=scope)
        refused = self._refused(scope, headers)
        if refused is not None:
            await self._refuse(refused, scope, receive, send)
            return
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if self._key and scope["type"] == "http" and KEY in query:
            await self._welcome(query, scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        host = headers.get("host", "")
        # With DNS rebinding a foreign name resolves to this machine, so the name itself is checked. Such a page has no
        # key: where one is asked for, any name will do.
        if not self._key and _part(f"//{host}", "hostname") not in HOSTS:
            return 400, "this server answers to 127.0.0.1 only; genie-play --host makes it answer to others"
        # A browser lets any page open a websocket to any host, so check Origin, which names the page.
        origin = headers.get("origin")
        ours = {host, headers.get("x-forwarded-host", host)} if self._key else {host}
        if scope["type"] == "websocket" and origin is not None and _part(origin, "netloc") not in ours:
            return 403, "another page's script may not play here"
        if self._key and not hmac.compare_digest(self._given(scope, headers).encode(), self._key.encode()):
            return 401, "the key is missing or wrong: open the address that genie-play printed"
        return None

    def _given(self, scope: Scope, headers: Headers) -> str:
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        if KEY in query:
            return query[KEY][-1]
        try:
            cookie = SimpleCookie(headers.get("cookie", "")).get(self._cookie)
        except CookieError:
            return ""
        return cookie.value if cookie is not None else ""

    async def _welcome(self, query: dict[str, list[str]], scope: Scope, receive: Receive, send: Send) -> None:
        more = urlencode({name: values for name, values in query.items() if name != KEY}, doseq=True)
        where = scope["path"].rsplit("/", 1)[-1] or "./"
        response = RedirectResponse(f"{where}?{more}" if more else where, 303, headers=dict(_HEADERS))
        path = self._root or "/"
        response.set_cookie(self._cookie, self._key, _SECONDS, path=path, httponly=True, samesite="strict")
        await response(scope, receive, send)

    async def _refuse(self, refused: tuple[int, str], scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refused[1]})  # before it is accepted: 403
            return
        await PlainTextResponse(f"{refused[1]}\n", refused[0], headers=dict(_HEADERS))(scope, receive, send)


def _part(address: str, part: str) -> str:
    """A part of an address, or "" if the address is malformed."""
    try:
        return getattr(urlsplit(address), part) or ""
    except ValueError:
        return ""
