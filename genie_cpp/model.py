"""A Genie read from one GGUF file: tokenizer, latent action model and dynamics, ready to run."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, overload

import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends import _native, assembly, memory
from genie_cpp.backends.choose import choose
from genie_cpp.backends.choose import default_threads as default_threads
from genie_cpp.backends.interface import Conv, Stack, State
from genie_cpp.catalog.bundled import bundled, locate, starts
from genie_cpp.errors import ActionError, ImageError, ModelError
from genie_cpp.file.blocks import decode, floats, rows
from genie_cpp.file.gguf_file import GGUFFile, TensorInfo, TensorType
from genie_cpp.sampler import Sampler
from genie_cpp.spec.gguf_keys import CONVS, FILE_TYPES, LAM
from genie_cpp.spec.hparams import HParams, validate
from genie_cpp.words import quoted

Frame = NDArray[np.uint8]
Ids = NDArray[np.int32]
_GIVE_ACTIONS = "give the actions between a prompt's frames, or begin with one picture"


def current_isa() -> str:
    """The instruction set that a model opened now would use. Raises NativeError if this CPU lacks GENIE_ISA."""
    return _native.wanted_isa()


class Model:
    """Weights and hyper-parameters. Read-only; worlds and threads can share it.

    Use `Model.open`. `info`: the hyper-parameters. `metadata`: every key of the file. `tensors`: name -> TensorInfo.
    `sampler`: the file's default settings. `backend` ("cpu" or "metal"), `isa` and `threads` (0: the backend chooses):
    what it runs on. `device`: the same in words. `sha256`: hash of the file's bytes as they were loaded.
    """

    path: Path
    called: str | None  # the name it was opened by, if that was not a path: "maze", "tinyworlds:sonic"
    info: HParams
    metadata: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]
    sampler: Sampler
    backend: str
    isa: str
    device: str
    threads: int
    sha256: str  # hexadecimal

    @staticmethod
    def open(
        path: str | Path | None = None, threads: int | None = None, backend: str = "auto", force: bool = False
    ) -> Model:
        """Read and check a Genie GGUF (docs/gguf.md). path: a file, or (as a str) the name of a bundled world ("maze");
        None: the default world. threads: 1…1024, default: all CPUs. force: open it even if it needs more memory than is
        free. backend: "cpu", "metal" (docs/metal.md), or "auto" (Metal if it is present).
        Raises GGUFError, ModelError, NativeError, FileNotFoundError, or GenieError if the backend is not available.
        """
        from concurrent.futures import ThreadPoolExecutor

        model = Model()
        model.path, model.called = locate(path)
        runs = choose(backend, threads)
        model.backend, model.isa, model.device, model.threads = runs.name, runs.isa, runs.device, runs.threads
        model._search = _native.wanted_isa()
        with GGUFFile.open(model.path) as file, ThreadPoolExecutor(1) as beside:
            digest = beside.submit(file.sha256)
            model.info = validate(file, finite=False)  # what reads the data below checks it
            model.metadata = MappingProxyType(dict(file.metadata))
            model.tensors = MappingProxyType(dict(file.tensors))
            if not force:
                memory.check(memory.need(model.info, model.tensors, model.threads or 1), str(model.path))
            model._stacks = {name: assembly.load(file, model.info, name, runs) for name in model.info.stacks}
            halves = CONVS if model.info.tokenizer_kind == "conv" else ()
            model._convs = {f"tokenizer.{half}": assembly.load_network(file, model.info, half, runs) for half in halves}
            model._codebook = None if model.info.bins("tokenizer") else floats(file, "tokenizer.codebook.weight")
            learned = model.info.has_lam and not model.info.bins("lam")
            model._actions = floats(file, "lam.codebook.weight") if learned else None
            # The matrix of a joined head can be the largest tensor and is seldom used, so it stays in its stored type.
            joined = model.info.lam_head == "joined"
            model._head_up = rows(file, "lam.head.up.weight") if joined else None
            model._head = {
                name: floats(file, name)
                for name in file.tensors
                if name.startswith("lam.head.") and not (joined and name == "lam.head.up.weight")
            }
            model.sha256 = digest.result()
            file.check_unchanged()
        hp = model.info
        model.sampler = Sampler(hp.sampler_steps, hp.sampler_temperature, hp.sampler_order, hp.sampler_noise)
        return model

    _search: str  # ISA of the codebook search, whichever backend runs the stacks
    _stacks: dict[str, Stack]
    _convs: dict[str, Conv]  # instead of the tokenizer's stacks, with the tokenizer kind "conv"
    _codebook: NDArray[np.float32] | None  # [V, L]; None with FSQ
    _actions: NDArray[np.float32] | None  # [A, L]
    _head: dict[str, NDArray[np.float32]]  # of the LAM, if it has a head of its own
    _head_up: tuple[NDArray[np.uint8], TensorType, int] | None  # bytes by row, type, values per row; "joined" only

    def __repr__(self) -> str:
        hp = self.info
        size = f"{hp.frame_width}x{hp.frame_height}, {hp.action_count} actions"
        return f"<Model {self.name!r} {self.type}, {size}; {self.backend}: {self.device}>"

    def __copy__(self) -> Model:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        return self  # read-only, and shared by all worlds of the model

    def __reduce__(self) -> tuple[Any, ...]:
        where = self.called or str(self.path.resolve())
        return _reopened, (where, self.sha256, self.threads or None, self.backend)

    @property
    def name(self) -> str:
        """`general.name`, or the file's name."""
        return str(self.metadata.get("general.name") or self.path.stem)

    @property
    def reference(self) -> str:
        """What `-m` and `World.load` take to open it again: a bundled world's name, or a path."""
        if self.called:
            return self.called
        text = str(self.path)
        # A file with the name of a bundled world is found only by an explicit path.
        return os.path.join(os.curdir, text) if text in bundled() else text

    @property
    def starts(self) -> list[Path]:
        """Pictures that it can start from: world.png beside world.gguf, and those in the folder world/."""
        return starts(self.path)

    @property
    def type(self) -> str:
        """Type of most weights: F32, F16, Q8_0 or Q4_0."""
        return next(t.name for t, number in FILE_TYPES.items() if number == self.metadata["general.file_type"])

    @property
    def token_count(self) -> int:
        """Tokens per frame."""
        return self._stacks["dynamics"].token_count

    @property
    def n_bytes(self) -> int:
        """Bytes of packed weights in memory."""
        return sum(s.n_bytes for s in self._stacks.values()) + sum(c.n_bytes for c in self._convs.values())

    @overload
    def state(self, stack: Literal["dynamics", "lam.encoder"]) -> State: ...

    @overload
    def state(self, stack: str) -> Window: ...

    def state(self, stack: str) -> Window:
        """An empty window for one of the stacks, or for a convolutional half of the tokenizer."""
        if stack in self._convs:
            return ConvWindow(self._convs[stack], self.info.tokenizer_patch_size, stack == "tokenizer.encoder")
        return self._stacks[stack].state()

    def patches(self, frame: Frame, patch: int) -> NDArray[np.float32]:
        """uint8 [H, W, 3] -> float32 [P, patch * patch * 3] in -0.5…0.5. Vector order: row, column, channel."""
        height, width = self.info.frame_height, self.info.frame_width
        if frame.shape != (height, width, 3) or frame.dtype != np.uint8:
            raise ImageError(
                f"a frame must be uint8 {height}x{width}x3, not {frame.dtype} {'x'.join(map(str, frame.shape))}",
                "genie_cpp.frames.fit makes any picture fit",
            )
        return _cut(frame, patch).astype(np.float32) / np.float32(255) - np.float32(0.5)

    def pixels(self, patches_PX: NDArray[np.float32]) -> Frame:
        """The inverse of `patches`, rounded and clamped."""
        x = np.rint((self._joined(patches_PX) + np.float32(0.5)) * np.float32(255))
        return x.clip(0, 255).astype(np.uint8)

    def _joined(self, patches_PX: NDArray[np.float32]) -> NDArray[np.float32]:
        """The tokenizer's patches -> a picture [H, W, 3]."""
        hp = self.info
        return _join(patches_PX, hp.frame_height, hp.frame_width, hp.tokenizer_patch_size)

    def codes(self, ids_P: Ids) -> NDArray[np.float32]:
        """Token ids -> their codes, float32 [P, L]."""
        if self._codebook is None:
            bins = self.info.bins("tokenizer") or 2
            digits = np.asarray(ids_P)[:, None] // bins ** np.arange(self.info.tokenizer_latent_length) % bins
            return (2 * digits).astype(np.float32) / np.float32(bins - 1) - np.float32(1)
        return _native.vq_lookup(self._codebook, ids_P)

    def encode_frame(self, state: Window, frame: Frame) -> Ids:
        """Token ids [P] of a frame, the next one in a `tokenizer.encoder` window."""
        return self.encode_patches(state, self.patches(frame, self.info.tokenizer_patch_size))

    def encode_patches(self, state: Window, patches_PX: NDArray[np.float32]) -> Ids:
        """As `encode_frame`, for a frame in the form that `patches` returns."""
        z = state.forward(patches_PX)
        assert z is not None
        return self._nearest(self._codebook, "tokenizer", z)

    def _nearest(self, codebook: NDArray[np.float32] | None, module: str, z: NDArray[np.float32]) -> Ids:
        if codebook is None:
            return _native.fsq_nearest(self.info.bins(module) or 2, z)
        return _native.vq_nearest(codebook, z, self._search)

    def tokenize(self, video: NDArray[np.uint8]) -> Ids:
        """uint8 [T, H, W, 3] -> ids int32 [T, P]. A video longer than the context length is cut into windows."""
        state, ids = self.state("tokenizer.encoder"), []
        for frame in _video(video):
            if len(state) == self.info.context_length:
                state.truncate(0)
            ids.append(self.encode_frame(state, frame))
        return np.stack(ids)

    def detokenize(self, ids: NDArray[np.integer[Any]]) -> NDArray[np.uint8]:
        """ids [T, P] in 0…codebook_size-1 -> uint8 [T, H, W, 3], cut into windows as in `tokenize`."""
        ids = np.asarray(ids)
        size = self.info.codebook_size
        if ids.ndim != 2 or ids.shape[1] != self.token_count or not len(ids) or ids.min() < 0 or ids.max() >= size:
            raise ModelError(f"ids must be [frames, {self.token_count}] in 0…{size - 1}")
        state, frames = self.state("tokenizer.decoder"), []
        for ids_P in ids.astype(np.int32):
            if len(state) == self.info.context_length:
                state.truncate(0)
            x = state.forward(self.codes(ids_P))
            assert x is not None
            frames.append(self.pixels(x))
        return np.stack(frames)

    def infer_actions(self, video: NDArray[np.uint8]) -> NDArray[np.int64]:
        """uint8 [T, H, W, 3] -> the latent action between each pair of frames, int64 [T-1] (T >= 2).

        If the video is longer than the context, its windows overlap by one frame. Raises ActionError, also if the model
        has no latent action model.
        """
        frames = _video(video)
        if not self.info.has_lam:
            raise ActionError("this model cannot infer actions: it has no latent action model", _GIVE_ACTIONS)
        if len(frames) < 2:
            raise ActionError("a video needs two frames at least to have an action")
        return self._infer([self.patches(frame, self.info.lam_patch_size) for frame in frames])

    def infer_from_patches(self, frames: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
        """As `infer_actions`, for frames in the form of the tokenizer's patches, float32 [P, X] each."""
        return self._infer([_cut(self._joined(frame), self.info.lam_patch_size) for frame in frames])

    def _infer(self, patches: Sequence[NDArray[np.float32]]) -> NDArray[np.int64]:
        hp = self.info
        if hp.action_count == 0:
            raise ActionError("this world has no actions, and so none to infer", "it goes on by itself")
        state, latents = self.state("lam.encoder"), []
        if hp.lam_head == "pair":
            for start in range(0, len(patches) - 1, hp.context_length - 1):
                state.truncate(0)
                outputs = [state.forward(now) for now in patches[start : start + hp.context_length]]
                means = [z.mean(0, dtype=np.float32) for z in outputs if z is not None]
                latents += [self._pair_head(*pair) for pair in itertools.pairwise(means)]
            return self._nearest(self._actions, "lam", np.stack(latents)).astype(np.int64)
        difference = hp.lam_difference
        for previous, now in itertools.pairwise(patches):
            if difference:
                if len(state) == self.info.context_length - 1:
                    state.truncate(0)
            elif len(state) in (0, self.info.context_length):
                state.truncate(0)
                state.forward(previous, output=False)
            z = state.forward(now - previous if difference else now)
            assert z is not None
            latents.append(self._joined_head(z) if hp.lam_head == "joined" else z.mean(0, dtype=np.float32))
        return self._nearest(self._actions, "lam", np.stack(latents)).astype(np.int64)

    def _joined_head(self, outputs_PE: NDArray[np.float32]) -> NDArray[np.float32]:
        """Linear on a frame's concatenated outputs, layer norm, linear -> a latent."""
        assert self._head_up is not None
        head, (packed, kind, wide) = self._head, self._head_up
        parts = [
            decode(packed[i : i + 64], kind, (-1, wide)) @ outputs_PE.reshape(-1) for i in range(0, len(packed), 64)
        ]
        x = np.concatenate(parts) + head["lam.head.up.bias"]
        x = self._head_norm(x) * head["lam.head.norm.weight"] + head["lam.head.norm.bias"]
        latent: NDArray[np.float32] = head["lam.head.down.weight"] @ x + head["lam.head.down.bias"]
        return latent

    def _head_norm(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        x = x - x.mean()
        normed: NDArray[np.float32] = x / np.sqrt(np.mean(x * x) + np.float32(self.info.stacks[LAM].norm_epsilon))
        return normed

    def _pair_head(self, previous_E: NDArray[np.float32], now_E: NDArray[np.float32]) -> NDArray[np.float32]:
        """Layer norm, linear, GELU, linear on the concatenated means of two frames -> a latent."""
        head, x = self._head, self._head_norm(np.concatenate([previous_E, now_E]))
        x = head["lam.head.up.weight"] @ (x * head["lam.head.norm.weight"] + head["lam.head.norm.bias"])
        x = x + head["lam.head.up.bias"]
        x = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()], np.float32)
        latent: NDArray[np.float32] = head["lam.head.down.weight"] @ x + head["lam.head.down.bias"]
        return latent


