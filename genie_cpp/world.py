"""A world in play: reset it with a picture, step it with actions."""

from __future__ import annotations

import operator
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from genie_cpp.actions import action_number
from genie_cpp.backends import _native
from genie_cpp.errors import ActionError, ImageError, SamplerError, StateError
from genie_cpp.file import state_file
from genie_cpp.frames import fit, load_image
from genie_cpp.model import Frame, Ids, Model
from genie_cpp.sampler import Sampler

WINDOWS = ("half", "exact", "retokenize")
_SAVE_VERSION = 1


class World:
    """One game on a model. Not for several threads at once; several worlds may share one model.

    The same model, prompt, seed, actions, sampler and window give the same frames, byte for byte, for any number of
    threads and across `save`, `restore` and `fork` (on one instruction set, or with one MLX on one GPU).
    """

    def __init__(self, model: Model, sampler: Sampler | None = None, window: str | None = None) -> None:
        """window: what a full one does, "half" (drop the older half) or "exact" (drop one frame); or "retokenize":
        before each frame the last ones are tokenized again from their pixels. docs/sampling.md."""
        if not isinstance(model, Model):
            raise StateError(f"a world is made on a Model, not on {type(model).__name__}", "World.load(path) opens one")
        self.model = model
        self.sampler = model.sampler if sampler is None else sampler
        self.window = window or model.info.window_policy
        if self.window not in WINDOWS:
            raise StateError(f"window must be one of {', '.join(WINDOWS)}, not {self.window!r}")
        self._lock = threading.Lock()
        self._dynamics, self._decoder = model.state("dynamics"), model.state("tokenizer.decoder")
        self._ids: list[Ids] = []  # of the frames in the window
        self._actions: list[int] = []  # the action that led to each of them, -1 for the first
        # With "retokenize" only: the frames as `Model.patches` gives them, and an encoder to run them through.
        self._pixels: list[NDArray[np.float32]] = []
        self._encoder = model.state("tokenizer.encoder") if self.window == "retokenize" else None
        self._inferred = 0  # of the actions, how many the LAM inferred, from the first on
        self._least = 1  # frames the window held when it was last filled anew: `rewind` goes no further
        self._frame_number = 0  # frames since the prompt's first
        self._seed = 0
        self._frame: Frame | None = None
        self._logits: NDArray[np.float32] | None = None
        self._entered: Ids | None = None  # the newest frame as its last MaskGIT step found it
        self.timings: dict[str, float] = {}
        self._clear_timings()

    @staticmethod
    def load(
        path: str | Path | None = None,
        threads: int | None = None,
        sampler: Sampler | None = None,
        window: str | None = None,
        backend: str = "auto",
        force: bool = False,
    ) -> World:
        """Open a model (a path, or a bundled world's name; none given: the default one) and a world on it.

        Raises what `Model.open` raises."""
        return World(Model.open(path, threads, backend, force), sampler, window)

    @property
    def prompts(self) -> NDArray[np.uint8]:
        """The pictures that the world may start from, fitted: uint8 [N, H, W, 3]; N may be 0. Raises ImageError."""
        hp = self.model.info
        pictures = [fit(load_image(path), hp.frame_width, hp.frame_height) for path in self.model.starts]
        return np.stack(pictures) if pictures else np.empty((0, hp.frame_height, hp.frame_width, 3), np.uint8)

    def reset(
        self, images: NDArray[np.uint8] | None = None, seed: int = 0, actions: Iterable[int] | None = None
    ) -> Frame:
        """Start from a picture uint8 [H, W, 3], or from several frames [T, H, W, 3]; the last T (context length) count.

        images: None takes the first of `prompts`.
        actions: the T-1 actions between several frames; by default the LAM infers them. seed: 0…2^64-1.
        Returns the last frame as the tokenizer sees it, uint8 [H, W, 3]. Raises ImageError, ActionError, StateError.
        """
        seed = _seed(seed)
        if images is None:
            first = next(iter(self.model.starts), None)
            if first is None:
                raise ImageError("this world has no pictures of its own to start from", "give one to reset")
            images = fit(load_image(first), self.model.info.frame_width, self.model.info.frame_height)
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
            self._ids, self._actions = list(ids), [-1, *led]
            self._inferred = len(led) if actions is None and self.model.info.action_count else 0
            self._keep_pixels([self.model.patches(frame, self.model.info.tokenizer_patch_size) for frame in video])
            self._frame_number, self._seed, self._logits, self._entered = len(ids), seed, None, None
            self._replay()
            return self.frame

    def reset_tokens(self, ids: NDArray[np.integer[Any]], seed: int = 0, actions: Iterable[int] | None = None) -> Frame:
        """Start from frames that are tokens already, ids [T, P] in 0…codebook_size-1; the last T (context length)
        count.

        actions: the T-1 actions between them; a world that has actions needs them where T > 1. Not with the window
        "retokenize", which begins with pixels. Returns the last frame. Raises ActionError, StateError.
        """
        seed = _seed(seed)
        hp, ids = self.model.info, np.asarray(ids)
        if self.window == "retokenize":
            raise StateError("a window that is tokenized again begins with pictures", "choose the window half or exact")
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
            self._ids, self._actions, self._inferred = list(ids.astype(np.int32)), [-1, *led], 0
            self._keep_pixels([])
            self._frame_number, self._seed, self._logits, self._entered = len(ids), seed, None, None
            self._replay()
            return self.frame

    def step(self, action: SupportsIndex | str = 0) -> Frame:
        """The next frame, uint8 [H, W, 3], after `action` (0…action_count-1 or a name of the model's; 0 in a world
        without actions, which goes on by itself). Raises ActionError, StateError."""
        action = self._checked(action)
        with self._lock:
            if not self._ids:
                raise StateError("the world has no frame yet", "call reset(image) first")
            started = time.perf_counter()
            if self.window == "retokenize":
                self._retokenize()
            elif len(self._ids) == self.model.info.context_length:
                self._slide()
            slid = time.perf_counter()
            P, V = self.model.token_count, self.model.info.codebook_size
            ids, entered = np.full(P, V, np.int32), None
            logits: NDArray[np.float32] | None = None
            s = self.sampler
            schedule = self.model.info.sampler_schedule
            struct = _native.sampler_struct(s.steps, s.temperature, s.order, s.noise, s.threshold, schedule)
            early = s.threshold > 0 or schedule == "exponential"  # any step may be the last
            ahead = self.model.info.prediction == "next-frame"
            if ahead:  # the newest frame joins the window with the action after it, and every step has its logits
                logits = self._dynamics.forward(self._ids[-1], action)
            for step in range(s.steps):
                if logits is not None:
                    self._dynamics.maskgit_fill(struct, step, self._seed, self._frame_number, logits, ids)
                else:
                    entered = ids.copy()
                    self._dynamics.maskgit_step(struct, step, self._seed, self._frame_number, action, ids, None)
                self.timings["steps"] += 1
                if early and not (ids == V).any():
                    break
            stepped = time.perf_counter()
            # Where the next frame has a window run again from its first one, nothing is to be kept of this one.
            full = self.window == "retokenize" or len(self._ids) == self.model.info.context_length - 1
            if not full and not ahead:
                self._dynamics.forward(ids, action, output=False)
            sampled = time.perf_counter()
            self._ids.append(ids)
            self._actions.append(action)
            self._frame_number += 1
            self._logits, self._entered = logits, entered
            patches = self._decode(ids)
            self._keep_pixels([*self._pixels, patches])
            done = time.perf_counter()
            self.timings["window"] += slid - started
            self.timings["maskgit"] += stepped - slid
            self.timings["dynamics"] += sampled - slid
            self.timings["decode"] += done - sampled
            self.timings["frames"] += 1
            return self.frame

    def rollout(self, actions: Iterable[SupportsIndex | str]) -> NDArray[np.uint8]:
        """`step` for each action: uint8 [n, H, W, 3]."""
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
        if not self._ids:
            raise StateError("the world has no frame yet", "call reset(image) first")
        return self._ids[-1].copy()

    @property
    def logits(self) -> NDArray[np.float32]:
        """Logits of the newest frame's last MaskGIT step, float32 [P, vocabulary] (of `Model.info`).

        Steps keep no logits, so the first call after a `step` runs its last one again.
        """
        with self._lock:
            if self._logits is None:
                if self._entered is None:
                    raise StateError("no frame has been generated yet", "call step(action) first")
                committed = len(self._dynamics) == len(self._ids)
                self._dynamics.truncate(len(self._ids) - 1)
                self._logits = self._dynamics.forward(self._entered, self._actions[-1], commit=False)
                if committed:
                    self._dynamics.forward(self._ids[-1], self._actions[-1], output=False)
                assert self._logits is not None
            return self._logits.copy()

    @property
    def n_frames(self) -> int:
        """Frames since the prompt's first, the prompt included."""
        return self._frame_number

    @property
    def seed(self) -> int:
        """Of the random numbers, 0…2^64-1: what `reset` was given, or what a restored state says."""
        return self._seed

    @property
    def sampler(self) -> Sampler:
        """How the next frames are sampled; may be set at any time. Raises SamplerError for what is no Sampler."""
        return self._sampler

    @sampler.setter
    def sampler(self, sampler: Sampler) -> None:
        if not isinstance(sampler, Sampler):
            raise SamplerError(f"a sampler is a genie_cpp.Sampler, not {type(sampler).__name__}")
        self._sampler = sampler

    def __repr__(self) -> str:
        s = self._sampler
        at = f"frame {self._frame_number}, seed {self._seed}" if self._ids else "not reset yet"
        return f"<World on {self.model!r}: {at}; {s.steps} steps, temperature {s.temperature:g}, {s.order}>"

    def __copy__(self) -> World:
        return self.fork()

    def __deepcopy__(self, memo: dict[int, Any]) -> World:
        return self.fork()

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (self.model, self._sampler, self.window, self.save() if self._ids else None)

    def fork(self) -> World:
        """A second world that goes on from here on its own."""
        with self._lock:
            other = World(self.model, self.sampler, self.window)
            other._ids, other._actions = [ids.copy() for ids in self._ids], list(self._actions)
            other._frame_number, other._seed, other._least = self._frame_number, self._seed, self._least
            other._pixels, other._inferred = list(self._pixels), self._inferred
            other._frame = None if self._frame is None else self._frame.copy()
            other._logits = None if self._logits is None else self._logits.copy()
            other._entered = self._entered
            other._dynamics.copy_from(self._dynamics)
            other._decoder.copy_from(self._decoder)
            return other

    def rewind(self, frames: int) -> bool:
        """Undo the last `frames` steps, exactly and without a replay. False, and nothing done, where the window has
        slid since or they are not steps of this world: `restore` a saved state instead."""
        with self._lock:
            length = len(self._ids) - frames
            if frames < 1 or length < self._least or self.window == "retokenize":
                return False
            del self._ids[length:], self._actions[length:]
            self._frame_number, self._logits, self._entered = self._frame_number - frames, None, None
            self._dynamics.truncate(length - (self.model.info.prediction == "next-frame"))
            self._decoder.truncate(length - 1)
            self._decode(self._ids[-1])
            return True

    def save(self) -> bytes:
        """The state as bytes: the window's tokens and actions, seed, frame number, settings. Not the model."""
        with self._lock:
            if not self._ids:
                raise StateError("the world has no frame yet", "call reset(image) first")
            s = self.sampler
            head = {
                "version": _SAVE_VERSION,
                "model": self.model.sha256,
                "seed": self._seed,
                "frame_number": self._frame_number,
                "window": self.window,
                **({} if self.model.backend == "cpu" else {"backend": self.model.backend}),
                "sampler": {
                    "steps": s.steps,
                    "temperature": s.temperature,
                    "order": s.order,
                    "noise": s.noise,
                    "threshold": s.threshold,
                },
            }
            arrays: dict[str, NDArray[Any]] = {"ids": np.stack(self._ids), "actions": np.array(self._actions, np.int32)}
            if self.window == "retokenize":
                head["inferred"], arrays["pixels"] = self._inferred, np.stack(self._pixels)
            return state_file.pack(head, arrays)

    def restore(self, state: bytes) -> Frame:
        """Go back to a state saved with the same model on the same backend; returns its newest frame.

        Raises StateError.
        """
        hp = self.model.info
        largest = max(1, 3 * hp.tokenizer_patch_size**2)
        most = 4 * hp.context_length * (self.model.token_count * largest + 1) + state_file.MAX_HEAD
        head, arrays = state_file.unpack(state, most)
        try:
            version, model, seed, number = head["version"], head["model"], head["seed"], head["frame_number"]
            settings, window, backend = head["sampler"], head["window"], head.get("backend", "cpu")
            ids, actions = arrays["ids"], arrays["actions"]
            pixels = arrays["pixels"] if window == "retokenize" else None
            inferred = head["inferred"] if pixels is not None else 0
            sampler = Sampler(**settings)
        except (KeyError, TypeError, SamplerError) as error:
            raise StateError(f"not a saved world: {type(error).__name__}: {str(error)[:100]}") from None
        if version != _SAVE_VERSION:
            raise StateError(f"the saved world has version {str(version)[:20]!r}, this package reads {_SAVE_VERSION}")
        if model != self.model.sha256:
            raise StateError("the saved world belongs to another model", "open the model it was saved with")
        if backend != self.model.backend:  # they round differently, so the world would not be the one that was saved
            raise StateError(
                f"the saved world was played on another backend, not on {self.model.backend}",
                "open the model with the backend that it was saved on",
            )
        fits = (
            ids.ndim == 2
            and ids.dtype == np.int32
            and ids.shape[1] == self.model.token_count
            and 1 <= len(ids) <= hp.context_length
            and actions.shape == (len(ids),)
            and actions.dtype == np.int32
            and 0 <= ids.min()
            and ids.max() < hp.codebook_size
            and -1 <= actions.min()
            and actions.max() < hp.action_count
            and isinstance(window, str)
            and window in WINDOWS
            and type(seed) is int
            and 0 <= seed < 1 << 64
            and type(number) is int
            and len(ids) <= number < 1 << 63
            and (pixels is None or self._are_pixels(pixels, len(ids)))
            and type(inferred) is int
            and 0 <= inferred < len(ids)
            and (inferred == 0 or hp.has_lam)
        )
        if not fits:
            raise StateError("the saved world is damaged")
        with self._lock:
            self._ids, self._actions = list(ids), actions.tolist()
            self._seed, self._frame_number, self.sampler, self.window = seed, number, sampler, window
            self._logits, self._entered, self._inferred = None, None, inferred
            if window == "retokenize" and self._encoder is None:
                self._encoder = self.model.state("tokenizer.encoder")
            self._keep_pixels([] if pixels is None else list(pixels))
            self._replay()
            return self.frame

    def _are_pixels(self, pixels: NDArray[Any], frames: int) -> bool:
        shape = (frames, self.model.token_count, 3 * self.model.info.tokenizer_patch_size**2)
        return pixels.shape == shape and pixels.dtype == np.float32 and bool(np.isfinite(pixels).all())

    def _checked(self, action: Any) -> int:
        number = action_number(action, self.model.info.choices, self.model.info.action_names)
        return number if self.model.info.action_count else -1

    def _slide(self) -> None:
        length = self.model.info.context_length
        keep = length - 1 if self.window == "exact" else (length + 1) // 2
        self._ids = self._ids[length - keep :]
        self._actions = [-1, *self._actions[length - keep + 1 :]]
        self._replay(decode=False)
        self._least = keep + 1  # with `keep` frames this window never was a frame's own

    def _keep_pixels(self, frames: list[NDArray[np.float32]]) -> None:
        self._pixels = frames if self.window == "retokenize" else []

    def _retokenize(self) -> None:
        """The last frames, one fewer than the window holds, become its tokens again: from their pixels as they left the
        decoder, neither rounded nor clamped, and with times that start at 0."""
        assert self._encoder is not None
        dropped = max(0, len(self._pixels) - self.model.info.context_length + 1)
        self._pixels = self._pixels[dropped:]
        self._actions = [-1, *self._actions[dropped + 1 :]]
        self._inferred = max(0, self._inferred - dropped)
        if self._inferred and dropped:  # what the LAM sees has moved as well
            seen = self._pixels[: self._inferred + 1]
            self._actions[1 : self._inferred + 1] = self.model.infer_from_patches(seen).tolist()
        self._encoder.truncate(0)
        self._ids = [self.model.encode_patches(self._encoder, patches) for patches in self._pixels]
        self._replay(decode=False)

    def _replay(self, decode: bool = True) -> None:
        """Run the window's frames again from time index 0; causal attention makes this the same as having kept them."""
        self._least = len(self._ids)
        self._dynamics.truncate(0)
        self._decoder.truncate(0)
        ahead = self.model.info.prediction == "next-frame"
        actions = [*self._actions[1:], None] if ahead else self._actions
        for index, (ids, action) in enumerate(zip(self._ids, actions, strict=True)):
            if action is not None:  # the newest frame waits for the action that `step` brings
                self._dynamics.forward(ids, action, output=False)
            if decode and index == len(self._ids) - 1:
                self._decode(ids)
            else:
                self._decoder.forward(self.model.codes(ids), output=False)

    def _decode(self, ids: Ids) -> NDArray[np.float32]:
        patches = self._decoder.forward(self.model.codes(ids))
        assert patches is not None
        self._frame = self.model.pixels(patches)
        return patches

    def _clear_timings(self) -> None:
        """Since `reset`: seconds of tokenize, window (sliding), dynamics (maskgit: a part), decode; frames, steps."""
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
    """A pickled world is its model's path and what `save` gave."""
    world = World(model, sampler, window)
    if state is not None:
        world.restore(state)
        world.sampler = sampler
    return world
