"""One client's side of the conversation: turns its messages into calls of a Session."""

from __future__ import annotations

import dataclasses
import importlib.util
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from genie_cpp.errors import StateError
from genie_cpp.model import Model
from genie_cpp.play.explain import explain
from genie_cpp.play.keyboard import default_keys
from genie_cpp.play.session import Prompt, Session
from genie_cpp.play.session_file import Replay, SessionFile
from genie_cpp.sampler import Sampler
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.common.messages import ProtocolError, number, parse, text, whole
from genie_cpp.server.common.pictures import decode
from genie_cpp.server.page import protocol
from genie_cpp.server.page.shelf import Shelf
from genie_cpp.version import __version__

Answer = dict[str, Any] | bytes
REPLAY_SECONDS = 0.5  # between progress messages while a session is replayed
MAX_STEPS = 64  # limit of the slider; more would block a frame for seconds


def recording_kinds() -> list[str]:
    """The formats that recordings can have."""
    video = all(importlib.util.find_spec(name) for name in ("imageio", "imageio_ffmpeg"))
    return ["gif", "webp", "mp4"] if video else ["gif", "webp"]


@dataclasses.dataclass
class Play:
    """A world that a player has played on. `number` is a part of its frames' addresses; an opened session gets a new
    one, because ids of frames begin anew in each."""

    name: str
    number: int
    session: Session
    prompt: Prompt | None
    seed: int = 0


