"""The MLX backend, on MLX's CPU device: everything that the C core can do, exact weights, the sampler, windows."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gguf
import numpy as np
import pytest
import torch

pytest.importorskip("mlx.core")

import mlx.core as mx

from genie_cpp import GGUFError, Model, ModelError, NativeError, Sampler, StateError, World
from genie_cpp.backends import _native
from genie_cpp.backends.metal import Metal, sample
from genie_cpp.backends.metal import conv as metal_conv
from genie_cpp.backends.metal.stack import Stack, State
from genie_cpp.backends.metal.weights import matrix
from genie_cpp.convert.reference import sampler as reference
from genie_cpp.file.gguf_file import GGUFFile, TensorType
from genie_cpp.spec import conv_layers as conv
from genie_cpp.spec.gguf_keys import KEYS
from genie_cpp.spec.stack_spec import StackParams, StackSpec, tensors

FFNS, ORDERS, SCHEDULES = (
    next(key.choices for key in KEYS if key.name == name)
    for name in ("genie.<stack>.ffn", "genie.sampler.order", "genie.sampler.schedule")
)
PARAMS = StackParams(block_count=1, embedding_length=32, head_count=2, key_length=16, feed_forward_length=32)
SPEC = StackSpec(
    params=PARAMS, token_count=4, grid_width=2, context_length=3, input_rows=9, action_count=2, output_length=8
)
FEATURES = {"input_length": 5, "input_rows": 0, "action_count": 0}


def changed(changes: dict[str, Any]) -> StackSpec:
    """SPEC with other values of its fields, or of its parameters'."""
    own = {name: value for name, value in changes.items() if hasattr(SPEC, name) and name != "sublayers"}
    more = {name: value for name, value in changes.items() if name not in own}
    return dataclasses.replace(SPEC, **own, params=dataclasses.replace(PARAMS, **more))


def filled(spec: StackSpec) -> tuple[_native.Stack, Stack]:
    """The same random F32 stack in C and in MLX."""
    rng = np.random.default_rng(1)
    c, m = _native.Stack("scalar", _native.Pool(1), spec), Stack(spec, False)
    for name, shape, _ in tensors(spec):
        rows = int(np.prod(shape[1:]))
        values = rng.normal(0.3, 0.4, (rows, shape[0])).astype(np.float32)
        for stack in (c, m):
            stack.set(name, 0, rows, shape[0], values)
    c.seal()
    m.seal()
    return c, m


def test_the_sampler_has_a_form_of_everything() -> None:
    """What the C core can do must work here too, or be refused on purpose."""
    for numbers, enum in ((sample.ORDERS, "ORDER"), (sample.SCHEDULES, "SCHEDULE")):
        assert set(numbers) == set(range(getattr(_native.lib, f"GENIE_{enum}_COUNT")))
    assert {name for name, _ in _native.ffi.typeof("genie_sampler").fields} == {
        "steps", "order", "temperature", "noise", "threshold", "schedule"
    }  # fmt: skip


def test_everything_in_a_networks_description_has_a_form() -> None:
    assert set(conv.KINDS) == set(metal_conv.LAYERS) and len(conv.KINDS) == _native.lib.GENIE_CONV_COUNT
    slots = {name.removesuffix(".weight") for name in conv.SLOTS}
    assert slots == metal_conv.MATRICES | metal_conv.VECTORS
    assert len(conv.SLOTS) == _native.lib.GENIE_CONV_SLOT_COUNT
    fields = {name for name, _ in _native.ffi.typeof("genie_conv_params").fields}
    assert fields == {"height", "width", "channels", "group_count", "norm_epsilon"}
    assert [name for name, _ in _native.ffi.typeof("genie_conv_layer").fields] == ["kind", "channels"]


@pytest.mark.parametrize(
    ("native", "metal"),
    [
        (_native.Stack, Stack),
        (_native.State, State),
        (_native.Conv, metal_conv.Conv),
        (_native.ConvState, metal_conv.ConvState),
    ],
)
def test_both_backends_answer_the_same_calls(native: type, metal: type) -> None:
    for name, method in inspect.getmembers(native, inspect.isfunction):
        if not name.startswith("_") or name == "__len__":
            assert list(inspect.signature(method).parameters) == list(
                inspect.signature(getattr(metal, name)).parameters
            ), name


