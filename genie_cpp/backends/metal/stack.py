"""Stacks and their windows in MLX, with the methods of `_native.Stack` and `_native.State`.

Arrays that outlive a call are evaluated in it, because MLX evaluates a lazy array only on the thread that created it,
and worlds can be stepped from any thread. One lock serves all threads, as there is one GPU.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from genie_cpp.backends.metal import forms, sample
from genie_cpp.backends.metal.weights import Matrix, finite, matrix
from genie_cpp.errors import NativeError
from genie_cpp.spec.stack_spec import StackSpec, Sublayer

lock = threading.Lock()

Float = NDArray[np.float32]
Int = NDArray[np.int32]


class Stack:
    """One ST-transformer. Create it with its parameters, call `set` for each tensor, then `seal`."""

    def __init__(self, spec: StackSpec, compiled: bool) -> None:
        """Raises ModelError if the description needs something that is not implemented in MLX."""
        forms.check(spec)
        self.spec, self._sublayers = spec, [one.name for one in spec.sublayers]
        self.token_count, self.input_length = spec.token_count, spec.input_length
        self.output_length = spec.output_length or spec.params.embedding_length
        self.factor_count = spec.factor_count
        # The id of the mask, if the stack's ids are filled by a sampler.
        self.codes = (self.output_length // self.factor_count) ** self.factor_count
        self._own: forms.Layer = {}
        self._every: list[Sublayer] = list(spec.sublayers) * spec.params.block_count
        self._layers: list[forms.Layer] = [{} for _ in self._every]
        self.run = mx.compile(self._run) if compiled else self._run
        self.fill = mx.compile(sample.fill) if compiled else sample.fill
        self.n_bytes = 0

    def set(self, name: str, type: int, rows: int, columns: int, data: NDArray[Any]) -> None:
        """Copy one tensor from its raw bytes. name: as in the GGUF, without the stack: "blk.0.ffn.up.weight"."""
        layer, part = self._own, name
        if name.startswith("blk."):
            _, block, sublayer, part = name.split(".", 3)
            layer = self._layers[int(block) * len(self._sublayers) + self._sublayers.index(sublayer)]
        part = part.removesuffix(".weight")
        raw = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
        experts = self.spec.params.expert_count
        if experts and part in forms.EXPERTS:
            layer[part] = [matrix(type, rows // experts, columns, one) for one in np.split(raw, experts)]
        elif part in forms.MATRICES:
            layer[part] = matrix(type, rows, columns, raw)
        elif part in forms.TABLES or (part in forms.VECTORS and rows > 1):
            layer[part] = mx.array(finite(raw.view(np.float32)).reshape(rows, columns))
        elif part in forms.VECTORS:
            layer[part] = mx.array(finite(raw.view(np.float32)))
        else:
            raise forms.refused(f"the tensor {name}")

    def seal(self) -> None:
        """Attach biases to their matrices and move everything to the device."""
        arrays: list[Any] = []
        # A row of zeros stands for "no action", so that one expression serves every frame.
        if "action_embd" in self._own:
            none = mx.zeros((1, self.spec.params.embedding_length))
            self._own["action_embd"] = mx.concatenate([self._own["action_embd"], none])
        if "spatial_bias" in self._own:
            self._own["spatial_bias"] = forms.biases(self.spec, self._own["spatial_bias"])
        for layer in (self._own, *self._layers):
            for name in forms.MATRICES & layer.keys():
                bias = layer.pop(f"{name}.bias", None)
                if isinstance(layer[name], list):
                    biases = [None] * len(layer[name]) if bias is None else bias.reshape(len(layer[name]), -1)
                    layer[name] = [dataclasses.replace(w, bias=b) for w, b in zip(layer[name], biases, strict=True)]
                else:
                    layer[name] = dataclasses.replace(layer[name], bias=bias)
            every = [w for value in layer.values() for w in (value if isinstance(value, list) else [value])]
            arrays += [a for w in every for a in (w.arrays if isinstance(w, Matrix) else [w])]
        with lock:
            mx.eval(arrays)
        self.n_bytes = sum(int(a.nbytes) for a in arrays)

    def state(self) -> State:
        return State(self)

    def _run(
        self, x: Any, time: Any, action: Any, past: list[Any], first: bool, head: bool, keep: bool
    ) -> tuple[Any, list[Any]]:
        """Run one frame. x: ids [P] or features [P, N]. time: its index. action: the row of its action. past: one entry
        per sublayer that keeps a past (empty: none yet). first: whether the window is empty. Returns the outputs if
        `head`, and the pasts including this frame if `keep`."""
        spec, own = self.spec, self._own
        # Without actions a norm has only one row, stored as a vector.
        film = action if spec.conditioning == "film" and spec.action_count else None
        x = self._embedded(x, time, action, first and spec.params.first_frame == "input")
        seen: list[Any] = []
        pasts = iter(past)
        for sublayer, layer in zip(self._every, self._layers, strict=True):
            norm = functools.partial(forms.norm, spec, sublayer.norm, layer, "norm", row=film)
            before = next(pasts) if past and sublayer.kind in forms.KEEPS else None
            post = sublayer.norm_position == "post"
            reads = forms.Reads(sublayer, x if post else norm(x), x, before)
            y, now = forms.SUBLAYERS[sublayer.kind](spec, own, layer, reads)
            x = norm(x + y) if post else x + y
            if now is not None and keep:
                seen.append(now)
        if not head:
            return None, seen
        x = forms.norm(spec, spec.params.output_norm, own, "output_norm", x)
        end = "output_first" if first and spec.params.first_frame == "output" else "output"
        return own[end](x) if spec.output_length else x, seen

    def _embedded(self, x: Any, time: Any, action: Any, first: bool) -> Any:
        spec, own = self.spec, self._own
        dual = spec.params.input_norm == "dual"
        if self.input_length:
            end = "input_first" if first else "input"
            x = mx.fast.layer_norm(x, None, None, spec.params.norm_epsilon) if dual else x
            x = own[end](x)
            x = forms.norm(spec, "layernorm", own, f"{end}_norm", x) if dual else x
        else:
            x = forms.tokens(spec, own["token_embd"], x)
        if "action_embd" in own:
            x = x + own["action_embd"][action]
        if "pos" in own:
            return x + own["pos"].reshape(-1, *x.shape)[time]
        return x + own["pos_space"] + own["pos_time"][time] if "pos_space" in own else x


class State:
    """A window of past frames for one stack. Not thread-safe."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self._length = stack, 0
        # One entry per sublayer that keeps a past, such as (k, v). Arrays are never modified, so copies can share them.
        self._past: list[Any] = []

    def __len__(self) -> int:
        return self._length

    @property
    def n_bytes(self) -> int:
        return sum(int(a.nbytes) for past in self._past for a in past)

    def truncate(self, length: int) -> None:
        if not 0 <= length <= self._length:
            raise NativeError(f"a window of {self._length} frames cannot be shortened to {length}")
        kinds = [one.kind for one in self.stack._every if one.kind in forms.KEEPS]
        with lock:
            if length == 0:
                self._past = []
            elif length < self._length and self._past:
                self._past = [self._shortened(past, kind, length) for past, kind in zip(self._past, kinds, strict=True)]
                mx.eval(self._past)
        self._length = length

    def _shortened(self, past: tuple[Any, ...], kind: str, length: int) -> tuple[Any, ...]:
        axis, per_token = forms.KEEPS[kind]
        places = length * (self.stack.token_count if per_token else 1)
        return tuple(mx.contiguous(a[:places] if axis == 0 else a[:, :, :places]) for a in past)

    def copy_from(self, other: State) -> None:
        if other.stack is not self.stack:
            raise NativeError("a window is copied among states of one stack only")
        self._past, self._length = list(other._past), other._length

    def watch(self, looked_PT: Float | None) -> bool:
        """Returns False: the fused attention does not tell where it looked."""
        return False

    def forward(self, x: Int | Float, action: int = -1, commit: bool = True, output: bool = True) -> Float | None:
        """Run one frame: ids int32 [P] or features float32 [P, N] -> float32 [P, O], or None without `output`."""
        with lock:
            y, seen = self._frame(x, action, output, commit)
            mx.eval(y if output else [], seen)
            if commit:
                self._past, self._length = seen, self._length + 1
            return np.array(y) if output else None

    def maskgit_step(
        self, sampler: Any, step: int, seed: int, frame: int, action: int, ids_P: Int, logits_PO: Float | None
    ) -> None:
        """One refinement of `ids_P`, in place; logits go to `logits_PO` if it is given. Synchronises once."""
        stack = self.stack
        if ids_P.shape != (stack.token_count,) or ids_P.dtype != np.int32:
            raise NativeError("ids must be int32, one per token")
        with lock:
            logits, _ = self._frame(ids_P, action, True, False)
            self._fill(sampler, step, seed, frame, logits, ids_P)
            if logits_PO is not None:
                logits_PO[:] = np.array(logits)

    def maskgit_fill(self, sampler: Any, step: int, seed: int, frame: int, logits_PO: Float, ids_P: Int) -> None:
        """One refinement of `ids_P`, in place, from given logits and without a forward pass."""
        stack = self.stack
        shape = (stack.token_count, stack.output_length)
        if ids_P.shape != shape[:1] or ids_P.dtype != np.int32 or logits_PO.shape != shape:
            raise NativeError("ids must be int32, one per token, and logits a row of each")
        if ids_P.min() < 0 or ids_P.max() > stack.codes:
            raise NativeError("a MaskGIT step: an argument is out of its range")
        with lock:
            self._fill(sampler, step, seed, frame, mx.array(np.ascontiguousarray(logits_PO, np.float32)), ids_P)

    def _fill(self, sampler: Any, step: int, seed: int, frame: int, logits_PO: Any, ids_P: Int) -> None:
        stack = self.stack
        if stack.input_length or stack.spec.input_rows != stack.output_length + 1 or not 0 <= step < sampler.steps:
            raise NativeError("a MaskGIT step: an argument is out of its range")
        given = sample.numbers(sampler, step, seed, frame & 0xFFFFFFFF, stack.token_count, stack.factor_count)
        ids = stack.fill(logits_PO, mx.array(ids_P), given, sample.form(sampler, step, stack.factor_count))
        mx.eval(ids, logits_PO)
        ids_P[:] = np.array(ids)

    def _frame(self, x: Int | Float, action: int, head: bool, keep: bool) -> tuple[Any, list[Any]]:
        stack, spec = self.stack, self.stack.spec
        shape = (stack.token_count, stack.input_length) if stack.input_length else (stack.token_count,)
        if x.shape != shape:
            raise NativeError(f"a frame of shape {x.shape} was given where {shape} is needed")
        if self._length >= spec.context_length:
            raise NativeError("running a frame: the window is full")
        if not -1 <= action < spec.action_count:
            raise NativeError("running a frame: an argument is out of its range")
        ids = spec.input_rows if stack.factor_count == 1 else stack.codes + 1
        if not stack.input_length and (x.min() < 0 or x.max() >= ids):
            raise NativeError("running a frame: an argument is out of its range")
        given = mx.array(np.ascontiguousarray(x, np.float32 if stack.input_length else np.int32))
        row = mx.array(action if action >= 0 else spec.action_count, mx.int32)
        return stack.run(given, mx.array(self._length, mx.int32), row, self._past, self._length == 0, head, keep)
