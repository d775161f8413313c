"""`.genie`: a session as a recipe. It holds prompts, actions, settings and a digest of each frame, but no frames.

Replayed on the same model and instruction set, it gives the same frames, byte for byte. docs/play.md has the format.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genie_cpp.errors import OutputError, SamplerError, StateError
from genie_cpp.file import foreign
from genie_cpp.frames import decode_image, fit
from genie_cpp.leftovers import file_beside
from genie_cpp.model import Model
from genie_cpp.play.session import MAX_BOOKMARKS, Node, Prompt, Session, pixels, png
from genie_cpp.sampler import Sampler
from genie_cpp.version import __version__
from genie_cpp.words import quoted
from genie_cpp.world import WINDOWS, World

KEY = "genie_session"
MAGIC = f'{{"{KEY}": '.encode()
MAX_BYTES = 64 << 20
MAX_FRAMES = 100_000
_MAX_VALUES = 10 * MAX_FRAMES
_VERSION = 1
_DIGEST = 32  # hexadecimal digits of a frame's SHA-256


@dataclass(frozen=True)
class Root:
    """What a line of frames starts from: a picture, or the saved state of a frame whose history was not kept."""

    picture: bytes  # PNG; empty for a state
    seed: int
    state: bytes  # World.save; empty for a picture
    depth: int


@dataclass(frozen=True)
class Saved:
    """A frame: parent is an index into `frames`, or -1 - r for root r."""

    parent: int
    action: int
    sampler: int
    digest: str


@dataclass(frozen=True)
class SessionFile:
    """A session as it was saved. Parents come before their children. Bookmarks, `shown` and `newest` (the end of the
    path that `shown` is on) are indices of frames."""

    version: str
    model_name: str
    model_sha256: str
    isa: str
    window: str
    roots: list[Root]
    samplers: list[Sampler]
    frames: list[Saved]
    bookmarks: list[int]
    shown: int
    newest: int

    @staticmethod
    def of(session: Session) -> SessionFile:
        """Everything that leads to the path's newest frame and to the bookmarks. Raises StateError before `reset`."""
        nodes, model = dict(session.nodes), session.model
        shown, path = session.node.id, list(session.path)
        wanted = set(path)
        for mark in session.bookmarks:
            at: Node | None = nodes.get(mark)
            while at is not None and at.id not in wanted:
                wanted.add(at.id)
                at = None if at.parent is None else nodes.get(at.parent)
        roots: list[Root] = []
        samplers: list[Sampler] = []
        frames: list[Saved] = []
        places: dict[int, int] = {}
        for id in sorted(wanted):  # oldest first
            node = nodes[id]
            if node.sampler not in samplers:
                samplers.append(node.sampler)
            parent = places.get(-1 if node.parent is None else node.parent)
            if parent is None:
                parent = -1 - len(roots)
                if node.parent is None:
                    hp = model.info
                    picture = fit(node.prompt.picture, hp.frame_width, hp.frame_height, node.prompt.fit)
                    roots.append(Root(png(picture), node.seed, b"", 0))
                else:
                    roots.append(Root(b"", node.seed, zlib.decompress(node.state), node.depth))
            places[id] = len(frames)
            frames.append(Saved(parent, node.action, samplers.index(node.sampler), digest(node)))
        marks = [places[id] for id in session.bookmarks]
        return SessionFile(
            __version__, model.name, model.sha256, model.isa, session.world.window, roots, samplers, frames, marks,
            places[shown], places[path[-1]],
        )  # fmt: skip

    def save(self, path: Path) -> None:
        """Write it, whole or not at all. Raises OutputError."""
        part = file_beside(path)
        try:
            part.write_bytes(self.to_bytes())
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OutputError(f"{quoted(str(path))} cannot be written: {error.strerror or error}") from None

    def to_bytes(self) -> bytes:
        """JSON in ASCII. The same session gives the same bytes."""
        roots = [
            {
                "picture": base64.b64encode(root.picture).decode(),
                "seed": root.seed,
                "state": base64.b64encode(root.state).decode(),
                "depth": root.depth,
            }
            for root in self.roots
        ]
        data = {
            KEY: _VERSION,
            "version": self.version,
            "model": {"name": self.model_name, "sha256": self.model_sha256},
            "isa": self.isa,
            "window": self.window,
            "roots": roots,
            "samplers": [dataclasses.asdict(sampler) for sampler in self.samplers],
            "frames": [[f.parent, f.action, f.sampler, f.digest] for f in self.frames],
            "bookmarks": self.bookmarks,
            "shown": self.shown,
            "newest": self.newest,
        }
        return json.dumps(data).encode("ascii") + b"\n"

    @staticmethod
    def from_bytes(data: bytes) -> SessionFile:
        """Raises StateError. What depends on the model is checked by `Replay`."""
        if len(data) > MAX_BYTES:
            raise StateError(f"the session file has {len(data)} bytes; {MAX_BYTES >> 20} MiB are the limit")
        if found := foreign.described(data[: foreign.HEAD]):
            raise StateError(f"this is {found[0]}", found[1])
        try:
            # Each value needs a comma, colon or bracket. Data with more than any session is not parsed.
            if sum(data.count(sign) for sign in b",:[{") > _MAX_VALUES:
                raise ValueError(f"more than {_MAX_VALUES} values")
            return _checked(json.loads(data))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError, SamplerError, AttributeError) as error:
            why = " ".join(str(error).split())[:100]
            raise StateError(f"not a session file: {why}", "genie-play saves them, as .genie") from None

    @staticmethod
    def load(path: Path) -> SessionFile:
        """Raises StateError, or OSError if the file cannot be read."""
        with path.open("rb") as file:
            return SessionFile.from_bytes(file.read(MAX_BYTES + 1))

    def line(self, index: int) -> list[int]:
        """The frames from the root to a frame, whose own index is last."""
        found = []
        while index >= 0:
            found.append(index)
            index = self.frames[index].parent
        return found[::-1]

    def depth(self, index: int) -> int:
        """Steps from a frame's prompt to the frame."""
        line = self.line(index)
        return self.roots[-1 - self.frames[line[0]].parent].depth + len(line) - 1

    def at(self, bookmark: int) -> int:
        """The frame of a bookmark (1 is the first); 0: the frame that was shown. Raises StateError."""
        if not 0 <= bookmark <= len(self.bookmarks):
            count = len(self.bookmarks)
            raise StateError(f"there is no bookmark {bookmark}", f"the session has {count}; 0 is where it was left")
        return self.bookmarks[bookmark - 1] if bookmark else self.shown


