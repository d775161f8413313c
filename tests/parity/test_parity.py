"""The C core compared with fp32 PyTorch, on small random Genies of several shapes and on the bundled world."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from genie_cpp import Model, Sampler, World
from genie_cpp.backends import _native
from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig
from genie_cpp.convert.reference.model import Genie
from genie_cpp.convert.reference.play import ReferenceWorld
from genie_cpp.convert.reference.sampler import Sampler as ReferenceSampler
from genie_cpp.convert.writer import convert
from genie_cpp.spec.stack_spec import StackParams

BUDGETS = json.loads((Path(__file__).parent / "budgets.json").read_text())
BUNDLED = Path(__file__).parents[2] / "examples" / "meadow" / "checkpoint"


def stack(**changes: object) -> StackParams:
    values = {
        "block_count": 2,
        "embedding_length": 64,
        "head_count": 2,
        "key_length": 32,
        "feed_forward_length": 96,
    }
    return StackParams(**{**values, **changes})  # type: ignore[arg-type]


def genie(kind: str = "st-vivit", mixing: tuple[str, ...] = ("spatial", "temporal", "ffn"), **changes: object) -> Genie:
    one = stack(sublayers=mixing, **changes)
    time = stack(**changes)
    if changes.get("norm_position") == "post":
        return seeded(post_norm_film_fsq(stack(**{**changes, "output_norm": "layernorm"}), time))
    config = GenieConfig(
        tokenizer=TokenizerConfig(one, one, kind, patch_size=8, codebook_size=48, latent_length=8),
        lam=LamConfig(time, None, patch_size=16, latent_length=8, difference=bool(changes.get("bias"))),
        dynamics=DynamicsConfig(time, {"steps": 4}),
        frame_width=48,
        frame_height=32,
        context_length=6,
        action_count=5,
    )
    return seeded(config)


def post_norm_film_fsq(encoder: StackParams, plain: StackParams) -> GenieConfig:
    film = dataclasses.replace(plain, norm="layernorm", output_norm="none")
    return GenieConfig(
        tokenizer=TokenizerConfig(encoder, plain, patch_size=8, codebook_size=81, latent_length=4, quantizer="fsq"),
        lam=LamConfig(plain, None, patch_size=16, latent_length=3, quantizer="fsq", head="pair", head_length=12),
        dynamics=DynamicsConfig(film, {"steps": 4, "schedule": "exponential"}, conditioning="film"),
        frame_width=48,
        frame_height=32,
        context_length=6,
        action_count=8,
    )


def convolutions_and_biases() -> GenieConfig:
    """All that GenieRedux needs of a stack, with a padded width and padded lengths."""
    flags: dict[str, object] = {
        "sublayers": ("peg", "spatial", "ffn", "peg2", "temporal", "ffn2"),
        "norm": "layernorm",
        "ffn": "geglu",
        "feed_forward_length": 50,
        "embedding_length": 64,
        "norm_length": 59,
        "qk_norm": True,
        "qk_norm_epsilon": 1e-9,
        "kv_input": "residual",
        "spatial_bias": "relative",
        "temporal_bias": "alibi",
    }
    encoder = stack(**flags, position="none", input_norm="dual", first_frame="input")
    backwards = (*flags["sublayers"][3:], *flags["sublayers"][:3])  # type: ignore[index]
    decoder = stack(**{**flags, "sublayers": backwards}, position="none", first_frame="output")
    lam = stack(**flags, position="none", input_norm="dual", first_frame="input")
    dynamics = stack(**flags, position="joint")
    return GenieConfig(
        tokenizer=TokenizerConfig(encoder, decoder, patch_size=8, codebook_size=48, latent_length=8),
        lam=LamConfig(lam, None, patch_size=16, latent_length=8, head="joined", head_length=12),
        dynamics=DynamicsConfig(dynamics, {"steps": 4}, prediction="next-frame"),
        frame_width=48,
        frame_height=32,
        context_length=6,
        action_count=5,
    )


def factored(base: Genie) -> Genie:
    """Tokens of two digits, one table of positions, layer norms of heads, and sublayers without a norm."""
    one = stack(
        norm="layernorm", bias=True, qk_norm=True, qk_norm_kind="layernorm", unnormed=["temporal"], position="joint",
        output_norm="none",
    )  # fmt: skip
    config = dataclasses.replace(
        base.config,
        tokenizer=dataclasses.replace(base.config.tokenizer, codebook_size=49),
        dynamics=DynamicsConfig(one, {"steps": 4, "schedule": "cosine-ceil"}, factor_count=2),
    )
    return seeded(config)


def seeded(config: GenieConfig) -> Genie:
    torch.manual_seed(3)
    model = Genie(config).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.normal_(1.0 if "norm.weight" in name else 0.0, 0.1 if p.ndim == 1 else 0.15)
        padded_with_zeros(model)
    return model


def padded_with_zeros(model: Genie) -> None:
    """With a norm_length, the rest of an embedding must stay zero."""
    for stack_name in ("tokenizer.encoder", "tokenizer.decoder", "lam.encoder", "dynamics.stack"):
        c = model.get_submodule(stack_name).config
        if c.norm_length is None:
            continue
        for name, p in model.named_parameters():
            if not name.startswith((stack_name, stack_name.replace("dynamics.stack", "dynamics"))):
                continue
            end = tuple(name.split(".")[-2:])
            if end in (("out", "weight"), ("down", "weight")) or "_input" in name:
                p[c.norm_length :] = 0
            elif "embd" in name or "conv" in name or name.endswith((".pos", "input.norm.bias")):
                p[..., c.norm_length :] = 0


SHAPES = {
    "paper": lambda: genie(qk_norm=True),
    "layernorm-bias-swiglu": lambda: genie(norm="layernorm", bias=True, ffn="swiglu"),
    "heads-times-key-not-width": lambda: genie(head_count=3, key_length=32, ffn="gelu_tanh"),
    "geglu-odd-lengths": lambda: genie(embedding_length=60, key_length=20, feed_forward_length=50, ffn="geglu"),
    "relu-vit": lambda: genie("vit", ("spatial", "ffn"), ffn="relu"),
    "c-vivit": lambda: genie("c-vivit", ("spacetime", "ffn")),
    "post-norm-film-fsq": lambda: genie(norm_position="post", output_norm="none", ffn="swiglu", bias=True),
    "convolutions-and-biases": lambda: seeded(convolutions_and_biases()),
    "experts": lambda: genie(ffn="geglu", bias=True, expert_count=5, expert_used_count=3),
    "experts-post-norm": lambda: genie(
        norm_position="post", output_norm="none", ffn="swiglu", expert_count=4, expert_used_count=2
    ),
    "factored-joint": lambda: factored(genie()),
    "film-rms-pre-norm": lambda: seeded(
        dataclasses.replace(
            genie().config, dynamics=DynamicsConfig(stack(output_norm="layernorm"), {"steps": 4}, conditioning="film")
        )
    ),
}


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Genie, Path]]:
    made = {}
    for name, make in SHAPES.items():
        model, folder = make(), tmp_path_factory.mktemp(name)
        checkpoint.save(model, folder / "native", training_parts=False)
        convert(folder / "native", folder / "f32.gguf", "f32")
        made[name] = (model, folder / "f32.gguf")
    if BUNDLED.exists():
        folder = tmp_path_factory.mktemp("bundled")
        convert(BUNDLED, folder / "f32.gguf", "f32")
        made["bundled"] = (checkpoint.load(BUNDLED), folder / "f32.gguf")
    return made


def every_backend(test):  # type: ignore[no-untyped-def]
    """On the C core, and on MLX's CPU device. MLX is float32 throughout, in another order of sums."""
    metal = pytest.param("metal", marks=pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed"))
    return pytest.mark.parametrize("backend", ["cpu", metal])(test)


def every_world(test):  # type: ignore[no-untyped-def]
    return pytest.mark.parametrize("name", [*SHAPES, "bundled"])(test)


def frames(g: GenieConfig, count: int, seed: int = 0) -> np.ndarray:
    """Smooth random pictures that move."""
    rng = np.random.default_rng(seed)
    small = rng.random((count, 4, 4, 3)).cumsum(0) % 1
    big = small.repeat(-(-g.frame_height // 4), 1).repeat(-(-g.frame_width // 4), 2)
    return (big[:, : g.frame_height, : g.frame_width] * 255).astype(np.uint8)


def real_clips() -> np.ndarray:
    """[4, 8, H, W, 3] of the bundled world's own, from episodes never trained on."""
    with np.load(Path(__file__).parent / "clips.npz") as data:
        return data["frames"]


@every_world
@every_backend
def test_logits_and_pixels(worlds: dict[str, tuple[Genie, Path]], name: str, backend: str) -> None:
    reference, path = worlds[name]
    g, model = reference.config, Model.open(path, threads=2, backend=backend)
    torch.manual_seed(1)
    ids = torch.randint(g.tokenizer.codebook_size + 1, (g.context_length, g.token_count))
    actions = torch.randint(g.action_count, (g.context_length,))
    actions[0] = -1
    with torch.no_grad():
        want = reference.dynamics(ids[None], actions[None])[0].numpy()
        video = torch.from_numpy(frames(g, g.context_length)).float()[None] / 255
        tokens = reference.tokenizer.encode(video)[0].numpy()
        codes = ids.clamp(max=g.tokenizer.codebook_size - 1)
        pixels = (reference.tokenizer.decode(codes[None])[0] * 255).round().clamp(0, 255).numpy()
        acted = reference.lam.infer(video)[0].numpy()
    state = model.state("dynamics")
    got = np.stack([state.forward(i.numpy().astype(np.int32), int(a)) for i, a in zip(ids, actions, strict=True)])
    assert np.abs(got - want).max() <= (1e-4 if backend == "cpu" else 1e-3) * np.abs(want).max()
    np.testing.assert_array_equal(model.tokenize(frames(g, g.context_length)), tokens)
    assert np.abs(model.detokenize(codes.numpy()).astype(float) - pixels).max() <= 1
    np.testing.assert_array_equal(model.infer_actions(frames(g, g.context_length)), acted)


@pytest.mark.parametrize(
    ("name", "window", "frame_count"),
    [
        *((name, "half", 64) for name in SHAPES),
        *((name, "exact", 24) for name in SHAPES),
        pytest.param("bundled", "half", 64, marks=pytest.mark.slow),
        pytest.param("bundled", "exact", 20, marks=pytest.mark.slow),
    ],
)
def test_frames_of_tokens(worlds: dict[str, tuple[Genie, Path]], name: str, window: str, frame_count: int) -> None:
    """Sampled with the same noise, uncached and cached: before, when and after the window slides."""
    reference, path = worlds[name]
    g = reference.config
    settings = {"steps": 3, "temperature": 1.0, "noise": 1.0} if name != "bundled" else {"steps": 4, "temperature": 1.0}
    world = World(Model.open(path, threads=2), Sampler(**settings), window)  # type: ignore[arg-type]
    settings["schedule"] = world.model.info.sampler_schedule
    oracle = ReferenceWorld(reference, ReferenceSampler(**settings), window, seed=11)  # type: ignore[arg-type]
    # In a picture of noise a trained model rates many codes alike: ties that the last bit of a float decides.
    world.reset(frames(g, 1)[0] if name != "bundled" else real_clips()[0, 0], seed=11)
    oracle.reset(torch.from_numpy(world.tokens).long())
    rng = np.random.default_rng(5)
    for frame in range(frame_count):
        action = int(rng.integers(g.action_count))
        world.step(action)
        np.testing.assert_array_equal(world.tokens, oracle.step(action).numpy(), err_msg=f"frame {frame}")


@every_world
def test_adaptive_frames_of_tokens(worlds: dict[str, tuple[Genie, Path]], name: str) -> None:
    """With a threshold both fill the same tokens and stop at the same step, before the last allowed one."""
    reference, path = worlds[name]
    g = reference.config
    settings = {
        "steps": 8,
        "temperature": 0.0,
        "threshold": 0.05 if name == "bundled" else 2 / g.tokenizer.codebook_size,
    }
    played = {}
    for threads in (1, 2):
        world = World(Model.open(path, threads), Sampler(**settings), "half")  # type: ignore[arg-type]
        same = {**settings, "schedule": world.model.info.sampler_schedule}
        oracle = ReferenceWorld(reference, ReferenceSampler(**same), "half", seed=11)  # type: ignore[arg-type]
        world.reset(frames(g, 1)[0], seed=11)
        oracle.reset(torch.from_numpy(world.tokens).long())
        for frame in range(10):
            world.step(frame % g.action_count)
            np.testing.assert_array_equal(world.tokens, oracle.step(frame % g.action_count).numpy())
        assert 10 <= world.timings["steps"] < 8 * 10
        played[threads] = world.frame.tobytes()
    assert played[1] == played[2]


@every_world
@every_backend
def test_forced_frames(worlds: dict[str, tuple[Genie, Path]], name: str, backend: str) -> None:
    """Greedy, in one step, after the oracle's own tokens, so that earlier samples do not matter."""
    reference, path = worlds[name]
    g = reference.config
    model = Model.open(path, threads=1, backend=backend)
    count = 64 if backend == "cpu" else 4 if name == "bundled" else 8  # MLX's CPU device is slow
    state = model.state("dynamics")
    rng = torch.Generator().manual_seed(4)
    mask = np.full(g.token_count, g.tokenizer.codebook_size, np.int32)
    sampler = _native.sampler_struct(1, 0.0, "confidence", 0.0)
    for start in range(0, count, g.context_length):
        length = min(g.context_length, count - start)
        ids = torch.randint(g.tokenizer.codebook_size, (length, g.token_count), generator=rng)
        actions = torch.randint(g.action_count, (length,), generator=rng)
        actions[0] = -1
        state.truncate(0)
        for t in range(length):
            with torch.no_grad():
                now = torch.cat([ids[:t], torch.from_numpy(mask)[None].long()])
                logits = reference.dynamics(now[None], actions[None, : t + 1])[0, -1]
            digits = logits.reshape(len(mask), g.dynamics.factor_count, -1).argmax(-1)
            want = (digits * (g.vocabulary // g.dynamics.factor_count) ** torch.arange(digits.shape[1])).sum(-1)
            got = mask.copy()
            state.maskgit_step(sampler, 0, 0, 0, int(actions[t]), got, None)
            np.testing.assert_array_equal(got, want.numpy(), err_msg=f"frame {start + t}")
            state.forward(ids[t].numpy().astype(np.int32), int(actions[t]), output=False)


@pytest.mark.parametrize(
    ("name", "type"),
    [
        pytest.param(name, type, marks=[] if name == "paper" or type == "q8_0" else [pytest.mark.slow])
        for name in ("paper", "convolutions-and-biases", "experts")
        for type in ("f32", "f16", "q8_0", "q4_0")
    ],
)
def test_threads_and_instruction_sets(
    worlds: dict[str, tuple[Genie, Path]], name: str, type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference, path = worlds[name]
    convert(path.parent / "native", tmp_path / "w.gguf", type)
    g = reference.config
    played: dict[str, list[bytes]] = {}
    logits: dict[str, np.ndarray] = {}
    for isa in _native.isas():
        monkeypatch.setenv("GENIE_ISA", isa)
        for threads in (1, 2, 3, 8):
            world = World(Model.open(tmp_path / "w.gguf", threads=threads))
            world.reset(frames(g, 1)[0], seed=2)
            played.setdefault(isa, []).append(world.rollout([0, 1, 2, 3, 4] * 3).tobytes() + world.logits.tobytes())
        state = Model.open(tmp_path / "w.gguf", threads=1).state("dynamics")
        ids = np.arange(g.token_count, dtype=np.int32) % g.tokenizer.codebook_size
        first = state.forward(ids)
        second = state.forward(ids, 1)
        assert first is not None and second is not None
        logits[isa] = np.stack([first, second])
    for isa, runs in played.items():
        assert len(set(runs)) == 1, isa
    # A last-bit difference in a float can round an int8 activation the other way; floats agree to their own precision.
    # The six sublayers of the second one amplify a rounding.
    tolerance = 1e-5 if type in ("f32", "f16") else 0.02 if name == "paper" else 0.06
    for isa, values in logits.items():
        scale = np.abs(logits["scalar"]).max()
        assert np.abs(values - logits["scalar"]).max() <= tolerance * scale, isa


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_quantized_budget(worlds: dict[str, tuple[Genie, Path]], type: str, tmp_path: Path) -> None:
    """The bundled world's token distributions against fp32, on real frames."""
    if "bundled" not in worlds:
        pytest.skip("the bundled checkpoint is not in this tree")
    reference, path = worlds["bundled"]
    convert(BUNDLED, tmp_path / "w.gguf", type)
    model, exact = Model.open(tmp_path / "w.gguf"), Model.open(path)
    clips = real_clips()
    divergence, same, decibel = [], [], []
    for clip in clips:
        ids = exact.tokenize(clip)
        actions = exact.infer_actions(clip)
        with torch.no_grad():
            masked = torch.full((1, model.token_count), model.info.codebook_size)
            states = model.state("dynamics")
            for t in range(len(clip)):
                led = int(actions[t - 1]) if t else -1
                if t:
                    now = torch.cat([torch.from_numpy(ids[:t]).long(), masked])
                    act = torch.tensor([-1, *actions[:t]])
                    want = reference.dynamics(now[None], act[None])[0, -1].log_softmax(-1)
                    out = states.forward(masked[0].numpy().astype(np.int32), led, commit=False)
                    assert out is not None
                    got = torch.from_numpy(out).log_softmax(-1)
                    divergence.append((want.exp() * (want - got)).sum(-1).mean().item())
                    same.append((want.argmax(-1) == got.argmax(-1)).float().mean().item())
                states.forward(ids[t], led, output=False)
        error = (model.detokenize(ids).astype(float) - exact.detokenize(ids)).__pow__(2).mean() / 255**2
        decibel.append(-10 * np.log10(max(error, 1e-10)))
    budget = BUDGETS[type]
    measured = {"kl": np.mean(divergence), "same_top_1": np.mean(same), "psnr_db": np.mean(decibel)}
    print(type, measured)
    assert measured["kl"] <= budget["kl"], measured
    assert measured["same_top_1"] >= budget["same_top_1"], measured
    assert measured["psnr_db"] >= budget["psnr_db"], measured


@pytest.mark.skipif(find_spec("mlx") is None, reason="MLX is not installed")
@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_quantized_budget_between_backends(type: str, tmp_path: Path) -> None:
    """The bundled world's token distributions in MLX against the C core's, on real frames and the same file."""
    if not BUNDLED.exists():
        pytest.skip("the bundled checkpoint is not in this tree")
    convert(BUNDLED, tmp_path / "w.gguf", type)
    cpu, metal = (Model.open(tmp_path / "w.gguf", backend=backend) for backend in ("cpu", "metal"))
    divergence, same, decibel = [], [], []
    for clip in real_clips()[:2, :3]:
        ids, actions = cpu.tokenize(clip), cpu.infer_actions(clip)
        masked = np.full(cpu.token_count, cpu.info.codebook_size, np.int32)
        states = [model.state("dynamics") for model in (cpu, metal)]
        for t in range(len(clip)):
            led = int(actions[t - 1]) if t else -1
            if t:
                want, got = (torch.from_numpy(s.forward(masked, led, commit=False)).log_softmax(-1) for s in states)
                divergence.append((want.exp() * (want - got)).sum(-1).mean().item())
                same.append((want.argmax(-1) == got.argmax(-1)).float().mean().item())
            for state in states:
                state.forward(ids[t], led, output=False)
        error = np.square(cpu.detokenize(ids).astype(float) - metal.detokenize(ids)).mean() / 255**2
        decibel.append(-10 * np.log10(max(error, 1e-10)))
    budget = BUDGETS[f"metal_{type}"]
    measured = {"kl": np.mean(divergence), "same_top_1": np.mean(same), "psnr_db": np.mean(decibel)}
    print(type, measured)
    assert measured["kl"] <= budget["kl"], measured
    assert measured["same_top_1"] >= budget["same_top_1"], measured
    assert measured["psnr_db"] >= budget["psnr_db"], measured
