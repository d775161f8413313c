"""Limits on connections without a request: clients that send nothing, or half a header, must not block others.

uvicorn counts every open connection against its limit and waits forever for a request's header. Here each header must
arrive within some seconds, and an address may have only a limited number of connections. At a limit, the connection
that has been silent longest is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

_OUT_OF_FILES = "socket.accept() out of system resource"
_SAY_AGAIN = 60.0  # seconds


class Connections:
    """The connections of one server: which are silent, and how many each address has."""

    def __init__(self, most: int, per_address: int, header_seconds: float) -> None:
        """most: open connections in total. per_address: from one address. header_seconds: for a request's header."""
        self.most, self.per_address, self.header_seconds = most, per_address, header_seconds
        self.silent: dict[Patient, None] = {}  # oldest first
        self.open: dict[Patient, str] = {}
        self.by_address: Counter[str] = Counter()
        self.dropped = 0

    def protocol(self) -> Callable[..., Patient]:
        """The factory that uvicorn calls for each connection."""

        def make(**more: Any) -> Patient:
            return Patient(self, **more)

        return make

    def enter(self, one: Patient, address: str) -> None:
        """Count a new connection. If a limit is reached, drop one: of its own address first, then of all."""
        self.open[one], self.silent[one] = address, None
        self.by_address[address] += 1
        if self.by_address[address] > self.per_address:
            self._drop(next((p for p in self.silent if self.open[p] == address), one))
        if len(self.open) >= self.most:
            self._drop(next(iter(self.silent), one))

    def leave(self, one: Patient) -> None:
        self.silent.pop(one, None)
        if (address := self.open.pop(one, None)) is not None:
            self.by_address[address] -= 1
            if not self.by_address[address]:
                del self.by_address[address]

    def _drop(self, one: Patient) -> None:
        self.dropped += 1
        self.leave(one)
        one.drop()


class Patient(H11Protocol):
    """A connection whose next header must arrive in time."""

    def __init__(self, connections: Connections, **more: Any) -> None:
        super().__init__(**more)
        self._among = connections
        self._late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._wait()
        self._among.enter(self, str(peer[0]) if peer else "")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._among.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if (now := self.transport.get_protocol()) is not self:  # it became a websocket, which has its own limits
            self._stop_waiting()
            self._among.silent.pop(self, None)
            self._follow(now)
        elif self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
            self._among.silent.pop(self, None)

    def send_400_response(self, msg: str) -> None:
        """uvicorn's method fails if a response is already being sent, and if the request was a HEAD."""
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:
            self.transport.close()

    def _follow(self, websocket: Any) -> None:
        """Keep counting a connection that another protocol took over. Only that protocol is told when it ends."""
        lost = websocket.connection_lost

        def connection_lost(exc: Exception | None) -> None:
            self._among.leave(self)
            lost(exc)

        websocket.connection_lost = connection_lost

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing() and (self.cycle is None or self.cycle.response_complete):
            self._wait()
            self._among.silent.setdefault(self)

    def drop(self) -> None:
        """Close at once. Buffered data is lost."""
        self._stop_waiting()
        self.transport.abort()

    def _wait(self) -> None:
        self._stop_waiting()
        self._late = self.loop.call_later(self._among.header_seconds, self._too_late)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._among.dropped += 1
        self.drop()


def quiet_when_out_of_files(loop: asyncio.AbstractEventLoop) -> None:
    """Without free descriptors, asyncio logs a page per refused connection, thousands per second. Log it once a
    minute."""
    before, said = loop.get_exception_handler(), 0.0

    def handle(running: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal said
        if context.get("message") == _OUT_OF_FILES:
            if time.monotonic() - said > _SAY_AGAIN:
                said = time.monotonic()
                logging.getLogger("uvicorn.error").error("out of file descriptors: new connections wait (ulimit -n)")
            return
        if before is not None:
            before(running, context)
        else:
            running.default_exception_handler(context)

    with contextlib.suppress(RuntimeError):
        loop.set_exception_handler(handle)
