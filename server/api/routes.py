"""The REST API of `genie-serve`: `/v1/models`, `/v1/sessions` and the routes of a session."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from genie_cpp.actions import parse_actions
from genie_cpp.model import Frame
from genie_cpp.play.session import png
from genie_cpp.server.api import schema
from genie_cpp.server.api.schema import FrameFormat, Rollout, RolloutFormat, SamplerSettings, Step, binary
from genie_cpp.server.api.sessions import ServedSession, Sessions, in_thread
from genie_cpp.server.common.faults import ApiError
from genie_cpp.server.common.pictures import decode

NPY = "application/x-npy"
STATE = "application/octet-stream"
_PICTURE = {"requestBody": {"description": "A picture file to start from; none: the model's own.", **binary("image/*")}}
_STATE = {"requestBody": {"description": "What GET gave.", "required": True, **binary(STATE)}}
_HEADERS = {"genie-frame-number": {"schema": {"type": "integer"}}, "genie-seconds": {"schema": {"type": "number"}}}
_FRAME: dict[int | str, dict[str, Any]] = {
    200: {"model": schema.FrameInfo, "description": "The frame.", "headers": _HEADERS, **binary("image/png", NPY)}
}
_FRAMES: dict[int | str, dict[str, Any]] = {
    200: {"model": schema.RolloutInfo, "description": "The frames.", "headers": _HEADERS, **binary(NPY)}
}
_SAVED: dict[int | str, dict[str, Any]] = {200: {"description": "The state.", **binary(STATE)}}
_PROBLEMS: dict[int | str, dict[str, Any]] = {
    code: {"model": schema.Problem, "description": text}
    for code, text in {
        400: "Something in the request is wrong.",
        401: "The API key is missing or wrong.",
        404: "There is no such session.",
        413: "The body is too large.",
        422: "The request is not of the documented form.",
        429: "Too many requests wait for this session.",
        503: "There is no room for another session.",
    }.items()
}
Seed = Annotated[int, Query(ge=0, le=2**64 - 1, description="Of the random numbers.")]
Format = Annotated[FrameFormat, Query(description="npy: uint8 [height, width, 3].")]
Formats = Annotated[RolloutFormat, Query(description="npy: uint8 [frames, height, width, 3].")]


def router(sessions: Sessions) -> APIRouter:
    router = APIRouter(prefix="/v1", responses=_PROBLEMS)
    limits = sessions.limits

    async def start(session: ServedSession, data: bytes, seed: int) -> Frame:
        """Call it in a turn, or before others know the session."""

        def work() -> Frame:
            prompt = decode(data, session.model, limits) if data else session.prompt
            before, session.prompt = session.prompt, prompt
            try:
                return session.reset(seed)
            except BaseException:
                session.prompt = before
                raise

        return await in_thread(work)

    @router.get("/models", tags=["models"])
    async def models() -> list[schema.ModelInfo]:
        """The models that can be played."""
        pairs = zip(sessions.models, sessions.prompts, strict=True)
        return await in_thread(lambda: [schema.model_info(i, m, p is not None) for i, (m, p) in enumerate(pairs)])

    @router.post("/sessions", status_code=201, tags=["sessions"], openapi_extra=_PICTURE)
    async def create(
        request: Request,
        response: Response,
        model: Annotated[int, Query(description="Index in /v1/models.")] = 0,
        seed: Seed = 0,
    ) -> schema.SessionInfo:
        """Open a session, started from the picture in the body or from the model's own."""
        data = await request.body()  # read first, so that a slow upload does not occupy a session
        async with sessions.opening(model) as session:
            await start(session, data, seed)
        response.headers["Location"] = f"/v1/sessions/{session.id}"
        return schema.session_info(session)

    @router.get("/sessions/{id}", tags=["sessions"])
    async def show(id: str) -> schema.SessionInfo:
        """The session as it is; does not count as use."""
        return schema.session_info(sessions.find(id))

    @router.delete("/sessions/{id}", status_code=204, response_model=None, tags=["sessions"])
    async def delete(id: str) -> None:
        """Close the session; a step that is running ends first, and its answer is lost."""
        await sessions.close(sessions.find(id), "deleted")

    @router.post("/sessions/{id}/reset", responses=_FRAME, tags=["play"], openapi_extra=_PICTURE)
    async def reset(id: str, request: Request, seed: Seed = 0, format: Format = "png") -> Response:
        """Start again, from the picture in the body if there is one; the answer is the prompt as the model sees it."""
        session, data = sessions.find(id), await request.body()
        started = time.perf_counter()
        async with session.turn() as world:
            frame = await start(session, data, seed)
            return _answer(frame, world.n_frames, time.perf_counter() - started, format)

    @router.post("/sessions/{id}/step", responses=_FRAME, tags=["play"])
    async def step(id: str, body: Step, format: Format = "png") -> Response:
        """The frame after an action."""
        session, arrived = sessions.find(id), time.perf_counter()
        async with session.turn() as world:
            sessions.metrics.wait.observe(time.perf_counter() - arrived)
            frame, seconds = await in_thread(lambda: sessions.step(session, session.number(body.action)))
            return _answer(frame, world.n_frames, seconds, format)

    @router.post("/sessions/{id}/rollout", responses=_FRAMES, tags=["play"])
    async def rollout(id: str, body: Rollout, request: Request, format: Formats = "json") -> Response:
        """A frame for each action. Ends early, without an answer, when the client leaves."""
        session, arrived = sessions.find(id), time.perf_counter()
        actions = planned(session, body.actions, sessions)
        frames, spent = [], 0.0
        async with session.turn() as world:
            sessions.metrics.wait.observe(time.perf_counter() - arrived)
            for action in actions:
                frame, seconds = await in_thread(lambda action=action: sessions.step(session, action))  # type: ignore[misc]
                frames.append(frame)
                spent += seconds
                if await request.is_disconnected():
                    break
            number = world.n_frames
        return await in_thread(lambda: _answers(frames, number, spent, format))

    @router.get("/sessions/{id}/frame", responses=_FRAME, tags=["play"])
    async def newest(id: str, format: Format = "png") -> Response:
        """The newest frame once more."""
        async with sessions.find(id).turn() as world:
            return _answer(world.frame, world.n_frames, 0.0, format)

    @router.get("/sessions/{id}/tokens", tags=["play"])
    async def tokens(id: str) -> schema.TokensInfo:
        """The newest frame's token ids."""
        async with sessions.find(id).turn() as world:
            return schema.TokensInfo(frame_number=world.n_frames, tokens=world.tokens.tolist())

    @router.patch("/sessions/{id}/sampler", tags=["play"])
    async def sampler(id: str, body: SamplerSettings) -> schema.SessionInfo:
        """How the frames to come are sampled."""
        session = sessions.find(id)
        async with session.turn() as world:
            world.sampler = session.checked(body.over(world.sampler))
            return schema.session_info(session)

    @router.get("/sessions/{id}/state", responses=_SAVED, tags=["state"], response_class=Response)
    async def save(id: str) -> Response:
        """The state as bytes, without the model: a client keeps it, and any session of this model takes it back."""
        async with sessions.find(id).turn() as world:
            return Response(await in_thread(world.save), media_type=STATE)

    @router.put("/sessions/{id}/state", responses=_FRAME, tags=["state"], openapi_extra=_STATE)
    async def restore(id: str, request: Request, format: Format = "png") -> Response:
        """Go to a saved state; the answer is its newest frame."""
        session, data = sessions.find(id), await request.body()
        started = time.perf_counter()
        async with session.turn() as world:
            frame = await in_thread(lambda: session.restore(data))
            return _answer(frame, world.n_frames, time.perf_counter() - started, format)

    return router


