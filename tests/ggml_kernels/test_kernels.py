"""Attention, codebook search, sampling and the random numbers, against numpy and the PyTorch reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from genie_cpp.backends import _native
from genie_cpp.backends._native import ffi, lib
from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.reference.philox import philox
from genie_cpp.convert.reference.sampler import Sampler, fill
from genie_cpp.convert.writer import convert
from genie_cpp.model import Model
from genie_cpp.spec.stack_spec import StackParams, StackSpec

ISAS = _native.isas()


def exact_attention(scores_HQK: np.ndarray, v_KHD: np.ndarray) -> np.ndarray:
    p = np.exp(scores_HQK - scores_HQK.max(-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", p / p.sum(-1, keepdims=True), v_KHD)


@pytest.mark.parametrize("isa", ISAS)
def test_attention(isa: str) -> None:
    rng = np.random.default_rng(0)
    for queries, keys, heads, d in ((1, 1, 1, 1), (5, 3, 2, 7), (64, 64, 3, 32), (9, 300, 2, 40), (4, 1023, 1, 64)):
        q, k, v = (rng.standard_normal((n, heads, d)).astype(np.float32) * 2 for n in (queries, keys, keys))
        scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), k) / np.sqrt(d)
        want = exact_attention(scores, v)
        bias = rng.standard_normal((heads, queries, keys)).astype(np.float32) * 3
        biased = exact_attention(scores + bias, v)
        far = exact_attention(scores - 0.2 * np.arange(keys)[::-1], v)
        for few in (0, 1):
            for biases, slope, wanted in ((None, 0.0, want), (bias, 0.2, far if few else biased)):
                y = np.full_like(q, np.nan)
                buffers = [ffi.NULL if z is None else ffi.from_buffer("float[]", z) for z in (q, k, v, biases)]
                out = ffi.from_buffer("float[]", y)
                status = lib.genie_attention(isa.encode(), queries, keys, heads, d, *buffers, slope, few, 0, 1, out)
                _native.check(status, "attention")
                np.testing.assert_allclose(y, wanted, atol=3e-6 * np.abs(v).max(), rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_attention_of_queries_with_their_own_keys(isa: str) -> None:
    """few = 2 gives the same bits as few = 1 for each query alone."""
    rng = np.random.default_rng(3)
    queries, keys, heads, d = 5, 7, 2, 64
    q = rng.standard_normal((queries, heads, d)).astype(np.float32)
    k, v = (rng.standard_normal((queries, keys, heads, d)).astype(np.float32) for _ in range(2))
    for bf16 in (0, 1) if isa in ("avx512bf16", "scalar") else (0,):

        def run(few: int, q: np.ndarray, k: np.ndarray, v: np.ndarray, bf16: int = bf16) -> np.ndarray:
            y = np.full_like(q, np.nan)
            buffers = [ffi.from_buffer("float[]", z) for z in (q, k, v)]
            out = ffi.from_buffer("float[]", y)
            status = lib.genie_attention(
                isa.encode(), len(q), keys, heads, d, *buffers, ffi.NULL, 0.1, few, bf16, 2, out
            )
            _native.check(status, "attention")
            return y

        alone = np.concatenate([run(1, q[i : i + 1], k[i], v[i]) for i in range(queries)])
        np.testing.assert_array_equal(run(2, q, k, v), alone)
        with pytest.raises(_native.NativeError, match="a count is out of range"):
            run(4, q, k, v)


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa in ("avx512bf16", "scalar")])
@pytest.mark.parametrize("few", [0, 1, 3])
def test_attention_bf16(isa: str, few: int) -> None:
    """Close to the scalar twin, and as near to exact attention as bf16 allows."""
    rng = np.random.default_rng(0)
    short = [(5, keys, heads, d) for keys in (1, 2, 3, 4) for heads, d in ((1, 48), (6, 16), (9, 64))]
    sizes = ((1, 1, 1, 32), (5, 3, 2, 64), (64, 64, 3, 32), (9, 300, 2, 96), (7, 1023, 1, 64))
    for queries, keys, heads, d in (*sizes, (1, 1, 1, 16), (256, 3, 8, 16), (67, 256, 8, 16), (9, 200, 1, 48), *short):
        q, k, v = (rng.standard_normal((n, heads, d)).astype(np.float32) * 2 for n in (queries, keys, keys))
        bias = rng.standard_normal((heads, queries, keys)).astype(np.float32) if d == 48 or keys == 300 else None
        slope = 0.05 if keys in (200, 300) or heads == 9 else 0.0

        def run(isa: str, bf16: int, q=q, k=k, v=v, bias=bias, slope=slope) -> np.ndarray:  # type: ignore[no-untyped-def]
            y = np.full_like(q, np.nan)
            buffers = [ffi.NULL if z is None else ffi.from_buffer("float[]", z) for z in (q, k, v, bias)]
            out, shape = ffi.from_buffer("float[]", y), (len(q), len(k), *q.shape[1:])
            _native.check(lib.genie_attention(isa.encode(), *shape, *buffers, slope, few, bf16, 2, out), "attention")
            return y

        got = run(isa, 1)
        # Sums in another order can round a weight to the next bf16 value; biases make single weights large.
        np.testing.assert_allclose(got, run("scalar", 1), atol=2e-3 if bias is None else 4e-3)
        exact = run("scalar", 0)
        assert np.linalg.norm(got - exact) <= 0.02 * np.linalg.norm(exact)
    for other in set(ISAS) - {"avx512bf16", "scalar"}:
        with pytest.raises(_native.NativeError, match="instruction set"):
            run(other, 1)


@pytest.mark.parametrize("isa", ISAS)
def test_nearest_code(isa: str) -> None:
    rng = np.random.default_rng(1)
    for codes, length in ((2, 1), (5, 7), (1024, 32)):
        book = rng.standard_normal((codes, length)).astype(np.float32)
        z = rng.standard_normal((50, length)).astype(np.float32)
        np.testing.assert_array_equal(_native.vq_nearest(book, z, isa), (z @ book.T).argmax(1))
        np.testing.assert_array_equal(_native.vq_lookup(book, np.arange(codes, dtype=np.int32)), book)
    twins = np.ones((4, 8), np.float32)
    assert _native.vq_nearest(twins, twins[:1], isa)[0] == 0  # the first of equals
    with pytest.raises(_native.NativeError):
        _native.vq_lookup(twins, np.array([4], np.int32))


def test_philox() -> None:
    # Known answers of the Random123 distribution.
    known = [
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (2**32 - 1,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ]
    for seed, counter, want in known:
        assert tuple(philox(seed, np.array([counter], np.uint32))[0]) == want
    out = np.empty((20, 4), np.uint32)
    lib.genie_philox(0x123456789ABCDEF0, 7, 8, 9, 20, ffi.from_buffer("uint32_t[]", out))
    counters = np.array([(i, 7, 8, 9) for i in range(20)], np.uint32)
    np.testing.assert_array_equal(out, philox(0x123456789ABCDEF0, counters))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "sampler",
    [
        Sampler(1, 0.0),
        Sampler(5, 0.0),
        Sampler(4, 1.0),
        Sampler(6, 0.7, noise=2.0),
        Sampler(3, 2.5, "random"),
        Sampler(40, 1.0),
        Sampler(40, 0.0, threshold=0.06),
        Sampler(40, 0.7, noise=2.0, threshold=0.06),
        Sampler(40, 0.0, "random", threshold=0.06),
        Sampler(10, 0.0, "largest-probability", schedule="exponential"),
        Sampler(10, 0.5, "largest-probability", schedule="exponential"),
        Sampler(3, 0.7, "largest-probability", noise=1.0),
        Sampler(10, 0.7, "largest-probability", threshold=0.06, schedule="exponential"),
        Sampler(4, 1.0, "random", schedule="exponential"),
        Sampler(5, 0.7, schedule="cosine-ceil"),
    ],
    ids=str,
)
@pytest.mark.parametrize("factors", [1, 2, 4])
def test_sampling_step_by_step(isa: str, sampler: Sampler, factors: int, tiny_model, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """Given the kernel's logits, the reference must fill in the same tokens."""
    monkeypatch.setenv("GENIE_ISA", isa)
    if factors > 1:  # of 4 and of 2 values
        dynamics = dataclasses.replace(tiny_model.config.dynamics, factor_count=factors)
        torch.manual_seed(factors)
        tiny_model = Genie(dataclasses.replace(tiny_model.config, dynamics=dynamics)).eval()
        for p in tiny_model.parameters():
            p.data.normal_(0.0, 0.3)
    checkpoint.save(tiny_model, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "w.gguf", "f32")
    model = Model.open(tmp_path / "w.gguf", threads=2)
    P, V = model.token_count, model.info.codebook_size
    struct = _native.sampler_struct(*dataclasses.astuple(sampler))
    early = 0
    for seed, frame in ((0, 0), (2**64 - 1, 2**32 - 1), (77, 5)):
        state = model.state("dynamics")
        ids, logits = np.full(P, V, np.int32), np.empty((P, model.info.vocabulary), np.float32)
        for step in range(sampler.steps):
            before = torch.from_numpy(ids).long()
            state.maskgit_step(struct, step, seed, frame, -1, ids, logits)
            want = fill(before, torch.from_numpy(logits), sampler, step, seed, frame, factors)
            np.testing.assert_array_equal(ids, want.numpy())
            early += step < sampler.steps - 1 and ids.max() < V
        assert ids.max() < V
    # With so many steps the schedule itself ends one step early, once for each seed.
    assert early > 3 if sampler.threshold else early <= 3