class Replay:
    """Makes a session again from its file, one frame at a time: `for done in replay.steps(): …`.

    `drifted`: how many frames came out different, which is possible only on another instruction set.
    """

    def __init__(self, file: SessionFile, model: Model, max_bytes: int | None = None, to: int | None = None) -> None:
        """to: replay only the frames that lead to this one. Raises StateError for another model."""
        if file.model_sha256 != model.sha256:
            raise StateError(f"the session was played on another model, {file.model_name!r}", "open that one")
        self.file, self.model = file, model
        self.session = Session(model) if max_bytes is None else Session(model, max_bytes)
        if self.session.world.window != file.window:
            self.session.world = World(model, window=file.window)
        self.drifted = 0
        self._wanted: Iterable[int] = range(len(file.frames)) if to is None else file.line(to)
        self.total = len(file.frames) if to is None else len(file.line(to))
        self._shown, self._newest = (file.shown, file.newest) if to is None else (to, to)

    def steps(self) -> Iterator[int]:
        """Make one frame after another; yields how many are made. Raises StateError if a digest differs."""
        session, file, ids = self.session, self.file, dict[int, int]()
        count, marks = self.model.info.choices, set(file.bookmarks)
        for done, index in enumerate(self._wanted, 1):
            frame = file.frames[index]
            session.sampler = file.samplers[frame.sampler]
            if frame.parent < 0:
                node = self._start(file.roots[-1 - frame.parent], frame)
            else:
                if not 0 <= frame.action < count:
                    raise StateError("the session file names an action that the model does not have")
                if session.node.id != ids[frame.parent]:
                    session.go_to(ids[frame.parent])
                node = session.step(frame.action)
            if digest(node) != frame.digest:
                if file.isa == self.model.isa:
                    raise StateError(
                        f"frame {index} of the session file is not what its recipe gives", "it was damaged"
                    )
                self.drifted += 1
            ids[index] = node.id
            if index in marks:
                session.bookmark()
            yield done
        # If memory is short, old frames have been dropped for new ones. The newest is always kept.
        kept = {index: id for index, id in ids.items() if id in session.nodes}
        session.bookmarks = [kept[index] for index in file.bookmarks if index in kept]
        session.go_to(ids[self._newest])
        if self._shown in kept and kept[self._shown] in session.path:
            session.seek(session.nodes[kept[self._shown]].depth)

    def run(self) -> Session:
        """Replay everything."""
        for _ in self.steps():
            pass
        return self.session

    def _start(self, root: Root, frame: Saved) -> Node:
        if root.picture:
            hp = self.model.info
            size = hp.frame_width * hp.frame_height  # already fitted; it may be smaller than the least prompt size
            prompt = Prompt(decode_image(root.picture, 4 * size, least_side=1))
            return self.session.reset(prompt, root.seed)
        return self.session.adopt(root.state, root.depth, frame.action)


