"""The figures of docs/families.md: what each type costs, how the two loops differ, frames per second.

    python tests/golden/measure_tinyworlds.py FOLDER [UPSTREAM] [--threads 1] [--frames 20] [--rounds 3]

FOLDER is one that make_tinyworlds.py wrote; UPSTREAM, a checkout of AlmondGod/tinyworlds (needs einops, omegaconf), is
timed in turn with ours: its tokenizer, its ten steps and its decoder in the inference script's loop, torch with as many
threads. Limit both alike with taskset.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_cpp import Model, Sampler, World
from genie_cpp.convert.writer import convert

PARTS = ("tokenizer.pth", "latent_actions_step_5", "dynamics.pth")
CONTEXT = 2


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logits(model: Model, want: dict[str, np.ndarray]) -> np.ndarray:
    """[N, P, V] of every MaskGIT step, under the upstream's own tokens."""
    state, actions = model.state("dynamics"), want["forced_actions"]
    for index, ids in enumerate(want["tokens"][:CONTEXT]):
        state.forward(ids.astype(np.int32), int(actions[index - 1]) if index else -1)
    return np.stack([state.forward(ids.astype(np.int32), int(actions[-1]), commit=False) for ids in want["step_ids"]])


def costs(models: dict[str, Model], want: dict[str, np.ndarray]) -> None:
    exact, reference = models["f32"], log_softmax(want["step_logits"])
    tokens = want["tokens"][:3]
    for name, model in models.items():
        got = log_softmax(logits(model, want))
        divergence = (np.exp(reference) * (reference - got)).sum(-1).mean()
        first = (reference.argmax(-1) == got.argmax(-1)).mean()
        again = (model.tokenize(want["video"][:3]) == tokens).mean()
        error = np.mean((model.detokenize(tokens).astype(float) - exact.detokenize(tokens)) ** 2) / 255**2
        print(
            f"{name}: {model.path.stat().st_size / 2**20:.2f} MiB, KL {divergence:.2g}, same first choice {first:.2%}, "
            f"same token of a patch {again:.2%}, PSNR of decoded frames {-10 * np.log10(max(error, 1e-10)):.1f} dB"
        )


def loops(model: Model, want: dict[str, np.ndarray], count: int) -> None:
    """Greedy frames of the pixel loop and of the token loop from the same prompt and actions."""
    worlds = [World(model, Sampler(10, 0.0, model.sampler.order), window) for window in ("retokenize", "exact")]
    for world in worlds:
        world.reset(want["video"][:CONTEXT])
    same, changed, decibel = [], [], []
    for index in range(count):
        frames = [world.step((3 * index + 1) % model.info.action_count).astype(float) for world in worlds]
        same.append((worlds[0].tokens == worlds[1].tokens).mean())
        decibel.append(-10 * np.log10(max(np.mean((frames[0] - frames[1]) ** 2) / 255**2, 1e-10)))
        state = model.state("tokenizer.encoder")
        for frame in worlds[0]._window.pixels:
            ids = model.encode_patches(state, frame)
        changed.append((ids != worlds[0].tokens).mean())
    print(f"tokens that encoding a decoded frame again changes: {np.mean(changed):.2%}")
    for index in sorted({0, 1, count // 2, count - 1}):
        print(f"frame {index + 1}: the loops share {same[index]:.2%} of tokens, {decibel[index]:.1f} dB")


def ours(model: Model, window: str, want: dict[str, np.ndarray], count: int) -> Callable[[], None]:
    world = World(model, window=window)
    world.reset(want["video"][:CONTEXT])

    def run() -> None:
        for index in range(count):
            world.step(index % model.info.action_count)

    return run


def theirs(upstream: Path, folder: Path, want: dict[str, np.ndarray], count: int) -> Callable[[], None]:
    sys.path.insert(0, str(upstream))
    from models.dynamics import DynamicsModel  # type: ignore[import-not-found]
    from models.video_tokenizer import VideoTokenizer  # type: ignore[import-not-found]

    made: list[Any] = []
    for name, kind, more in (
        ("tokenizer.pth", VideoTokenizer, {}),
        ("dynamics.pth", DynamicsModel, {"conditioning_dim": 4}),
    ):
        state = torch.load(folder / name, weights_only=True)
        keys = ("embed_dim", "num_heads", "hidden_dim", "num_blocks", "latent_dim", "num_bins", "patch_size")
        weights = {key.removeprefix("_orig_mod."): value for key, value in state["model"].items()}
        if more:
            film = next(value for key, value in weights.items() if key.endswith("to_gamma_beta.1.weight"))
            more = {"conditioning_dim": film.shape[1]}
        config, side = state["config"], state["config"]["frame_size"]
        given = {key: config[key] for key in (*keys, "use_moe", "num_experts", "top_k_experts") if key in config}
        made.append(kind(frame_size=(side, side), **given, **more).eval())
        made[-1].load_state_dict(weights)
    tokenizer, dynamics = made
    length = next(value for key, value in dynamics.state_dict().items() if "to_gamma_beta.1.weight" in key).shape[1]

    @torch.no_grad()
    def run() -> None:
        generated = ((torch.from_numpy(want["video"][:CONTEXT]).float() / 255 - 0.5) / 0.5).permute(0, 3, 1, 2)[None]
        lookup = tokenizer.quantizer.get_latents_from_indices
        for index in range(count):
            ids = tokenizer.tokenize(generated[:, -CONTEXT:])
            act = (torch.arange(CONTEXT * length).reshape(1, CONTEXT, length) + index) % 2 * 2.0 - 1
            z = dynamics.forward_inference(lookup(ids), 1, 10, lookup, conditioning=act, temperature=0.5)
            generated = torch.cat([generated, tokenizer.detokenize(z)[:, -1:]], 1)

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("upstream", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-speed", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with np.load(args.folder / "expected.npz") as data, tempfile.TemporaryDirectory() as folder:
        want = dict(data)
        models = {}
        for name in ("f32", "f16", "q8_0", "q4_0"):
            convert([args.folder / part for part in PARTS], Path(folder) / f"{name}.gguf", name)
            models[name] = Model.open(Path(folder) / f"{name}.gguf", args.threads)
        if not args.only_speed:
            costs(models, want)
            loops(models["f32"], want, args.frames)
        runs = {
            f"ours, {name}, {window}": (ours(models[name], window, want, args.frames), args.frames)
            for name in ("q8_0", "f32")
            for window in ("retokenize", "exact")
        }
        if args.upstream:
            few = max(1, args.frames // 10)
            runs["upstream"] = (theirs(args.upstream, args.folder, want, few), few)
        best = dict.fromkeys(runs, float("inf"))
        processor = dict.fromkeys(runs, float("inf"))
        for _ in range(args.rounds):
            for name, (run, count) in runs.items():
                wall, spent = time.perf_counter(), time.process_time()
                run()
                best[name] = min(best[name], (time.perf_counter() - wall) / count)
                processor[name] = min(processor[name], (time.process_time() - spent) / count)
        for name, seconds in best.items():
            print(
                f"{name}: {1 / seconds:.2f} frames/s, {1e3 * seconds:.1f} ms a frame "
                f"({1e3 * processor[name]:.1f} ms of processor time), {args.threads} threads, best of {args.rounds}"
            )


if __name__ == "__main__":
    main()
