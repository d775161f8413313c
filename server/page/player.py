"""One client's side of the conversation: turns its messages into calls of a Session."""

from __future__ import annotations

import dataclasses
import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genie_cpp.errors import StateError
from genie_cpp.model import Model
from genie_cpp.play.keyboard import default_keys
from genie_cpp.play.session import Prompt, Session
from genie_cpp.play.session_file import Replay, SessionFile
from genie_cpp.sampler import Sampler
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.common.messages import ProtocolError, number, parse, whole
from genie_cpp.server.common.pictures import decode
from genie_cpp.server.page import protocol
from genie_cpp.version import __version__

Answer = dict[str, Any] | bytes
REPLAY_SECONDS = 0.5  # between progress messages while a session is replayed
MAX_STEPS = 64  # limit of the slider; more would block a frame for seconds


def recording_kinds() -> list[str]:
    """The formats that recordings can have."""
    video = all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg"))
    return ["gif", "webp", "mp4"] if video else ["gif", "webp"]


class Player:
    """Answers messages; blocking, so it is called in a thread. One call at a time."""

    def __init__(self, models: Sequence[Model], prompts: Sequence[Prompt | None], limits: Limits, id: str) -> None:
        self.models, self.prompts, self.limits, self.id = models, prompts, limits, id
        self.session: Session | None = None
        self._prompt: Prompt | None = None
        self._seed = 0
        self._answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "model": self._model,
            "reset": self._reset,
            "step": self._step,
            "seek": self._seek,
            "settings": self._settings,
            "bookmark": self._bookmark,
            "goto": self._go_to,
            "forget": self._forget,
            "replay": self._replay_on,
        }
        self._replay: tuple[Replay, Iterator[int]] | None = None  # a session that is being replayed

    def hello(self) -> Answer:
        return {
            "type": "hello",
            "version": protocol.VERSION,
            "genie_cpp": __version__,
            "session": self.id,
            "models": [{"name": model.name, "weights": model.type} for model in self.models],
            "limits": dataclasses.asdict(self.limits),
            "recordings": recording_kinds(),
        }

    def text(self, text: str) -> Answer:
        """Raises GenieError."""
        message = parse(text, self.limits.message_bytes)
        answer = self._answers.get(message["type"])
        if answer is None:
            raise ProtocolError(f"unknown type {message['type'][:40]!r}", f"one of {', '.join(self._answers)}")
        return answer(message)

    def file(self, data: bytes) -> Answer:
        """Start a new world from a picture, or begin to replay a saved session. Raises GenieError."""
        session = self._opened()
        if data.lstrip()[:1] == b"{":  # no picture file begins like this
            return self._open(data, session)
        prompt = decode(data, session.model, self.limits)
        session.reset(prompt, self._seed)
        self._prompt = prompt
        return protocol.frame(session, whole_path=True)

    def _open(self, data: bytes, session: Session) -> Answer:
        file, most = SessionFile.from_bytes(data), self._most_steps(session)
        if any(sampler.steps > most for sampler in file.samplers):
            raise ProtocolError(f"the session has frames of more than {most} steps", "genie-run --from plays it")
        self._replay = None  # free its memory first
        replay = Replay(file, session.model, self.limits.session_bytes)
        self._replay = replay, replay.steps()
        return {"type": "replay", "done": 0, "total": replay.total}

    def _replay_on(self, message: dict[str, Any]) -> Answer:
        """Replay some more frames of a session. After the last one, it replaces the current session."""
        if self._replay is None:
            raise ProtocolError("no session is being opened", "send a .genie file first")
        replay, steps = self._replay
        self._replay, deadline = None, time.monotonic() + REPLAY_SECONDS  # an error ends the replay
        for done in steps:
            if time.monotonic() > deadline and done < replay.total:
                self._replay = replay, steps
                return {"type": "replay", "done": done, "total": replay.total}
        self.session = session = replay.session
        node = session.node
        session.sampler, self._prompt, self._seed = node.sampler, node.prompt, node.seed
        return protocol.frame(
            session, True, steps=node.sampler.steps, temperature=node.sampler.temperature, seed=node.seed,
            bookmarks=[[id, session.nodes[id].depth] for id in session.bookmarks], drifted=replay.drifted,
        )  # fmt: skip

    def _most_steps(self, session: Session) -> int:
        return max(MAX_STEPS, session.model.sampler.steps)

    def _opened(self) -> Session:
        if self.session is None:
            raise ProtocolError("no model is chosen yet", "send model first")
        return self.session

    def _model(self, message: dict[str, Any]) -> Answer:
        index = whole(message, "index", 0, len(self.models) - 1)
        model = self.models[index]
        self.session = self._replay = None  # free its memory before the next session takes some
        self.session = session = Session(model, self.limits.session_bytes)
        self._prompt = self.prompts[index]
        hp, s = model.info, session.sampler
        return {
            "type": "world",
            "index": index,
            "name": model.name,
            "about": f"{model.type}, {hp.frame_width}x{hp.frame_height}, {model.device}",
            "width": hp.frame_width,
            "height": hp.frame_height,
            "actions": hp.action_count,
            "names": list(hp.action_names or ()),
            "keys": default_keys(hp.action_count, hp.action_names),
            "steps": s.steps,
            "max_steps": max(MAX_STEPS, s.steps),
            "temperature": s.temperature,
            "prompt": self._prompt is not None,
        }

    def _reset(self, message: dict[str, Any]) -> Answer:
        session = self._opened()
        seed = whole(message, "seed", 0, 2**64 - 1, 0)
        if self._prompt is None:
            raise StateError("there is no picture to start from", "drop, choose or draw one")
        session.reset(self._prompt, seed)
        self._seed = seed
        return protocol.frame(session, whole_path=True)

    def _step(self, message: dict[str, Any]) -> Answer:
        session = self._opened()
        session.step(whole(message, "action", 0, session.model.info.choices - 1))
        return protocol.frame(session)

    def _seek(self, message: dict[str, Any]) -> Answer:
        session = self._opened()
        session.seek(whole(message, "depth", 0, 2**53))
        return protocol.frame(session)

    def _settings(self, message: dict[str, Any]) -> Answer:
        session = self._opened()
        most = self._most_steps(session)
        steps, heat = whole(message, "steps", 1, most), number(message, "temperature", 0, 100)
        s = session.sampler
        session.sampler = Sampler(steps, heat, s.order, s.noise, s.threshold)
        return {"type": "settings", "steps": steps, "temperature": heat}

    def _bookmark(self, message: dict[str, Any]) -> Answer:
        node = self._opened().bookmark()
        return {"type": "bookmark", "id": node.id, "depth": node.depth}

    def _go_to(self, message: dict[str, Any]) -> Answer:
        session = self._opened()
        session.go_to(whole(message, "id", 0, 2**53))
        return protocol.frame(session, whole_path=True)

    def _forget(self, message: dict[str, Any]) -> Answer:
        id = whole(message, "id", 0, 2**53)
        self._opened().forget(id)
        return {"type": "forgotten", "id": id}