@pytest.mark.parametrize(
    "sublayers", [("spatial", "temporal", "ffn"), ("spacetime", "ffn"), ("ffn",), ("peg", "spatial", "peg2", "ffn")]
)
@pytest.mark.parametrize(
    "changes",
    [
        *({"ffn": ffn} for ffn in FFNS),
        {"norm": "layernorm", "bias": True, "qk_norm": True},
        {"norm": "layernorm", "output_norm": "none", "conditioning": "film", "norm_position": "post", "bias": True},
        {"conditioning": "film", "qk_norm": True},
        {"output_length": 0},
        FEATURES,
        {**FEATURES, "input_norm": "dual", "first_frame": "input", "norm_length": 27},
        {"position": "joint", "kv_input": "residual", "spatial_bias": "relative", "temporal_bias": "alibi",
         "qk_norm": True, "qk_norm_epsilon": 1e-2},
        {"expert_count": 3, "expert_used_count": 2, "bias": True, "ffn": "swiglu"},
        {"expert_count": 4, "expert_used_count": 1, "norm_position": "post", "feed_forward_length": 27},
        {"unnormed": ("spatial", "spacetime"), "norm": "layernorm", "qk_norm": True, "qk_norm_kind": "layernorm",
         "bias": True, "action_count": 0},
        {"unnormed": ("temporal", "ffn"), "norm_position": "post", "qk_norm": True, "qk_norm_kind": "layernorm",
         "qk_norm_epsilon": 1e-2, "factor_count": 2},
        {"factor_count": 4, "conditioning": "film", "action_count": 0, "output_norm": "none"},
        {"factor_count": 3, "output_length": 9, "input_rows": 10, "position": "joint"},
        {"position": "none", "first_frame": "output", "norm": "layernorm", "norm_length": 30, "conditioning": "film"},
    ],
    ids=str,
)  # fmt: skip
def test_a_form_is_the_c_cores(sublayers: tuple[str, ...], changes: dict[str, Any]) -> None:
    """Every flag, compared with the scalar core over a whole window, with and without an action."""
    spec = changed({**changes, "sublayers": sublayers})
    c, m = filled(spec)
    rng = np.random.default_rng(2)
    states = [c.state(), m.state()]
    factors = spec.factor_count
    ids = spec.input_rows if factors == 1 else (spec.output_length // factors) ** factors + 1
    for t in range(3):
        x = rng.integers(0, ids, 4).astype(np.int32) if ids else np.zeros(4, np.int32)
        x[t] = ids - 1  # the mask
        if spec.input_length:
            x = rng.normal(size=(4, 5)).astype(np.float32)
        action = -1 if t == 0 or not spec.action_count else t - 1
        for commit in (False, True):
            want, got = (state.forward(x, action, commit) for state in states)
            assert np.abs(got - want).max() <= 1e-4 * np.abs(want).max()
    for state in states:
        with pytest.raises(NativeError):  # the window is full
            state.forward(x)
        state.truncate(0)
        for bad in ([ids, 0, 0, 0], [0, 0, 0, -1]):
            with pytest.raises(NativeError):
                state.forward(np.array(bad, np.int32))


def test_what_has_no_form_is_refused() -> None:
    for changes in ({"sublayers": ("mamba",)}, {"temporal_bias": "rope"}, {"ffn": "xielu"}, {"conditioning": "cross"}):
        with pytest.raises(ModelError, match="no form of") as error:
            Stack(changed(changes), False)
        assert error.value.hint == "play it with --backend cpu"
    stack = Stack(changed({"sublayers": ("ffn",)}), False)
    for name in ("unheard_of.weight", "blk.0.ffn.gate2.weight"):
        with pytest.raises(ModelError, match="no form of the tensor"):
            stack.set(name, 0, 1, 1, np.zeros(1, np.float32))
    with pytest.raises(ModelError, match="no form of the sampler's order 0 with schedule 9"):
        sample.form(SimpleNamespace(order=0, schedule=9), 0, 1)
    with pytest.raises(ModelError, match="no form of the convolutional layer pool"):
        Metal().conv((4, 4, 3), [("conv3", 8), ("pool", 8)], 1, 1e-6)
    with pytest.raises(ModelError, match=r"no form of the tensor layer\.0\.conv3\.weight"):
        Metal().conv((4, 4, 3), [("conv3", 8)], 1, 1e-6).set(0, "conv3.weight", 0, 1, 1, np.zeros(1, np.float32))
    with pytest.raises(ModelError, match="no form of tensor type 30"):
        matrix(30, 1, 32, np.zeros(64, np.uint8))


@pytest.mark.parametrize("type", list(TensorType))
def test_weights_are_exact(type: TensorType) -> None:
    rng = np.random.default_rng(0)
    kind = gguf.GGMLQuantizationType(int(type))
    values = rng.normal(0, 3, (7, 96)).astype(np.float32)
    raw = np.ascontiguousarray(gguf.quants.quantize(values, kind)).view(np.uint8).reshape(7, -1)
    if type in (TensorType.Q8_0, TensorType.Q4_0):
        block = {TensorType.Q8_0: 34, TensorType.Q4_0: 18}[type]
        blocks = raw.reshape(-1, block)
        blocks[:, 2:] = rng.integers(0, 256, (len(blocks), block - 2), np.uint8)  # -128 too
        for at, scale in enumerate((0.0, -1.5, 6e-8, 65504.0)):  # the last one's bias does not fit in float16
            blocks[at, :2] = np.array([scale], np.float16).view(np.uint8)
    want = gguf.quants.dequantize(
        raw.view(np.float32) if type == 0 else raw.view(np.float16) if type == 1 else raw, kind
    )
    for rows in (slice(0, 7), slice(2, 7)):  # with and without the wide scale
        w = matrix(int(type), len(want[rows]), 96, raw[rows].reshape(-1))
        # A row of the unit matrix extracts a column unchanged, up to one rounding of d q' - d offset.
        got = np.array(w(mx.eye(96))).T
        np.testing.assert_allclose(got, want[rows].astype(np.float32), rtol=1e-5, atol=0 if type < 2 else 1e-30)
        if w.bits:
            assert w.scales.dtype == (mx.float32 if rows.start == 0 else mx.float16)
            offset = 2 ** (w.bits - 1)
            d, b = (np.array(a.astype(mx.float32), np.float64) for a in (w.scales, w.biases))
            np.testing.assert_array_equal(b, -offset * d)
            packed = np.array(w.weight).view(np.uint8)
            q = packed if w.bits == 8 else np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)
            exact = (q.reshape(len(q), -1, 32).astype(np.int64) - offset) * d[..., None]
            np.testing.assert_array_equal(exact.reshape(len(q), -1), want[rows].astype(np.float64))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("factors", [1, 3])