@pytest.mark.parametrize(
    "sublayers", ["spatial temporal ffn", "temporal spatial", "temporal ffn", "spacetime ffn", "ffn spatial temporal"]
)
@pytest.mark.parametrize(("norm_position", "experts"), [("pre", None), ("post", None), ("pre", 3), ("post", 5)])
@pytest.mark.parametrize(
    ("type", "size", "steps"),
    [("f32", (56, 40), 5), ("q8_0", (56, 40), 5), ("q8_0", (116, 20), 40)],
    ids=["even-f32", "even-q8_0", "odd-q8_0"],
)
def test_rows_that_nobody_asks_for_change_nothing(  # type: ignore[no-untyped-def]
    sublayers: str, norm_position: str, experts: int | None, type: str, size, steps: int, tiny_model, tmp_path
) -> None:
    """A step that returns no logits runs its last part for masked tokens only. Threads share rows if there are many and
    channels if there are few, for experts too. The tokens must be the same in all cases."""
    dynamics = tiny_model.config.dynamics
    changes = {"norm_position": norm_position, "expert_count": experts, "expert_used_count": experts and 2}
    stack = dataclasses.replace(dynamics.stack, sublayers=tuple(sublayers.split()), **changes)
    dynamics = dataclasses.replace(dynamics, stack=stack)
    torch.manual_seed(3)
    lam = dataclasses.replace(tiny_model.config.lam, patch_size=4)
    config = dataclasses.replace(
        tiny_model.config, dynamics=dynamics, lam=lam, frame_width=size[0], frame_height=size[1]
    )
    genie = Genie(config).eval()
    for p in genie.parameters():
        p.data.normal_(0.0, 0.3)
    checkpoint.save(genie, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "w.gguf", type)
    models = [Model.open(tmp_path / "w.gguf", threads) for threads in (1, 3, 5)]
    P, V = models[0].token_count, models[0].info.codebook_size
    assert P in (140, 145), "rows of their own for three threads, as long as most are masked"
    struct = _native.sampler_struct(steps, 1.0, "confidence", 1.0)
    states = [model.state("dynamics") for model in models]
    looked_PT, packed_PT = (np.empty((P, models[0].info.context_length), np.float32) for _ in range(2))
    assert states[0].watch(looked_PT) and states[2].watch(packed_PT)
    for frame in range(3 if steps == 5 else 1):
        ids, logits = np.full(P, V, np.int32), np.empty((P, models[0].info.vocabulary), np.float32)
        for step in (0, 1, 2, 3, steps - 1):
            before = ids.copy()
            for now in (steps - 1, step):  # the last step fills all, so every row is checked
                ids = before.copy()
                states[0].maskgit_step(struct, now, 3, frame, 1, ids, logits)
                all_PT = looked_PT.copy()
                for state in states:
                    again = before.copy()
                    state.maskgit_step(struct, now, 3, frame, 1, again, None)
                    np.testing.assert_array_equal(again, ids)
                if (masked := before == V).any():
                    np.testing.assert_array_equal(packed_PT[masked], all_PT[masked])
                    np.testing.assert_allclose(all_PT.sum(1), 1, atol=1e-5)
        assert ids.max() < V
        for state in states:
            state.forward(ids, 1)
        states[0].maskgit_step(struct, 0, 3, frame, 1, ids, None)  # nothing left to fill
        np.testing.assert_array_equal(again, ids)


