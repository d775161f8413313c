"""The sessions of `genie-serve`: addressed by a random id, used by one request at a time, closed when idle."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeVar

from starlette.websockets import WebSocket

from genie_cpp.actions import action_number
from genie_cpp.frames import fit
from genie_cpp.model import Frame, Model
from genie_cpp.play.session import Prompt
from genie_cpp.sampler import Sampler
from genie_cpp.server.api.metrics import Metrics
from genie_cpp.server.common.faults import ApiError
from genie_cpp.server.common.limits import ServeLimits
from genie_cpp.world import World

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Run blocking work in a thread. Even if the caller is cancelled, return only when the work is done, because until
    then it uses its objects."""
    job = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait([job])
        raise


class ServedSession:
    """A world that requests use in turns. Attributes may be read at any time, the world only during a turn."""

    def __init__(self, id: str, index: int, model: Model, prompt: Prompt | None, limits: ServeLimits) -> None:
        self.id, self.index, self.model, self.prompt = id, index, model, prompt
        self.world = World(model)
        self.seed = 0
        self.used = time.monotonic()
        self.gone = False
        self.sockets: set[WebSocket] = set()
        self._limits = limits
        self._users = 0
        self._turn = asyncio.Lock()

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self._users else time.monotonic() - self.used

    def number(self, action: int | str) -> int:
        """The number of a latent action given by number or name. Raises ActionError."""
        return action_number(action, self.model.info.choices, self.model.info.action_names)

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[World]:
        """The world, exclusively. Raises ApiError if too many requests wait, or if the session was closed meanwhile."""
        if self._users > self._limits.waiting:
            raise ApiError(429, "too many requests wait for this session", "wait for an answer before the next request")
        self._users += 1
        try:
            async with self._turn:
                if self.gone:
                    raise no_session()
                yield self.world
        finally:
            self._users -= 1
            self.used = time.monotonic()

    def reset(self, seed: int) -> Frame:
        """Blocking; call it in a turn. Raises ApiError if there is no picture to start from."""
        if self.prompt is None:
            raise ApiError(400, "there is no picture to start from", "send one as the body")
        hp = self.model.info
        frame = self.world.reset(fit(self.prompt.picture, hp.frame_width, hp.frame_height, self.prompt.fit), seed)
        self.seed = seed
        return frame

    def restore(self, state: bytes) -> Frame:
        """Blocking; call it in a turn. Raises StateError, ApiError; the world is then unchanged."""
        before = self.world.save()
        frame = self.world.restore(state)
        try:
            self.checked(self.world.sampler)
        except ApiError:
            self.world.restore(before)
            raise
        self.seed = self.world.seed
        return frame

    def checked(self, sampler: Sampler) -> Sampler:
        """The sampler, if it has no more steps than a client may ask for. Raises ApiError."""
        most = max(self._limits.max_steps, self.model.sampler.steps)
        if sampler.steps > most:
            raise ApiError(400, f"{sampler.steps} steps; {most} are the limit")
        return sampler


def no_session() -> ApiError:
    return ApiError(404, "there is no such session", "it was deleted, idle for too long, or never there")


class Sessions:
    """All sessions of one application."""

    def __init__(self, models: Sequence[Model], prompts: Sequence[Prompt | None], limits: ServeLimits) -> None:
        self.models, self.prompts, self.limits = models, prompts, limits
        self._open: dict[str, ServedSession] = {}
        self._opening = 0
        self.stopping = False
        self.metrics = Metrics(self.__len__, limits.sessions)

    def __len__(self) -> int:
        return len(self._open) + self._opening

    def find(self, id: str) -> ServedSession:
        """Raises ApiError."""
        session = self._open.get(id)
        if session is None:
            raise no_session()
        return session

    @contextlib.asynccontextmanager
    async def opening(self, index: int) -> AsyncIterator[ServedSession]:
        """A new session, kept if the block succeeds. It counts against the limit from the start. Raises ApiError."""
        if not 0 <= index < len(self.models):
            raise ApiError(400, f"model {index} is not in 0…{len(self.models) - 1}", "GET /v1/models lists them")
        if len(self) >= self.limits.sessions:
            raise ApiError(503, f"{self.limits.sessions} sessions are the limit", "delete one, or try again later")
        self._opening += 1
        try:
            id, model = secrets.token_urlsafe(16), self.models[index]
            session = await in_thread(lambda: ServedSession(id, index, model, self.prompts[index], self.limits))
            yield session
            session.used = time.monotonic()
            self._open[id] = session
            self.metrics.opened.inc()
        finally:
            self._opening -= 1

    async def close(self, session: ServedSession, reason: str) -> None:
        """Runs only once per session. The world is freed when a running step is done."""
        if self._open.pop(session.id, None) is None:
            return
        session.gone = True
        self.metrics.closed.labels(reason).inc()
        for socket in list(session.sockets):
            # A client that does not read does not answer the close message either.
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(1001, f"the session is {reason}"), 1)

    async def sweep(self) -> None:
        """Close idle sessions repeatedly, until cancelled."""
        while True:
            await asyncio.sleep(min(5.0, self.limits.idle_seconds / 4))
            for session in list(self._open.values()):
                if session.idle_seconds > self.limits.idle_seconds:
                    await self.close(session, "idle")

    async def close_all(self) -> None:
        for session in list(self._open.values()):
            await self.close(session, "stopped")

    def step(self, session: ServedSession, action: int) -> tuple[Frame, float]:
        """Blocking; call it in a turn. Returns the frame and the seconds it took.

        Raises ActionError, and ApiError if a rollout must end: its session was deleted, or the server stops.
        """
        if session.gone:
            raise no_session()
        if self.stopping:
            raise ApiError(503, "the server is stopping", "try again later")
        started = time.perf_counter()
        frame = session.world.step(action)
        seconds, name = time.perf_counter() - started, session.model.name
        self.metrics.frames.labels(name).inc()
        self.metrics.step.labels(name).observe(seconds)
        return frame, seconds
