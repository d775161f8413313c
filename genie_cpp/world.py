"""A world in play: reset it with a picture, step it with actions."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from genie_cpp import window as windows
from genie_cpp.actions import action_number
from genie_cpp.backends import _native
from genie_cpp.errors import ActionError, ImageError, SamplerError, StateError
from genie_cpp.model import Frame, Ids, Model
from genie_cpp.sampler import Sampler
from genie_cpp.saved_world import SavedWorld

WINDOWS = tuple(windows.POLICIES)
Floats = NDArray[np.float32]
# step, tokens before and after, logits, where each token looked
Watch = Callable[[int, Ids, Ids, Floats, Floats | None], None]


class World:
    """One game on a model. Not thread-safe; several worlds can share one model.

    The same model, prompt, seed, actions, sampler and window give the same frames, byte for byte. This holds for any
    number of threads and across `save`, `restore` and `fork`, on one instruction set, or with one MLX on one GPU.
    """

    def __init__(self, model: Model, sampler: Sampler | None = None, window: str | None = None) -> None:
        """window: what happens when it is full, "half" (drop the older half) or "exact" (drop one frame). Or
        "retokenize": before each frame the last frames are tokenized again from their pixels. See docs/sampling.md."""
        if not isinstance(model, Model):
            raise StateError(f"a world is made on a Model, not on {type(model).__name__}", "World.load(path) opens one")
        self.model = model
        self.sampler = model.sampler if sampler is None else sampler
        window = window or model.info.window_policy
        if window not in WINDOWS:
            raise StateError(f"window must be one of {', '.join(WINDOWS)}, not {window!r}")
        self._lock = threading.Lock()
        self._window = windows.of(model, window)
        self._frame_number = 0  # frames since the first frame of the prompt
        self._seed = 0
        self._frame: Frame | None = None
        self.timings: dict[str, float] = {}
        self._clear_timings()

    @property
    def window(self) -> str:
        """What happens when the window is full: "half", "exact" or "retokenize"."""
        return self._window.policy

    @staticmethod
    def load(
        path: str | Path | None = None,
        threads: int | None = None,
        sampler: Sampler | None = None,
        window: str | None = None,
        backend: str = "auto",
        force: bool = False,
    ) -> World:
        """Open a model (a path, or a bundled world's name; None: the default world) and make a world on it.

        Raises what `Model.open` raises."""
        return World(Model.open(path, threads, backend, force), sampler, window)

    @property
    def prompts(self) -> NDArray[np.uint8]:
        """The pictures that the world can start from, fitted: uint8 [N, H, W, 3]; N can be 0. Raises ImageError."""
        hp = self.model.info
        pictures = [self._start(path) for path in self.model.starts]
        return np.stack(pictures) if pictures else np.empty((0, hp.frame_height, hp.frame_width, 3), np.uint8)

    def _start(self, path: Path) -> NDArray[np.uint8]:
        from genie_cpp.frames import fit, load_image  # Pillow, which a world given arrays does without

        return fit(load_image(path), self.model.info.frame_width, self.model.info.frame_height)

    def reset(
        self, images: NDArray[np.uint8] | None = None, seed: int = 0, actions: Iterable[int] | None = None
    ) -> Frame:
        """Start from a picture uint8 [H, W, 3], or from frames [T, H, W, 3]; at most the last context_length are used.

        images: None takes the first of `prompts`.
        actions: the T-1 actions between the frames; by default the LAM infers them. seed: 0…2^64-1.
        Returns the last frame as the tokenizer sees it, uint8 [H, W, 3]. Raises ImageError, ActionError, StateError.
        """
        seed = _seed(seed)
        if images is None:
            first = next(iter(self.model.starts), None)
            if first is None:
                raise ImageError("this world has no pictures of its own to start from", "give one to reset")
            images = self._start(first)
        video = np.asarray(images)
        if video.dtype != np.uint8:
            hint = "genie_cpp.frames.load_image reads a file, frames.fit makes it fit"
            raise ImageError(f"a prompt must be uint8 [H, W, 3] or [T, H, W, 3], not {video.dtype}", hint)
        video = video[None] if video.ndim == 3 else video
        if video.ndim != 4 or not len(video):
            raise ImageError(f"a prompt must be [H, W, 3] or [T, H, W, 3], not of shape {video.shape}")
        video = video[-self.model.info.context_length :]
        with self._lock:
            started = time.perf_counter()
            ids = self.model.tokenize(video)
            if len(video) == 1 or self.model.info.action_count == 0:
                led: list[int] = [-1] * (len(video) - 1)
            elif actions is None:
                led = self.model.infer_actions(video).tolist()
            else:
                led = [self._checked(a) for a in actions][-(len(video) - 1) :]
                if len(led) != len(video) - 1:
                    raise ActionError(f"{len(video)} prompt frames need {len(video) - 1} actions, not {len(led)}")
            self._clear_timings()
            self.timings["tokenize"] = time.perf_counter() - started
            inferred = len(led) if actions is None and self.model.info.action_count else 0
            pixels = [self.model.patches(frame, self.model.info.tokenizer_patch_size) for frame in video]
            self._frame_number, self._seed = len(ids), seed
            return self._show(self._window.begin(list(ids), [-1, *led], inferred, pixels))

    def reset_tokens(self, ids: NDArray[np.integer[Any]], seed: int = 0, actions: Iterable[int] | None = None) -> Frame:
        """Start from frames that are already tokens: ids [T, P] in 0…codebook_size-1. Only the last context_length
        are used.

        actions: the T-1 actions between them; required if the world has actions and T > 1. The window "retokenize" is
        not possible, because it needs pixels. Returns the last frame. Raises ActionError, StateError.
        """
        seed = _seed(seed)
        hp, ids = self.model.info, np.asarray(ids)
        if self.window == "retokenize":
            raise StateError(
                "the window retokenize starts from pictures, not tokens", "choose the window half or exact"
            )
        ok = ids.ndim == 2 and len(ids) > 0 and ids.shape[1] == self.model.token_count and ids.dtype.kind in "iu"
        if not ok or ids.min() < 0 or ids.max() >= hp.codebook_size:
            raise StateError(
                f"tokens must be whole numbers [frames, {self.model.token_count}] in 0…{hp.codebook_size - 1}, not "
                f"{ids.dtype} of shape {ids.shape}" + (f" in {ids.min()}…{ids.max()}" if ok else "")
            )
        ids = ids[-hp.context_length :]
        led = [self._checked(a) for a in actions or ()][-(len(ids) - 1) :] if len(ids) > 1 else []
        if hp.action_count == 0:
            led = [-1] * (len(ids) - 1)
        elif len(led) != len(ids) - 1:
            raise ActionError(f"{len(ids)} prompt frames need {len(ids) - 1} actions, not {len(led)}")
        with self._lock:
            self._clear_timings()
            self._frame_number, self._seed = len(ids), seed
            return self._show(self._window.begin(list(ids.astype(np.int32)), [-1, *led], 0))

    def step(self, action: SupportsIndex | str = 0, watch: Watch | None = None) -> Frame:
        """The next frame, uint8 [H, W, 3], after `action`: 0…action_count-1 or an action name of the model. A world
        without actions takes 0 and continues on its own.

        watch: called after each MaskGIT step with the step's number, the tokens [P] before and after it (those not yet
        known are `codebook_size`), the logits [P, vocabulary] they were sampled from, and the share of attention that
        each token gave to each frame [P, frames]: 0 is the new frame, 1 the one before it, and so on; None if the
        backend does not tell. Raises ActionError, StateError."""
        action = self._checked(action)
        with self._lock:
            window = self._window
            if not window.ids:
                raise StateError("the world has no frame yet", "call reset(image) first")
            started = time.perf_counter()
            window.make_room()
            slid = time.perf_counter()
            ids = self._sampled(action, watch)
            stepped = time.perf_counter()
            window.prediction.end(ids, action, window.keeps_next)
            sampled = time.perf_counter()
            self._frame_number += 1
            frame = self._show(window.add(ids, action))
            done = time.perf_counter()
            self.timings["window"] += slid - started
            self.timings["maskgit"] += stepped - slid
            self.timings["dynamics"] += sampled - slid
            self.timings["decode"] += done - sampled
            self.timings["frames"] += 1
            return frame

    def _sampled(self, action: int, watch: Watch | None) -> Ids:
        """The tokens of the next frame, by MaskGIT."""
        s, hp, seen = self.sampler, self.model.info, self._window.prediction
        unknown = hp.codebook_size
        ids = np.full(self.model.token_count, unknown, np.int32)
        struct = _native.sampler_struct(s.steps, s.temperature, s.order, s.noise, s.threshold, hp.sampler_schedule)
        early = s.threshold > 0 or hp.sampler_schedule == "exponential"  # any step may be the last
        logits = np.empty((self.model.token_count, hp.vocabulary), np.float32) if watch else None
        looked_PT = np.zeros((self.model.token_count, hp.context_length), np.float32) if watch else None
        if looked_PT is not None and not seen.dynamics.watch(looked_PT):
            looked_PT = None  # this backend does not tell
        try:
            seen.begin(self._window.ids[-1], action)
            for step in range(s.steps):
                before = ids.copy() if watch else ids
                seen.step(struct, step, self._seed, self._frame_number, action, ids, logits)
                self.timings["steps"] += 1
                if watch is not None and logits is not None:
                    looked = None if looked_PT is None else seen.ages(looked_PT)
                    watch(step, before, ids.copy(), logits.copy(), looked)
                if early and not (ids == unknown).any():
                    break
        finally:
            if looked_PT is not None:
                seen.dynamics.watch(None)
        return ids

    def rollout(self, actions: Iterable[SupportsIndex | str]) -> NDArray[np.uint8]:
        """Calls `step` for each action: uint8 [n, H, W, 3]."""
        frames = [self.step(action) for action in actions]
        hp = self.model.info
        return np.stack(frames) if frames else np.empty((0, hp.frame_height, hp.frame_width, 3), np.uint8)

    @property
    def frame(self) -> Frame:
        """The newest frame, uint8 [H, W, 3]."""
        if self._frame is None:
            raise StateError("the world has no frame yet", "call reset(image) first")
        return self._frame.copy()

    @property
    def tokens(self) -> Ids:
        """Token ids of the newest frame, int32 [P]."""
        if not self._window.ids:
            raise StateError("the world has no frame yet", "call reset(image) first")
        return self._window.ids[-1].copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits of the newest frame's last MaskGIT step, float32 [P, vocabulary] (of `Model.info`).

        Steps keep no logits, so the first call after a `step` runs its last MaskGIT step again.
        """
        with self._lock:
            logits = self._window.prediction.logits(self._window.ids, self._window.actions)
            if logits is None:
                raise StateError("no frame has been generated yet", "call step(action) first")
            return logits.copy()

    @property
    def n_frames(self) -> int:
        """Frames since the start of the prompt, prompt frames included."""
        return self._frame_number

    @property
    def seed(self) -> int:
        """Seed of the random numbers, 0…2^64-1: from `reset`, or from a restored state."""
        return self._seed

    @property
    def sampler(self) -> Sampler:
        """How the next frames are sampled; can be set at any time. Raises SamplerError for any other type."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        if not isinstance(sampler, Sampler):
            raise SamplerError(f"a sampler is a genie_cpp.Sampler, not {type(sampler).__name__}")
        self._sampler = sampler

    def __repr__(self) -> str:
        s = self._sampler
        at = f"frame {self._frame_number}, seed {self._seed}" if self._window.ids else "not reset yet"
        return f"<World on {self.model!r}: {at}; {s.steps} steps, temperature {s.temperature:g}, {s.order}>"

    def __copy__(self) -> World:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        return self.fork()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.model, self._sampler, self.window, self.save() if self._window.ids else None)

    def fork(self) -> World:
        """A copy of this world in its present state, independent of this one."""
        with self._lock:
            other = World(self.model, self.sampler, self.window)
            other._window.copy_from(self._window)
            other._frame_number, other._seed = self._frame_number, self._seed
            other._frame = None if self._frame is None else self._frame.copy()
            return other

    def rewind(self, frames: int) -> bool:
        """Undo the last `frames` steps, exactly and without replay. Returns False and does nothing if the window has
        slid since then, or if this world did not make those steps. In that case use `restore` with a saved state."""
        with self._lock:
            patches = self._window.rewind(frames)
            if patches is None:
                return False
            self._frame_number -= frames
            self._show(patches)
            return True

    def save(self) -> bytes:
        """The state as bytes: the window's tokens and actions, seed, frame number and settings. Not the model."""
        with self._lock:
            window = self._window
            if not window.ids:
                raise StateError("the world has no frame yet", "call reset(image) first")
            pixels = np.stack(window.pixels) if window.policy == "retokenize" else None
            return SavedWorld(
                self._seed, self._frame_number, window.policy, self.sampler, np.stack(window.ids), window.actions,
                window.inferred, pixels,
            ).to_bytes(self.model)  # fmt: skip

    def restore(self, state: bytes) -> Frame:
        """Go back to a state saved with the same model on the same backend; returns its newest frame.

        Raises StateError.
        """
        saved = SavedWorld.from_bytes(state, self.model)
        with self._lock:
            self._seed, self._frame_number, self.sampler = saved.seed, saved.frame_number, saved.sampler
            if saved.window != self.window:
                self._window = windows.of(self.model, saved.window)
            pixels = () if saved.pixels is None else list(saved.pixels)
            return self._show(self._window.begin(list(saved.ids), saved.actions, saved.inferred, pixels))

    def _checked(self, action: Any) -> int:
        number = action_number(action, self.model.info.choices, self.model.info.action_names)
        return number if self.model.info.action_count else -1

    def _show(self, patches: windows.Patches) -> Frame:
        self._frame = self.model.pixels(patches)
        return self.frame

    def _clear_timings(self) -> None:
        """Since `reset`: seconds of tokenize, window (sliding), dynamics (includes maskgit), decode; frames; steps."""
        names = ("tokenize", "window", "dynamics", "maskgit", "decode", "frames", "steps")
        self.timings = dict.fromkeys(names, 0.0)


def _seed(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        raise StateError(f"the seed must be a whole number, not {seed!r}") from None
    if not 0 <= number < 1 << 64:
        raise StateError(f"the seed must be in 0…2^64-1, not {number}")
    return number


def _unpickled(model: Model, sampler: Sampler, window: str, state: bytes | None) -> World:
    """Unpickle a world from its model and the bytes of `save`."""
    world = World(model, sampler, window)
    if state is not None:
        world.restore(state)
        world.sampler = sampler
    return world