class Player:
    """Answers messages; blocking, so it is called in a thread."""

    def __init__(self, shelf: Shelf, limits: Limits, id: str, invite: Sequence[str] = ()) -> None:
        """invite: addresses at which other machines reach the page."""
        self.shelf, self.limits, self.id, self._invite = shelf, limits, id, invite
        self.plays: dict[str, Play] = {}  # the one shown is last
        self._numbers = 0
        self._replay: tuple[Replay, Iterator[int]] | None = None  # a session that is being replayed
        self._lock = threading.Lock()  # a connection that another took over may still be in a call
        self._answers: dict[str, Callable[[dict[str, Any]], Answer]] = {
            "worlds": self._worlds,
            "world": self._world,
            "fetch": self._fetch,
            "show": self._show,
            "start": self._start,
            "reset": self._reset,
            "step": self._step,
            "seek": self._seek,
            "settings": self._settings,
            "bookmark": self._bookmark,
            "goto": self._go_to,
            "forget": self._forget,
            "explain": self._explain,
            "replay": self._replay_on,
        }

    def hello(self) -> Answer:
        return {
            "type": "hello",
            "version": protocol.VERSION,
            "genie_cpp": __version__,
            "player": self.id,
            "world": next(reversed(self.plays), self.shelf.first),
            "playing": bool(self.plays),
            "worlds": self.shelf.rows(),
            "limits": dataclasses.asdict(self.limits),
            "recordings": recording_kinds(),
            "invite": list(self._invite),
        }

    def text(self, words: str) -> Answer:
        """Raises GenieError."""
        message = parse(words, self.limits.message_bytes)
        answer = self._answers.get(message["type"])
        if answer is None:
            raise ProtocolError(f"unknown type {message['type'][:40]!r}", f"one of {', '.join(self._answers)}")
        with self._lock:
            return answer(message)

    def file(self, data: bytes) -> Answer:
        """Start from a picture, or begin to replay a saved session. Raises GenieError."""
        with self._lock:
            play = self._shown()
            if data.lstrip()[:1] == b"{":  # no picture file begins like this
                return self._open(data, play.session)
            return self._begin(decode(data, play.session.model, self.limits))

    def session_of(self, number: int) -> Session | None:
        """The session whose frames have this number in their addresses."""
        return next((play.session for play in list(self.plays.values()) if play.number == number), None)

    def _shown(self) -> Play:
        if not self.plays:
            raise ProtocolError("no world is chosen yet", "send world first")
        return self.plays[next(reversed(self.plays))]

    def _opened(self) -> Session:
        return self._shown().session

    def _worlds(self, message: dict[str, Any]) -> Answer:
        return {"type": "worlds", "worlds": self.shelf.rows()}

    def _fetch(self, message: dict[str, Any]) -> Answer:
        now = self.shelf.fetch(text(message, "name"))
        return {"type": "fetch", "words": now.words, "done": now.done, "total": now.total, "ready": now.ready}

    def _world(self, message: dict[str, Any]) -> Answer:
        """Show a world: where it was left if it was played on, else before its first frame."""
        name = text(message, "name")
        self._replay = None
        play = self.plays.pop(name, None)
        if play is None:
            while len(self.plays) >= self.limits.plays:
                del self.plays[next(iter(self.plays))]  # free its memory before the next session takes some
            model, prompt = self.shelf.open(name)
            play = self._new(name, Session(model, self.limits.session_bytes), prompt)
        self.plays[name] = play
        model, s = play.session.model, play.session.sampler
        hp = model.info
        return {
            "type": "world",
            "name": name,
            "title": model.called or model.name,
            "about": f"{model.type}, {hp.frame_width}x{hp.frame_height}, {model.device}",
            "width": hp.frame_width,
            "height": hp.frame_height,
            "actions": hp.action_count,
            "names": list(hp.action_names or ()),
            "keys": default_keys(hp.action_count, hp.action_names),
            "sha256": model.sha256,
            "steps": s.steps,
            "max_steps": self._most_steps(model),
            "temperature": s.temperature,
            "seed": play.seed,
            "prompt": play.prompt is not None,
            "played": bool(play.session.path),
            "starts": self.shelf.start_names(name),
        }

    def _new(self, name: str, session: Session, prompt: Prompt | None) -> Play:
        self._numbers += 1
        return Play(name, self._numbers, session, prompt)

    def _show(self, message: dict[str, Any]) -> Answer:
        return self._whole()

    def _whole(self, **more: Any) -> Answer:
        """The frame shown, with all that a page needs to show the session."""
        play = self._shown()
        session = play.session
        marks = [[id, session.nodes[id].depth] for id in session.bookmarks if id in session.nodes]
        s = session.sampler
        return protocol.frame(
            session, play=play.number, path=session.path, bookmarks=marks, seed=play.seed, steps=s.steps,
            temperature=s.temperature, **more,
        )  # fmt: skip

    def _begin(self, prompt: Prompt) -> Answer:
        play = self._shown()
        play.session.reset(prompt, play.seed)
        play.prompt = prompt
        return self._whole()

    def _start(self, message: dict[str, Any]) -> Answer:
        """Start from one of the world's own pictures."""
        play = self._shown()
        prompt = self.shelf.start(play.name, whole(message, "number", 0, 2**20))
        play.seed = whole(message, "seed", 0, 2**64 - 1, play.seed)
        return self._begin(prompt)

    def _reset(self, message: dict[str, Any]) -> Answer:
        """Start again from the picture that led to the frame shown."""
        play = self._shown()
        seed = whole(message, "seed", 0, 2**64 - 1, 0)
        prompt = play.session.node.prompt if play.session.path else play.prompt
        if prompt is None:
            raise StateError("there is no picture to start from", "drop, choose or draw one")
        play.seed = seed
        return self._begin(prompt)

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
        most = self._most_steps(session.model)
        steps, heat = whole(message, "steps", 1, most), number(message, "temperature", 0, 100)
        s = session.sampler
        session.sampler = Sampler(steps, heat, s.order, s.noise, s.threshold)
        return {"type": "settings", "steps": steps, "temperature": heat}

    def _most_steps(self, model: Model) -> int:
        return max(MAX_STEPS, model.sampler.steps)

    def _bookmark(self, message: dict[str, Any]) -> Answer:
        node = self._opened().bookmark()
        return {"type": "bookmark", "id": node.id, "depth": node.depth}

    def _go_to(self, message: dict[str, Any]) -> Answer:
        play = self._shown()
        play.session.go_to(whole(message, "id", 0, 2**53))
        play.seed = play.session.node.seed
        return self._whole()

    def _forget(self, message: dict[str, Any]) -> Answer:
        id = whole(message, "id", 0, 2**53)
        self._opened().forget(id)
        return {"type": "forgotten", "id": id}

    def _explain(self, message: dict[str, Any]) -> Answer:
        """How the frame shown was made, token by token."""
        session = self._opened()
        found, node = explain(session), session.node
        columns, rows = session.model.info.grid("dynamics")
        return {
            "type": "explain",
            "id": node.id,
            "columns": columns,
            "rows": rows,
            "steps": found.steps,
            "tokens": found.tokens_P.tolist(),
            "filled": found.filled_P.tolist(),
            "bits": [round(float(bits), 3) for bits in found.bits_P],
            "looked": None
            if found.looked_PA is None
            else [[round(float(x), 3) for x in row] for row in found.looked_PA],
        }

    def _open(self, data: bytes, session: Session) -> Answer:
        file, most = SessionFile.from_bytes(data), self._most_steps(session.model)
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
        session, name = replay.session, self._shown().name
        node = session.node
        session.sampler = node.sampler
        self.plays[name] = play = self._new(name, session, node.prompt)
        play.seed = node.seed
        return self._whole(drifted=replay.drifted)
