"""The websocket of a session of `genie-serve`, subprotocol `genie-serve.1`.

The client sends JSON objects with a `type`, or a picture file as a binary message, which resets the session. Frames are
sent as binary messages: uint32 (little endian) length of a JSON object, the object, a PNG. Messages are answered in
order. The answer to `rollout` is its frames and then `done`; any other answer is one message, an `error` if it failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import ValidationError
from starlette.responses import JSONResponse

from genie_cpp.errors import GenieError
from genie_cpp.model import Frame
from genie_cpp.play.session import png
from genie_cpp.server.api import schema
from genie_cpp.server.api.routes import planned
from genie_cpp.server.api.schema import SamplerSettings
from genie_cpp.server.api.sessions import ServedSession, Sessions, in_thread
from genie_cpp.server.common.faults import ApiError, told
from genie_cpp.server.common.messages import ProtocolError, parse, whole
from genie_cpp.server.common.pictures import decode

VERSION = 1
SUBPROTOCOL = f"genie-serve.{VERSION}"
TYPES = ("step", "rollout", "reset", "tokens", "sampler")
Answer = dict[str, Any] | bytes


def router(sessions: Sessions) -> APIRouter:
    router = APIRouter()

    @router.websocket("/v1/sessions/{id}/ws")
    async def talk(socket: WebSocket, id: str) -> None:
        try:
            session = sessions.find(id)
        except ApiError as error:
            status, body = told(error)
            await socket.send_denial_response(JSONResponse(body, status))
            return
        if SUBPROTOCOL not in socket.scope.get("subprotocols", []):
            await socket.accept()
            await socket.send_json(_error(ProtocolError(f"this server speaks {SUBPROTOCOL}")))
            await socket.close(1002, f"this server speaks {SUBPROTOCOL}")
            return
        await socket.accept(SUBPROTOCOL)
        session.sockets.add(socket)
        hello = {"type": "hello", "version": VERSION, "session": schema.session_info(session).model_dump()}
        try:
            await _say(socket, hello, sessions.limits.send_seconds)
            while True:
                async with contextlib.aclosing(_answers(sessions, session, await _hear(socket))) as answers:
                    async for answer in answers:
                        await _say(socket, answer, sessions.limits.send_seconds)
        except asyncio.TimeoutError:  # not the builtin one before Python 3.11
            sessions.metrics.slow.inc()
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(1008, "the client does not read"), 1)
        except (WebSocketDisconnect, RuntimeError):
            pass  # Starlette raises RuntimeError if the client leaves while an answer is sent
        finally:
            session.sockets.discard(socket)

    return router


async def _hear(socket: WebSocket) -> str | bytes:
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    text = message.get("text")
    return text if text is not None else message.get("bytes") or b""


async def _say(socket: WebSocket, answer: Answer, seconds: float) -> None:
    said = socket.send_bytes(answer) if isinstance(answer, bytes) else socket.send_json(answer)
    await asyncio.wait_for(said, seconds)


def _error(error: BaseException) -> dict[str, Any]:
    return {"type": "error", **told(error)[1]}


async def _answers(sessions: Sessions, session: ServedSession, said: str | bytes) -> AsyncGenerator[Answer, None]:
    try:
        if isinstance(said, bytes):
            yield await _picture(sessions, session, said)
            return
        message = parse(said, sessions.limits.message_bytes)
        kind = message.pop("type")
        if kind == "rollout":
            plan = planned(session, _listed(message), sessions)
            for action in plan:
                # One turn per frame, so that a slow reader of a long rollout does not block others on the session.
                yield await _step(sessions, session, action)
            yield {"type": "done", "frames": len(plan)}
        elif kind == "step":
            named = isinstance(message.get("action"), str)
            asked = message["action"] if named else whole({"type": kind, **message}, "action", 0, 2**31)
            yield await _step(sessions, session, session.number(asked))
        elif kind == "reset":
            seed = whole({"type": kind, **message}, "seed", 0, 2**64 - 1, 0)
            async with session.turn() as world:
                frame = await in_thread(lambda: session.reset(seed))
                yield _frame(frame, world.n_frames, -1, 0.0)
        elif kind == "tokens":
            async with session.turn() as world:
                answer = {"type": "tokens", "frame_number": world.n_frames, "tokens": world.tokens.tolist()}
            yield answer
        elif kind == "sampler":
            async with session.turn() as world:
                world.sampler = session.checked(SamplerSettings(**message).over(world.sampler))
            yield {"type": "sampler", **schema.sampler_info(world.sampler).model_dump()}
        else:
            raise ProtocolError(f"unknown type {kind[:40]!r}", f"one of {', '.join(TYPES)}")
    except ValidationError as error:
        yield _error(
            ProtocolError(
                f"sampler: {schema.first([{**fault, 'loc': ('message', *fault['loc'])} for fault in error.errors()])}"
            )
        )
    except (GenieError, MemoryError) as error:
        yield _error(error)


def _listed(message: dict[str, Any]) -> list[int | str] | str:
    actions = message.get("actions")
    if isinstance(actions, str):
        return actions
    if isinstance(actions, list) and all(type(action) in (int, str) for action in actions):
        return actions
    raise ProtocolError("rollout: actions must be a list of whole numbers or names, or text such as 3*8,1")


async def _step(sessions: Sessions, session: ServedSession, action: int) -> bytes:
    arrived = time.perf_counter()
    async with session.turn() as world:
        sessions.metrics.wait.observe(time.perf_counter() - arrived)
        frame, seconds = await in_thread(lambda: sessions.step(session, action))
        return _frame(frame, world.n_frames, action, seconds)


async def _picture(sessions: Sessions, session: ServedSession, data: bytes) -> bytes:
    async with session.turn() as world:

        def work() -> Frame:
            session.prompt = decode(data, session.model, sessions.limits)
            return session.reset(session.seed)

        frame = await in_thread(work)
        return _frame(frame, world.n_frames, -1, 0.0)


def _frame(frame: Frame, number: int, action: int, seconds: float) -> bytes:
    head = {"type": "frame", "frame_number": number, "action": action, "seconds": round(seconds, 6)}
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + png(frame)
