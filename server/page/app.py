"""The page, the websocket for playing, and the files of a session: frames and recordings."""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastapi import FastAPI, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.trustedhost import TrustedHostMiddleware

from genie_cpp.errors import GenieError, StateError
from genie_cpp.media.output import write
from genie_cpp.model import Model
from genie_cpp.play.session import Prompt, Session, pixels
from genie_cpp.play.session_file import SessionFile
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.common.messages import ProtocolError
from genie_cpp.server.page import protocol
from genie_cpp.server.page.player import Answer, Player, recording_kinds

STATIC = Path(__file__).parent / "static"
HOSTS = ["127.0.0.1", "localhost"]
_TYPES = {"gif": "image/gif", "webp": "image/webp", "mp4": "video/mp4"}
# The page loads nothing from other hosts, and no other page may embed it.
_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(models: Sequence[Model], prompts: Sequence[Prompt | None], limits: Limits | None = None) -> FastAPI:
    """An application that plays `models`, each with its prompt (None: the player brings a picture)."""
    bounds = limits or Limits()
    players: dict[str, Player] = {}
    app = FastAPI(title="genie-play", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.players = players
    # With DNS rebinding a foreign name resolves to this machine, so the name itself is checked.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.middleware("http")
    async def headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers.update(_HEADERS)
        if not request.url.path.startswith("/sessions"):
            response.headers["Cache-Control"] = "no-cache"
        return response

    @app.get("/")
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    def session_of(id: str) -> Session:
        player = players.get(id)
        if player is None or player.session is None:
            raise StateError("there is no such session")
        return player.session

    @app.exception_handler(GenieError)
    async def fault(request: Request, error: GenieError) -> JSONResponse:
        return JSONResponse(protocol.error(error), 404 if isinstance(error, StateError) else 400)

    @app.get("/sessions/{id}/frames/{node}.png")
    async def one_frame(id: str, node: int) -> Response:
        kept = session_of(id).nodes.get(node)
        if kept is None:
            raise StateError("this frame is no longer kept")
        return Response(
            kept.png, media_type="image/png", headers={"Cache-Control": "private, max-age=86400, immutable"}
        )

    @app.get("/sessions/{id}/recording.{kind}")
    async def recording(
        id: str,
        kind: str,
        first: int,
        last: int,
        fps: int = Query(10, ge=1, le=100),
        scale: int = Query(4, ge=1, le=16),
    ) -> Response:
        if kind not in recording_kinds():
            message = f"a recording is a {', a '.join(recording_kinds())}"
            return JSONResponse({"type": "error", "message": message, "hint": "mp4 needs the video extra"}, 404)
        session = session_of(id)
        pngs, says = session.recording(first, last, fps, scale)
        if len(pngs) > bounds.recording_frames:
            raise ProtocolError(f"{len(pngs)} frames; a recording has {bounds.recording_frames} at most")

        def encode() -> bytes:
            with tempfile.TemporaryDirectory(prefix="genie-") as folder:
                path = Path(folder) / f"recording.{kind}"
                write(path, pixels(pngs), says)
                return path.read_bytes()

        data = await asyncio.to_thread(encode)
        return Response(data, media_type=_TYPES[kind], headers=_attached(session, f"-{first}-{last}.{kind}"))

    @app.get("/sessions/{id}/session.genie")
    async def saved(id: str) -> Response:
        session = session_of(id)
        data = await asyncio.to_thread(lambda: SessionFile.of(session).to_bytes())
        headers = {**_attached(session, f"-{session.node.depth}.genie"), "Cache-Control": "no-store"}
        return Response(data, media_type="application/json", headers=headers)

    @app.websocket("/ws")
    async def play(socket: WebSocket) -> None:
        # A browser lets any page open a websocket to any host, so check Origin, which names the page.
        origin = socket.headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != socket.headers.get("host"):
            await socket.close(1008, "another page's script may not play here")
            return
        if protocol.SUBPROTOCOL not in socket.scope.get("subprotocols", []):
            await socket.accept()
            await _refuse(socket, 1002, f"this server speaks {protocol.SUBPROTOCOL}; reload the page")
            return
        await socket.accept(protocol.SUBPROTOCOL)
        if len(players) >= bounds.sessions:
            await _refuse(socket, 1013, f"{bounds.sessions} sessions are the limit; close another tab")
            return
        player = Player(models, prompts, bounds, secrets.token_urlsafe(16))
        players[player.id] = player
        try:
            await _say(socket, player.hello(), bounds.send_seconds)
            while True:
                await _say(socket, await _answer(socket, player), bounds.send_seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(1008, "the page does not read"), 1)
        except (WebSocketDisconnect, RuntimeError):
            # Starlette raises RuntimeError if the client leaves while an answer is sent.
            pass
        finally:
            del players[player.id]

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


async def _refuse(socket: WebSocket, code: int, why: str) -> None:
    await socket.send_json(protocol.error(GenieError(why)))
    await socket.close(code, why)
