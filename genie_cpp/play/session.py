"""A world with its history: any earlier frame can be shown, bookmarked, branched from, or exported."""

from __future__ import annotations

import io
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from genie_cpp.actions import format_actions
from genie_cpp.catalog.bundled import START, find_start, start_name
from genie_cpp.errors import StateError
from genie_cpp.frames import fit, load_image, sha256
from genie_cpp.model import Frame, Model
from genie_cpp.play.recipe import Played, Recipe
from genie_cpp.sampler import Sampler
from genie_cpp.version import __version__
from genie_cpp.world import World

MAX_BYTES = 64 << 20  # of stored frames and states in one session
MAX_BOOKMARKS = 64
_GONE = -1  # the parent id of a frame whose history is not kept
_NODE_BYTES = 512  # memory of the Python objects around a frame and its state


@dataclass(frozen=True)
class Prompt:
    """The picture a world starts from, before it is fitted. `path` is empty if it is not from a file."""

    picture: Frame
    path: str = ""
    sha256: str = ""
    fit: str = "crop"

    @staticmethod
    def load(path: Path, fit: str = "crop") -> Prompt:
        """Raises ImageError."""
        return Prompt(load_image(path), str(path), sha256(path), fit)

    @staticmethod
    def of(model: Model, name: Path, fit: str = "crop") -> Prompt:
        """A picture by its path, or a start picture of the model by its name, "start:village". Raises ImageError."""
        if not str(name).startswith(START):
            return Prompt.load(name, fit)
        path = find_start(model.path, str(name))
        return Prompt(load_image(path), start_name(path), sha256(path), fit)

    @staticmethod
    def beside(model: Model) -> Prompt | None:
        """The first of a model's start pictures; None if it has none."""
        path = next(iter(model.starts), None)
        return None if path is None else Prompt(load_image(path), start_name(path), sha256(path))


@dataclass(frozen=True)
class Node:
    """A frame that was shown. depth: steps since its prompt. action: what led to it; -1 for the prompt frame."""

    id: int
    parent: int | None
    depth: int
    action: int
    png: bytes
    state: bytes  # of World.save, compressed
    sampler: Sampler
    prompt: Prompt
    seed: int

    @property
    def n_bytes(self) -> int:
        return len(self.png) + len(self.state) + _NODE_BYTES