def digest(node: Node) -> str:
    """Of a frame's pixels."""
    return hashlib.sha256(pixels([node.png])[0].tobytes()).hexdigest()[:_DIGEST]


def _whole(value: Any, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{str(value)[:20]} is not an integer in {least}…{most}")
    return value


def _text(value: Any, most: int = 1000) -> str:
    if type(value) is not str or len(value) > most:
        raise ValueError("a text is missing or too long")
    return value


def _checked(data: dict[str, Any]) -> SessionFile:
    if _whole(data[KEY], 0, 2**31) != _VERSION:
        raise ValueError(f"version {data[KEY]}; this package reads {_VERSION}")
    roots = [
        Root(
            base64.b64decode(_text(r["picture"], MAX_BYTES), validate=True), _whole(r["seed"], 0, 2**64 - 1),
            base64.b64decode(_text(r["state"], MAX_BYTES), validate=True), _whole(r["depth"], 0, 2**53),
        )
        for r in data["roots"]
    ]  # fmt: skip
    samplers = [Sampler(**s) for s in data["samplers"]]
    frames: list[Saved] = []
    begun = set()
    for index, (parent, action, sampler, digest) in enumerate(data["frames"]):
        if index == MAX_FRAMES:
            raise ValueError(f"more than {MAX_FRAMES} frames")
        _whole(parent, -len(roots), index - 1)
        if parent < 0:
            if parent in begun:
                raise ValueError("two frames start from one root")
            begun.add(parent)
        frames.append(
            Saved(parent, _whole(action, -1, 2**31), _whole(sampler, 0, len(samplers) - 1), _text(digest, _DIGEST))
        )
    if any(bool(root.picture) == bool(root.state) for root in roots):
        raise ValueError("a root is either a picture or a state")
    bookmarks = [_whole(mark, 0, len(frames) - 1) for mark in data["bookmarks"]]
    if len(bookmarks) > MAX_BOOKMARKS or len(set(bookmarks)) < len(bookmarks):
        raise ValueError(f"bookmarks are at most {MAX_BOOKMARKS}, each once")
    if data["window"] not in WINDOWS:
        raise ValueError("an unknown window policy")
    model = data["model"]
    file = SessionFile(
        _text(data["version"]), _text(model["name"]), _text(model["sha256"], 64), _text(data["isa"], 32),
        data["window"], roots, samplers, frames, bookmarks,
        _whole(data["shown"], 0, len(frames) - 1), _whole(data["newest"], 0, len(frames) - 1),
    )  # fmt: skip
    if file.shown not in file.line(file.newest):
        raise ValueError("the frame shown is not on the path")
    return file