def planned(session: ServedSession, actions: Sequence[int | str] | str, sessions: Sessions) -> list[int]:
    """The actions of a rollout, all checked before the first step. Raises ActionError, ApiError."""
    count, most = session.model.info.choices, sessions.limits.rollout_frames
    if isinstance(actions, str):
        plan = parse_actions(actions, count, session.model.info.action_names)
    else:
        plan = [session.number(action) for action in actions]
    if not 1 <= len(plan) <= most:
        raise ApiError(400, f"{len(plan)} actions; a rollout has 1…{most}", "ask for several rollouts")
    return plan


def _headers(number: int, seconds: float) -> dict[str, str]:
    return {"genie-frame-number": str(number), "genie-seconds": f"{seconds:.6f}", "Cache-Control": "no-store"}


def _answer(frame: Frame, number: int, seconds: float, format: FrameFormat) -> Response:
    headers = _headers(number, seconds)
    if format == "npy":
        return Response(_npy(frame), media_type=NPY, headers=headers)
    if format == "json":
        body = schema.FrameInfo(frame_number=number, seconds=round(seconds, 6), png=_text(frame))
        return JSONResponse(body.model_dump(), headers=headers)
    return Response(png(frame), media_type="image/png", headers=headers)


def _answers(frames: list[Frame], number: int, seconds: float, format: RolloutFormat) -> Response:
    headers = _headers(number, seconds)
    if format == "npy":
        return Response(_npy(np.stack(frames)), media_type=NPY, headers=headers)
    body = schema.RolloutInfo(frame_number=number, seconds=round(seconds, 6), png=[_text(frame) for frame in frames])
    return JSONResponse(body.model_dump(), headers=headers)


def _text(frame: Frame) -> str:
    return base64.b64encode(png(frame)).decode()


def _npy(array: Frame) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()