class Session:
    """One player's world. Frames form a tree. `path` leads from a prompt to the newest frame; `node` is the one shown.

    Going back costs nothing: the world goes back only when a step is taken from there. Not thread-safe.
    """

    def __init__(self, model: Model, max_bytes: int = MAX_BYTES) -> None:
        self.model = model
        self.world = World(model)
        self.sampler = model.sampler
        self.nodes: dict[int, Node] = {}  # oldest first
        self.path: list[int] = []
        self.bookmarks: list[int] = []
        self.times: dict[str, float] = {}  # seconds of the last step, by stage
        self._shown = 0  # index in path
        self._at = -1  # id of the node that the world's state belongs to
        self._next = 0
        self._bytes, self._max_bytes = 0, max_bytes

    @property
    def node(self) -> Node:
        if not self.path:
            raise StateError("the world has no frame yet", "start it with a picture")
        return self.nodes[self.path[self._shown]]

    @property
    def n_bytes(self) -> int:
        """Bytes of stored frames and states."""
        return self._bytes

    def reset(self, prompt: Prompt, seed: int = 0) -> Node:
        """Start from a picture. Earlier bookmarks stay. Raises what `World.reset` raises."""
        hp = self.model.info
        frame = self.world.reset(fit(prompt.picture, hp.frame_width, hp.frame_height, prompt.fit), seed)
        self.path, self._shown, self.times = [], 0, {}
        return self._add(frame, None, 0, -1, prompt, seed)

    def adopt(self, state: bytes, depth: int, action: int = -1) -> Node:
        """Start from the bytes of `World.save`, at a depth: a frame without history. Raises StateError."""
        frame = self.world.restore(state)
        self.path, self._shown, self.times = [], 0, {}
        return self._add(frame, _GONE, depth, action, Prompt(frame), self.world.seed)

    def step(self, action: int) -> Node:
        """Make the frame after the one shown. Later frames leave the path. Raises ActionError, StateError."""
        node, started = self.node, time.perf_counter()
        if self._at != node.id:
            if not self.world.rewind(self._behind(node.id)):
                self.world.restore(zlib.decompress(node.state))
            self._at = node.id
        restored = time.perf_counter()
        self.world.sampler = self.sampler
        before = dict(self.world.timings)
        frame = self.world.step(action)
        spent = {name: seconds - before[name] for name, seconds in self.world.timings.items()}
        kept = time.perf_counter()
        del self.path[self._shown + 1 :]
        made = self._add(frame, node.id, node.depth + 1, action, node.prompt, node.seed)
        self.times = {
            "restore": restored - started,
            "window": spent["window"],
            "maskgit": spent["maskgit"],
            "commit": spent["dynamics"] - spent["maskgit"],
            "decode": spent["decode"],
            "keep": time.perf_counter() - kept,
        }
        return made

    def seek(self, depth: int) -> Node:
        """Show the frame of the path at a depth, or the nearest one that is still kept."""
        self._shown = min(max(depth - self.nodes[self.path[0]].depth, 0), len(self.path) - 1) if self.path else 0
        return self.node

    def bookmark(self) -> Node:
        """Bookmark the frame shown. Raises StateError if there are too many bookmarks."""
        node = self.node
        if node.id not in self.bookmarks:
            if len(self.bookmarks) >= MAX_BOOKMARKS:
                raise StateError(f"{MAX_BOOKMARKS} bookmarks are the limit", "remove one")
            self.bookmarks.append(node.id)
        return node

    def go_to(self, id: int) -> Node:
        """Show a frame by its id; `path` becomes the path to it. Raises StateError."""
        if id not in self.nodes:
            raise StateError("this frame is no longer kept")
        self.path = self._line(id)
        self._shown = len(self.path) - 1
        return self.node

    def forget(self, id: int) -> None:
        """Remove a bookmark. Raises StateError."""
        if id not in self.bookmarks:
            raise StateError("there is no such bookmark")
        self.bookmarks.remove(id)

    def recording(self, first: int, last: int, fps: int, scale: int) -> tuple[list[bytes], Recipe | Played]:
        """PNGs from a frame to a later one on its path (both by id), and their description. Raises StateError.

        If the path starts at a prompt from a file and the sampler never changed, the description is a recipe, with
        which `genie-run` makes the same file.
        """
        line = self._line(last) if last in self.nodes else []
        if first not in line:
            raise StateError("these frames are no longer kept")
        nodes = [self.nodes[id] for id in line[line.index(first) :]]
        start, steps = nodes[0], nodes[1:]
        actions = format_actions([node.action for node in steps])
        says: Recipe | Played = Played(__version__, self.model.name, self.model.sha256, actions, fps, scale)
        s = steps[0].sampler if steps else start.sampler
        if start.parent is None and start.prompt.path and steps and all(node.sampler == s for node in steps):
            says = Recipe(
                version=__version__, model=self.model.reference, model_sha256=self.model.sha256,
                prompt=start.prompt.path, prompt_sha256=start.prompt.sha256, fit=start.prompt.fit, seed=start.seed,
                actions=actions, steps=s.steps, temperature=float(s.temperature), order=s.order, noise=float(s.noise),
                threshold=float(s.threshold), window=self.world.window, isa=self.model.isa, fps=fps, scale=scale,
                backend=self.model.backend,
            )  # fmt: skip
        return [node.png for node in nodes], says

    def _behind(self, id: int) -> int:
        """How many steps a frame is behind the world's own frame; 0 if it is not behind it, or too far."""
        at = self.nodes.get(self._at)
        for steps in range(self.model.info.context_length):
            if at is None or at.id == id:
                return steps if at else 0
            at = self.nodes.get(at.parent) if at.parent is not None else None
        return 0

    def _line(self, id: int) -> list[int]:
        line, at = [], self.nodes.get(id)
        while at is not None:
            line.append(at.id)
            at = self.nodes.get(at.parent) if at.parent is not None else None
        return line[::-1]

    def _add(self, frame: Frame, parent: int | None, depth: int, action: int, prompt: Prompt, seed: int) -> Node:
        state = zlib.compress(self.world.save(), 1)
        node = Node(self._next, parent, depth, action, png(frame), state, self.sampler, prompt, seed)
        self._next += 1
        self.nodes[node.id] = node
        self._bytes += node.n_bytes
        self.path.append(node.id)
        self._shown, self._at = len(self.path) - 1, node.id
        if self._bytes > self._max_bytes:
            self._evict()
        return node

    def _evict(self) -> None:
        """Drop frames that no path or bookmark needs. Then drop the oldest unmarked ones, down to 7/8 of the limit."""
        wanted = set(self.path)
        for id in self.bookmarks:
            wanted.update(self._line(id))
        for id in [id for id in self.nodes if id not in wanted]:
            self._bytes -= self.nodes.pop(id).n_bytes
        spared = {*self.bookmarks, self.path[self._shown]}
        for id in [id for id in self.nodes if id not in spared]:
            if self._bytes <= self._max_bytes // 8 * 7:
                break
            self._bytes -= self.nodes.pop(id).n_bytes
        shown = self.path[self._shown]
        # A bookmark may be cut off from its history, so the path is only what is connected to the frame shown.
        self.path = self._line(shown)
        self._shown = len(self.path) - 1


def png(frame: Frame) -> bytes:
    """uint8 [H, W, 3] -> the bytes of a PNG. Fast, with little compression."""
    out = io.BytesIO()
    Image.fromarray(frame).save(out, "PNG", compress_level=1)
    return out.getvalue()


def pixels(pngs: Sequence[bytes]) -> list[Frame]:
    """The inverse of `png`, for several pictures."""
    frames = []
    for data in pngs:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            frames.append(np.asarray(image.convert("RGB"), np.uint8).copy())
    return frames