def _reopened(path: str, sha256: str, threads: int | None, backend: str) -> Model:
    """Unpickle a model from its path and hash. Raises ModelError if the file has changed."""
    model = Model.open(path, threads, backend)
    if model.sha256 != sha256:
        raise ModelError(f"{quoted(path)} is not the file that was pickled", "open the model it was saved with")
    return model


class Window(Protocol):
    """The window of past frames that half a tokenizer has seen: a `_native.State` or a `ConvWindow`."""

    def __len__(self) -> int: ...

    @property
    def n_bytes(self) -> int: ...

    def truncate(self, length: int) -> None: ...

    def copy_from(self, other: Any) -> None: ...

    def forward(
        self, x: NDArray[Any], action: int = -1, commit: bool = True, output: bool = True
    ) -> NDArray[np.float32] | None: ...


class ConvWindow:
    """One half of a convolutional tokenizer, with the interface of a stack's window. It sees single frames only, so it
    keeps nothing of a window but its length."""

    def __init__(self, net: Conv, patch: int, encodes: bool) -> None:
        self._net, self._state, self._patch, self._encodes, self._length = net, net.state(), patch, encodes, 0

    def __len__(self) -> int:
        return self._length

    @property
    def n_bytes(self) -> int:
        return self._state.n_bytes

    def truncate(self, length: int) -> None:
        self._length = length

    def copy_from(self, other: ConvWindow) -> None:
        self._length = other._length

    def forward(
        self, x: NDArray[Any], action: int = -1, commit: bool = True, output: bool = True
    ) -> NDArray[np.float32] | None:
        """Encoder: patches [P, X] -> latents [P, L]. Decoder: latents -> patches. Arguments as in `_native.State`."""
        self._length += int(commit)
        if not output:
            return None
        net = self._net
        if self._encodes:
            z = self._state.run(_join(x, net.shape[0], net.shape[1], self._patch))
            return z.reshape(-1, net.output_shape[2])
        return _cut(self._state.run(x.reshape(net.shape)), self._patch)


def _cut(frame: NDArray[Any], patch: int) -> NDArray[Any]:
    """A picture [H, W, 3] -> patches [P, patch * patch * 3]."""
    height, width, _ = frame.shape
    x = frame.reshape(height // patch, patch, width // patch, patch, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(x.reshape(-1, patch * patch * 3))


def _join(patches_PX: NDArray[np.float32], height: int, width: int, patch: int) -> NDArray[np.float32]:
    """The inverse of `_cut`."""
    x = patches_PX.reshape(height // patch, width // patch, patch, patch, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(x.reshape(height, width, 3))


def _video(video: NDArray[np.uint8]) -> NDArray[np.uint8]:
    video = np.asarray(video)
    if video.ndim != 4 or not len(video):
        raise ImageError(f"a video must be uint8 [frames, height, width, 3], not of shape {video.shape}")
    return video