def test_the_sampler_is_the_references(order: str, schedule: str, factors: int) -> None:
    """Whole frames from known logits: temperatures, noise and thresholds, sure and unsure tokens, and ties."""
    P, outputs, steps = 48, 33, 5
    V = (outputs // factors) ** factors
    rng = np.random.default_rng(8)
    for temperature, noise, threshold, spread in itertools.product((0.0, 1.0, 0.3), (0.0, 1.0), (0.0, 0.4), (1, 12)):
        ids = np.full(P, V, np.int32)
        logits = rng.normal(0, spread, (P, outputs)).astype(np.float32)
        logits[1], logits[2, 5:9] = logits[0], logits[2].max()  # two equal tokens, and equal codes in one
        struct = _native.sampler_struct(steps, temperature, order, noise, threshold, schedule)
        oracle = reference.Sampler(steps, temperature, order, noise, threshold, schedule)
        for step in range(steps):
            given = sample.numbers(struct, step, 2**40 + 7, 2**32 - 1, P, factors)
            got = np.array(sample.fill(mx.array(logits), mx.array(ids), given, sample.form(struct, step, factors)))
            want = reference.fill(
                torch.from_numpy(ids).long(),
                torch.from_numpy(logits),
                oracle,
                step,
                2**40 + 7,
                2**32 - 1,
                factors,
            )
            np.testing.assert_array_equal(got, want.numpy(), err_msg=f"{struct.temperature} {noise} {threshold} {step}")
            ids = got
        assert (ids < V).all()


def test_a_frame_of_digits() -> None:
    """Whole frames of tokens with two digits, in C and here, from a stack's logits and from given ones."""
    stacks = filled(changed({"factor_count": 2}))
    states = [stack.state() for stack in stacks]
    logits = np.random.default_rng(3).normal(0, 2, (4, 8)).astype(np.float32)
    seen = set()
    for frame, order in enumerate(ORDERS):
        sampler = _native.sampler_struct(3, 0.9, order, 0.5, 0.0, "cosine-ceil")
        stepped, given = ([np.full(4, 16, np.int32) for _ in states] for _ in range(2))
        for step in range(3):
            for state, ids, more in zip(states, stepped, given, strict=True):
                state.maskgit_step(sampler, step, 6, frame, frame - 1, ids, None)
                state.maskgit_fill(sampler, step, 7, frame, logits, more)
            np.testing.assert_array_equal(*stepped)
            np.testing.assert_array_equal(*given)
        for state, ids in zip(states, stepped, strict=True):
            state.forward(ids, frame - 1, output=False)
        seen |= {*stepped[0].tolist(), *given[0].tolist()}
    assert max(seen) < 16 and len({i % 4 for i in seen}) > 2 and len({i // 4 for i in seen}) > 2
    for state in states:
        state.truncate(0)
        for call in (
            lambda ids, s=state: s.maskgit_fill(sampler, 0, 0, 0, logits, ids),
            lambda ids, s=state: s.maskgit_step(sampler, 0, 0, 0, -1, ids, None),
        ):
            with pytest.raises(NativeError):
                call(np.full(4, 17, np.int32))


def test_the_order_of_qualities() -> None:
    values = np.array([np.inf, 3, 1e-30, 0, -1e-30, -5, -np.inf], np.float32)
    assert (np.diff(np.array(sample.descending(mx.array(values))).astype(np.int64)) > 0).all()
    zeros = np.array(sample.descending(mx.array(np.array([0.0, -0.0], np.float32))))
    assert zeros[0] == zeros[1]
    nothing = np.array(sample.descending(mx.array(np.array([-np.inf, np.nan], np.float32))))
    assert nothing[0] == nothing[1]


@pytest.fixture(scope="module")
def model(tiny_gguf: Callable[[str], Path]) -> Model:
    return Model.open(tiny_gguf("q8_0"), backend="metal")


@pytest.mark.parametrize(
    ("type", "name"),
    [
        ("q8_0", "dynamics.blk.0.ffn.up.weight"), ("q4_0", "dynamics.blk.0.ffn.up.weight"),
        ("f16", "dynamics.output.weight"), ("f32", "lam.encoder.input.weight"),
        ("q8_0", "dynamics.blk.1.temporal.norm.weight"), ("q8_0", "dynamics.pos_time.weight"),
    ],
)  # fmt: skip
def test_a_weight_that_is_no_number(tiny_gguf: Callable[[str], Path], tmp_path: Path, type: str, name: str) -> None:
    path = Path(shutil.copy(tiny_gguf(type), tmp_path / "w.gguf"))
    with GGUFFile.open(path) as file:
        info = file.tensors[name]
    with path.open("r+b") as handle:
        handle.seek(info.offset)
        handle.write(b"\0\0\x80\x7f" if info.type is TensorType.F32 else b"\0\x7c")  # infinity
    with pytest.raises(GGUFError, match=f"{name}.*NaN or infinite"):
        Model.open(path, backend="metal")


PICTURE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.mark.parametrize("window", ["half", "exact", "retokenize"])
def test_a_world_is_saved_forked_and_rewound(model: Model, window: str) -> None:
    actions = [0, 1, 2, 2, 1, 0, 1]
    world = World(model, window=window)
    world.reset(PICTURE, seed=9)
    whole = world.rollout(actions)
    world.reset(PICTURE, seed=9)
    first = world.rollout(actions[:4])
    saved, fork = world.save(), world.fork()
    rest = world.rollout(actions[4:])
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    np.testing.assert_array_equal(fork.rollout(actions[4:]), rest)
    other = World(model)
    np.testing.assert_array_equal(other.restore(saved), first[-1])
    np.testing.assert_array_equal(other.rollout(actions[4:]), rest)
    world.reset(PICTURE, seed=9)
    world.rollout(actions[:2])
    if world.rewind(1):
        np.testing.assert_array_equal(world.step(actions[1]), whole[1])
    else:
        assert window == "retokenize"


def test_a_saved_world_stays_on_its_backend(model: Model, tiny_gguf: Callable[[str], Path]) -> None:
    worlds = {name: World.load(tiny_gguf("q8_0"), 1, backend=name) for name in ("cpu", "metal")}
    for one, other in (("cpu", "metal"), ("metal", "cpu")):
        worlds[one].reset(PICTURE)
        with pytest.raises(StateError, match=f"played on another backend, not on {other}"):
            worlds[other].restore(worlds[one].save())


def test_worlds_may_be_stepped_from_any_thread(model: Model) -> None:
    def play(world: World, out: list[np.ndarray]) -> None:
        out.append(world.rollout([0, 1, 2, 0, 1]))

    worlds = [World(model) for _ in range(3)]
    for world in worlds:
        world.reset(PICTURE, seed=4)
    results: list[list[np.ndarray]] = [[] for _ in worlds]
    threads = [threading.Thread(target=play, args=pair) for pair in zip(worlds, results, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for world in worlds:  # continue here, in a thread that did not make the arrays
        results[0].append(world.step(2))
    np.testing.assert_array_equal(results[1][0], results[0][0])
    np.testing.assert_array_equal(results[2][0], results[0][0])
    np.testing.assert_array_equal(results[0][1], results[0][3])


def test_bad_calls_are_refused(model: Model) -> None:
    state = model.state("dynamics")
    ids, struct = np.zeros(model.token_count, np.int32), _native.sampler_struct(2, 1.0, "random", 0.0)
    for bad in (lambda: state.forward(ids[1:]), lambda: state.forward(ids + 17), lambda: state.forward(ids, 3),
                lambda: state.truncate(1), lambda: state.copy_from(model.state("tokenizer.decoder")),
                lambda: state.maskgit_step(struct, 2, 0, 0, 0, ids, None)):  # fmt: skip
        with pytest.raises(NativeError):
            bad()
    assert len(state) == 0 and state.n_bytes == 0


def test_a_step_waits_for_the_device_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    world, waits = World(model, Sampler(4)), []
    world.reset(PICTURE)
    wait = mx.eval
    monkeypatch.setattr(mx, "eval", lambda *arrays: waits.append(wait(*arrays)))
    ids = np.full(model.token_count, model.info.codebook_size, np.int32)
    logits = np.empty((model.token_count, model.info.codebook_size), np.float32)
    world._window.prediction.dynamics.maskgit_step(
        _native.sampler_struct(4, 1.0, "confidence", 1.0), 0, 1, 1, 0, ids, logits
    )
    assert len(waits) == 1 and (ids < model.info.codebook_size).any()


needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="mx.compile on a CPU calls a C++ compiler")


@needs_compiler
@pytest.mark.parametrize("factors", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_compiled_as_on_a_gpu(factors: int) -> None:
    """A GPU uses mx.compile: the results are the same, also when a window grows and shrinks."""
    spec = changed({"factor_count": factors, "sublayers": ("temporal", "ffn")})
    _, plain = filled(spec)
    compiled = Metal(compiled=True).stack(spec)
    assert isinstance(compiled, Stack)
    compiled._own, compiled._layers = plain._own, plain._layers
    states, struct = [plain.state(), compiled.state()], _native.sampler_struct(2, 0.7, "confidence", 0.0)
    for frame in range(3):
        ids = [np.full(4, plain.codes, np.int32) for _ in states]
        for state, mine in zip(states, ids, strict=True):
            state.truncate(min(len(state), 1))
            for step in range(2):
                state.maskgit_step(struct, step, 5, frame, frame % 2, mine, None)
            state.forward(mine, frame % 2, output=False)
        np.testing.assert_array_equal(*ids)


@needs_compiler
def test_a_compiled_network() -> None:
    rng = np.random.default_rng(4)
    words = conv.layers("net", ("conv3-8", "res-16", "down-16", "norm", "up-4", "conv1-3"), 3, 2)
    nets = [Metal(choice).conv((4, 6, 3), [(w.word, w.channels) for w in words], 2, 1e-6)
            for choice in (False, True)]  # fmt: skip
    for index, word in enumerate(words):
        for name, (shape, _) in conv.tensors(word).items():
            values = rng.normal(0.2, 0.3, (shape[1] if len(shape) > 1 else 1, shape[0])).astype(np.float32)
            for net in nets:
                net.set(index, name, 0, *values.shape, values)
    picture = rng.normal(size=(4, 6, 3)).astype(np.float32)
    made = []
    for net in nets:
        net.seal()
        state = net.state()
        state.run(-picture)
        made.append(state.run(picture))
    np.testing.assert_allclose(made[1], made[0], rtol=1e-4, atol=1e-5 * np.abs(made[0]).max())