@pytest.mark.parametrize("isa", ISAS)
def test_where_tokens_looked(isa: str, tiny_gguf, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """The same on every instruction set, as near as its products are; PyTorch holds that of float worlds."""
    found = {}
    for name in ("scalar", isa):
        monkeypatch.setenv("GENIE_ISA", name)
        model = Model.open(tiny_gguf("q8_0"), threads=1)
        state, T = model.state("dynamics"), model.info.context_length
        found[name] = np.empty((model.token_count, T), np.float32)
        state.watch(found[name])
        rng = np.random.default_rng(1)
        for t in range(T):
            state.forward(rng.integers(0, model.info.codebook_size, model.token_count, dtype=np.int32), t % 2)
            np.testing.assert_allclose(found[name].sum(1), 1, atol=1e-5)
            assert (found[name][:, : t + 1] > 0).all() and not found[name][:, t + 1 :].any()
        kept = found[name].copy()
        state.watch(None)
        state.truncate(0)
        state.forward(np.zeros(model.token_count, np.int32), 0)
        np.testing.assert_array_equal(found[name], kept)
        with pytest.raises(_native.NativeError, match="float32"):
            state.watch(np.empty((model.token_count, T)))
    np.testing.assert_allclose(found[isa], found["scalar"], atol=0.02)


def test_a_router_is_of_floats() -> None:
    params = StackParams(
        block_count=1, embedding_length=32, head_count=1, key_length=32, feed_forward_length=32, sublayers=("ffn",),
        expert_count=2, expert_used_count=1,
    )  # fmt: skip
    spec = StackSpec(params=params, token_count=4, grid_width=2, context_length=2, input_rows=9, output_length=8)
    stack = _native.Stack("scalar", _native.Pool(1), spec)
    name = "blk.0.ffn.router.weight"
    with pytest.raises(_native.NativeError, match="a router must be F32 or F16"):
        stack.set(name, 8, 2, 32, np.zeros(2 * 34, np.uint8))
    with pytest.raises(_native.NativeError, match="of another shape"):
        stack.set("blk.0.ffn.up.weight", 0, 32, 32, np.zeros((32, 32), np.float32))  # of one expert
    stack.set(name, 0, 2, 32, np.zeros((2, 32), np.float32))
    for used in (0, 3):
        wrong = dataclasses.replace(spec, params=dataclasses.replace(params, expert_used_count=used))
        with pytest.raises(_native.NativeError, match=r"expert_used_count must be in 1\.\.expert_count"):
            _native.Stack("scalar", stack.pool, wrong)


def test_a_step_refuses_what_is_out_of_range(tiny_gguf) -> None:  # type: ignore[no-untyped-def]
    model = Model.open(tiny_gguf("f32"), threads=1)
    P, V = model.token_count, model.info.codebook_size
    state, good = model.state("dynamics"), _native.sampler_struct(2, 1.0, "confidence", 0.0)
    for ids, action, step, sampler in (
        (np.full(P, V + 1, np.int32), 0, 0, good),
        (np.full(P, -1, np.int32), 0, 0, good),
        (np.zeros(P, np.int32), model.info.action_count, 0, good),
        (np.zeros(P, np.int32), 0, 2, good),
        (np.zeros(P, np.int32), 0, 0, ffi.new("genie_sampler *", (0, 0, 1.0, 0.0))),
        (np.zeros(P, np.int32), 0, 0, ffi.new("genie_sampler *", (1, 0, float("nan"), 0.0))),
        (np.zeros(P, np.int32), 0, 0, ffi.new("genie_sampler *", (1, 0, 1.0, 0.0, 1.5))),
        (np.zeros(P, np.int32), 0, 0, ffi.new("genie_sampler *", (1, 0, 1.0, 0.0, float("nan")))),
    ):
        with pytest.raises(_native.NativeError):
            state.maskgit_step(sampler, step, 0, 0, action, ids, None)
    for _ in range(model.info.context_length):
        state.forward(np.zeros(P, np.int32))
    with pytest.raises(_native.NativeError):  # the window is full
        state.forward(np.zeros(P, np.int32))
