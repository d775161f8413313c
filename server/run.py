"""Runs the servers until Ctrl-C: the page on the loopback address, the API on the given address."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import secrets
import socket
from collections.abc import Callable, Collection, Sequence
from typing import Any
from urllib.parse import urlencode

import uvicorn

from genie_cpp.errors import GenieError
from genie_cpp.model import Model
from genie_cpp.play.session import Prompt
from genie_cpp.server.api.app import create_api
from genie_cpp.server.api.sessions import Sessions
from genie_cpp.server.common.connections import Connections, quiet_when_out_of_files
from genie_cpp.server.common.limits import Limits, ServeLimits
from genie_cpp.server.page.app import create_app
from genie_cpp.server.page.door import KEY
from genie_cpp.server.page.shelf import Shelf

HOST = "127.0.0.1"
_M_MMAP_THRESHOLD = -3
LOCAL = ("127.0.0.1", "localhost", "::1")


def listen(port: int, host: str = HOST) -> socket.socket:
    """A socket, by default on the loopback address. port 0: any free port. Raises GenieError."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except (OSError, UnicodeError):
        raise GenieError(f"{host[:80]!r} is not an address of this machine", "--host 0.0.0.0 is all of them") from None
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise GenieError(
            f"port {port} of {host} cannot be used: {error.strerror}", "--port 0 takes a free one"
        ) from None
    return listener


def is_loopback(listener: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


class Quiet(uvicorn.Server):
    """Reports only once, not thousands of times, that there are no file descriptors left."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        quiet_when_out_of_files(asyncio.get_running_loop())
        await super().startup(sockets)


def _patient(bounds: Limits) -> Any:
    return Connections(bounds.connections, bounds.address_connections, bounds.header_seconds).protocol()


class ApiServer(Quiet):
    """Ends rollouts before it waits for open connections."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.sessions.stopping = True
        await super().shutdown(sockets)

    sessions: Sessions


def return_memory() -> None:
    """Make glibc return large freed blocks to the system.

    By default glibc raises its threshold for this with every large block that is freed. It then keeps later blocks, in
    as many arenas as there are threads. Sessions that come and go would leave hundreds of megabytes unused.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 4 << 20)  # more than a step allocates


def api_server(
    models: Sequence[Model],
    prompts: Sequence[Prompt | None],
    limits: ServeLimits | None = None,
    api_key: str = "",
    origins: Collection[str] = (),
    local: bool = True,
) -> ApiServer:
    """The server of `genie-serve`. local: answer only to host names of this machine."""
    bounds = limits or ServeLimits()
    app = create_api(models, prompts, bounds, api_key, origins, LOCAL if local else None)
    config = uvicorn.Config(
        app,
        log_level="warning",
        ws_max_size=bounds.picture_bytes + 1,
        ws_per_message_deflate=False,
        ws_max_queue=4,
        limit_concurrency=bounds.connections,
        timeout_graceful_shutdown=3,
        lifespan="on",
        server_header=False,
        backlog=128,
        http=_patient(bounds),
    )
    made = ApiServer(config)
    made.sessions = app.state.sessions
    return made


def serve_api(
    models: Sequence[Model],
    prompts: Sequence[Prompt | None],
    host: str,
    port: int,
    started: Callable[[str], None],
    limits: ServeLimits | None = None,
    api_key: str = "",
    origins: Collection[str] = (),
) -> None:
    """Serve programs until Ctrl-C or SIGTERM. Raises GenieError, also if others could reach it without a key."""
    return_memory()
    with listen(port, host) as listener, contextlib.suppress(KeyboardInterrupt):
        local = is_loopback(listener)
        if not local and not api_key:
            raise GenieError(f"{host} can be reached from other machines", "set GENIE_API_KEY, or give --api-key")
        listener.listen(128)
        started(f"http://{_bracketed(host)}:{listener.getsockname()[1]}/")
        api_server(models, prompts, limits, api_key, origins, local and not api_key).run(sockets=[listener])


def server(
    shelf: Shelf,
    limits: Limits | None = None,
    key: str = "",
    port: int = 0,
    invite: Sequence[str] = (),
    root_path: str = "",
) -> uvicorn.Server:
    """The server of `genie-play`; the arguments are `create_app`'s."""
    bounds = limits or Limits()
    config = uvicorn.Config(
        create_app(shelf, bounds, key, port, invite, root_path),
        log_level="warning",
        # One byte more than a picture may have: such a picture gets an error, longer ones close the connection (1009).
        ws_max_size=bounds.picture_bytes + 1,
        ws_per_message_deflate=False,  # frames are already compressed
        ws_max_queue=4,
        timeout_graceful_shutdown=3,
        lifespan="off",
        backlog=64,
        limit_concurrency=bounds.connections,
        http=_patient(bounds),
    )
    return Quiet(config)


def own_address(host: str) -> str:
    """What other machines call this one, if it listens at `host`."""
    if host not in ("0.0.0.0", "::", ""):
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent: this only asks which way packets to the outside would take (an address of RFC 5737, 3849).
        probe.connect(("2001:db8::1" if host == "::" else "192.0.2.1", 9))
        return str(probe.getsockname()[0])
    return socket.gethostname()


def serve(
    shelf: Shelf,
    port: int,
    started: Callable[[str, str], None],
    host: str = HOST,
    key: str = "",
    root_path: str = "",
) -> None:
    """Serve the page until Ctrl-C. Raises GenieError.

    started: is called once connections are accepted, with the address for this machine and that for others, or "".
    key: what players must have. Beyond this machine there always is one; if none is given, a new one is made.
    """
    return_memory()
    with listen(port, host) as listener, contextlib.suppress(KeyboardInterrupt):
        local, real = is_loopback(listener), listener.getsockname()[1]
        if not local and not key:
            key = secrets.token_urlsafe(9)
        listener.listen(64)
        path = f"{root_path}/" + (f"?{urlencode({KEY: key})}" if key else "")
        invite = [] if local else [f"http://{_bracketed(own_address(host))}:{real}{path}"]
        here = HOST if local or host in ("0.0.0.0", "::") else host
        started(f"http://{_bracketed(here)}:{real}{path}", invite[0] if invite else "")
        server(shelf, None, key, real, invite, root_path).run(sockets=[listener])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
