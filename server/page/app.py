"""The page, the websocket for playing, and the files of a session: frames and recordings."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from genie_cpp.errors import GenieError, StateError
from genie_cpp.media.output import write
from genie_cpp.play.session import Session, pixels
from genie_cpp.play.session_file import SessionFile
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.common.messages import ProtocolError
from genie_cpp.server.page import protocol
from genie_cpp.server.page.door import Door
from genie_cpp.server.page.player import Answer, Player, recording_kinds
from genie_cpp.server.page.players import Players
from genie_cpp.server.page.shelf import Shelf

STATIC = Path(__file__).parent / "static"
TAKEN_OVER = 4001  # the close code for a page whose player goes on in another
_TYPES = {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}


def create_app(
    shelf: Shelf,
    limits: Limits | None = None,
    key: str = "",
    port: int = 0,
    invite: Sequence[str] = (),
    root_path: str = "",
) -> FastAPI:
    """An application that plays the worlds of `shelf`.

    key: what players must have; empty: only pages of this machine are answered. port: where it listens. invite:
    addresses at which other machines reach it, with the key. root_path: what a proxy has before the page's path.
    """
    bounds = limits or Limits()
    players = Players(lambda id: Player(shelf, bounds, id, invite), bounds)
    app = FastAPI(title="genie-play", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.players = players
    app.add_middleware(Door, key=key, port=port, root_path=root_path)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.middleware("http")
    async def fresh(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.exception_handler(GenieError)
    async def fault(request: Request, error: GenieError) -> JSONResponse:
        return JSONResponse(protocol.error(error), 404 if isinstance(error, StateError) else 400)

    @app.get("/starts/{number}.png")
    async def start(number: int, world: str) -> Response:
        """A start picture of a world that is here."""
        data = await asyncio.to_thread(shelf.thumbnail, world, number)
        return Response(data, media_type="image/png", headers={"Cache-Control": "private, max-age=600"})

    @app.get("/invite.svg")
    async def invitation() -> Response:
        """The first of `invite` as a QR code."""
        if not invite:
            raise StateError("other machines do not reach this page", "genie-play --host 0.0.0.0")
        import segno

        out = io.BytesIO()
        segno.make(invite[0], error="m").save(out, kind="svg", scale=4, border=2, light="white")
        return Response(out.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-store"})

    def session_of(id: str, play: int) -> Session:
        player = players.get(id)
        session = None if player is None else player.session_of(play)
        if session is None:
            raise StateError("there is no such session")
        return session

    @app.get("/sessions/{id}/{play}/frames/{node}.png")
    async def one_frame(id: str, play: int, node: int) -> Response:
        kept = session_of(id, play).nodes.get(node)
        if kept is None:
            raise StateError("this frame is no longer kept")
        headers = {"Cache-Control": "private, max-age=86400, immutable"}
        return Response(kept.png, media_type="image/png", headers=headers)

    @app.get("/sessions/{id}/{play}/recording.{kind}")
    async def recording(
        id: str,
        play: int,
        kind: str,
        first: int,
        last: int,
        fps: int = Query(10, ge=1, le=100),
        scale: int = Query(4, ge=1, le=16),
    ) -> Response:
        if kind not in recording_kinds():
            message = f"a recording is a {', a '.join(recording_kinds())}"
            return JSONResponse({"type": "error", "message": message, "hint": "mp4 needs the video extra"}, 404)
        session = session_of(id, play)
        pngs, says = session.recording(first, last, fps, scale)
        if len(pngs) > bounds.recording_frames:
            raise ProtocolError(f"{len(pngs)} frames; a recording has {bounds.recording_frames} at most")

        def encode() -> bytes:
            with tempfile.TemporaryDirectory(prefix="genie-") as folder:
                path = Path(folder) / f"recording.{kind}"
                write(path, pixels(pngs), says)
                return path.read_bytes()

        data = await asyncio.to_thread(encode)
        begin, end = session.nodes[first].depth, session.nodes[last].depth
        headers = {**_attached(session, f"-frames-{begin}-{end}.{kind}"), "Cache-Control": "private, max-age=600"}
        return Response(data, media_type=_TYPES[kind], headers=headers)

    @app.get("/sessions/{id}/{play}/session.genie")
    async def saved(id: str, play: int) -> Response:
        session = session_of(id, play)
        data = await asyncio.to_thread(lambda: SessionFile.of(session).to_bytes())
        headers = {**_attached(session, f"-{session.node.depth}.genie"), "Cache-Control": "no-store"}
        return Response(data, media_type="application/json", headers=headers)

    @app.websocket("/ws")
    async def play(socket: WebSocket, player: str = "") -> None:
        if protocol.SUBPROTOCOL not in socket.scope.get("subprotocols", []):
            await socket.accept()
            await _refuse(socket, 1002, f"this server speaks {protocol.SUBPROTOCOL}; reload the page")
            return
        await socket.accept(protocol.SUBPROTOCOL)
        closing: set[asyncio.Task[Any]] = set()  # asyncio itself holds tasks only weakly

        def taken_over() -> None:
            task = asyncio.create_task(_closed(socket, TAKEN_OVER, "the game goes on in another tab"))
            closing.add(task)
            task.add_done_callback(closing.discard)

        found = players.enter(player, taken_over)
        if found is None:
            await _refuse(socket, 1013, f"{bounds.sessions} sessions are the limit; close another tab")
            return
        try:
            await _say(socket, found.hello(), bounds.send_seconds)
            while True:
                await _say(socket, await _answer(socket, found), bounds.send_seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            await _closed(socket, 1008, "the page does not read")
        except (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError if the client leaves while an answer is sent.
            pass
        finally:
            players.leave(found, taken_over)
            asyncio.get_running_loop().call_later(bounds.linger_seconds + 1, players.sweep)

    return app


def _attached(session: Session, ending: str) -> dict[str, str]:
    """Headers of a file to download, named after the model."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", session.model.name).strip("-").lower()[:40] or "world"
    return {"Content-Disposition": f'attachment; filename="{name}{ending}"'}


async def _answer(socket: WebSocket, player: Player) -> Answer:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text, data = message.get("text"), message.get("bytes")
    try:
        # In a thread, so that the event loop stays free for other sessions while a frame is made.
        if text is not None:
            return await asyncio.to_thread(player.text, text)
        return await asyncio.to_thread(player.file, data or b"")
    except GenieError as error:
        return protocol.error(error)
    except MemoryError:
        return protocol.error(GenieError("out of memory"))


async def _say(socket: WebSocket, answer: Answer, seconds: float) -> None:
    said = socket.send_bytes(answer) if isinstance(answer, bytes) else socket.send_json(answer)
    await asyncio.wait_for(said, seconds)


async def _closed(socket: WebSocket, code: int, why: str) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(socket.close(code, why), 1)


async def _refuse(socket: WebSocket, code: int, why: str) -> None:
    await socket.send_json(protocol.error(GenieError(why)))
    await socket.close(code, why)
