"""Run the application on this machine's loopback address until Ctrl-C."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence

import uvicorn

from ..errors import GenieError
from ..model import Model
from ..session import Prompt
from .app import create_app
from .limits import Limits

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket on the loopback address; port 0: any free one. Raises GenieError."""
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise GenieError(f"port {port} cannot be used: {error.strerror}", "--port 0 takes a free one") from None
    return listener


def server(models: Sequence[Model], prompts: Sequence[Prompt | None], limits: Limits | None = None) -> uvicorn.Server:
    bounds = limits or Limits()
    config = uvicorn.Config(
        create_app(models, prompts, bounds),
        log_level="warning",
        # One byte more than a picture may have, so that it is told so; beyond that the connection closes (1009).
        ws_max_size=bounds.picture_bytes + 1,
        ws_per_message_deflate=False,  # frames are compressed already
        ws_max_queue=4,
        timeout_graceful_shutdown=3,
        lifespan="off",
    )
    return uvicorn.Server(config)


def serve(models: Sequence[Model], prompts: Sequence[Prompt | None], port: int, started: Callable[[str], None]) -> None:
    """Serve until Ctrl-C; `started` is called with the address once connections are taken. Raises GenieError."""
    with listen(port) as listener, contextlib.suppress(KeyboardInterrupt):
        listener.listen(64)
        started(f"http://{HOST}:{listener.getsockname()[1]}/")
        server(models, prompts).run(sockets=[listener])
