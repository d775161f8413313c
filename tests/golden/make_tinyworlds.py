"""Make tests/golden/tinyworlds*: random checkpoints by the upstream's own classes and what they answer.

    python tests/golden/make_tinyworlds.py UPSTREAM --size small -o tests/golden/tinyworlds
    python tests/golden/make_tinyworlds.py UPSTREAM --size experts -o tests/golden/tinyworlds_experts
    python tests/golden/make_tinyworlds.py UPSTREAM --size alone -o tests/golden/tinyworlds_alone
    python tests/golden/make_tinyworlds.py UPSTREAM --size sonic -o SOMEWHERE
    python tests/golden/make_tinyworlds.py UPSTREAM --size clips --video tests/parity/clips.npz --train 600 -o CLIPS

UPSTREAM is a checkout of AlmondGod/tinyworlds; it needs einops and omegaconf. Each run writes

    tokenizer.pth                  a dictionary with the optimizer's state and `config`, as published in 2025
    latent_actions_step_5/         a folder with model_state_dict.pt and state.pt, as the later code writes it; not with
                                   the size `alone`, whose dynamics knows no actions
    dynamics.pth                   as the tokenizer, with the `_orig_mod.` prefix of compiled models
    expected.npz                   inputs and the upstream's outputs, float32

Keys of expected.npz (T frames of P tokens, V codes, N steps): video uint8 [T, H, W, 3]; tokens [T, P] of the video;
actions [T-1]; decoded float32 [T, H, W, 3] in -1…1, of `tokens`; forced_actions [C]; step_ids [N, P] and step_logits
[N, P, V], input and output of every MaskGIT step at temperature 0 after the first C frames; sampled [P];
loop_actions [F], loop_tokens [F, P] and loop_frames float32 [F, H, W, 3] of the inference script's loop; schedule rows
(P, N, m, tokens wanted). Without actions theirs are missing.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # 256 / 16 tokens: odd feed-forward lengths, several heads, and more blocks where that matters.
    "small": {
        "tokenizer": {
            "embed_dim": 24,
            "num_heads": 3,
            "hidden_dim": 50,
            "num_blocks": 1,
            "latent_dim": 3,
            "num_bins": 4,
        },
        "actions": {"embed_dim": 24, "num_heads": 2, "hidden_dim": 40, "num_blocks": 1, "n_actions": 4},
        "dynamics": {
            "embed_dim": 24,
            "num_heads": 3,
            "hidden_dim": 50,
            "num_blocks": 2,
            "latent_dim": 3,
            "num_bins": 4,
        },
        "all": {"frame_size": 16, "patch_size": 4, "context_length": 4, "dataset": "GOLDEN"},
    },
    # For --train: small enough for a CPU to learn a few clips in minutes.
    "clips": {
        "tokenizer": {
            "embed_dim": 64,
            "num_heads": 4,
            "hidden_dim": 192,
            "num_blocks": 2,
            "latent_dim": 5,
            "num_bins": 4,
        },
        "actions": {"embed_dim": 32, "num_heads": 2, "hidden_dim": 96, "num_blocks": 1, "n_actions": 8},
        "dynamics": {
            "embed_dim": 64,
            "num_heads": 4,
            "hidden_dim": 192,
            "num_blocks": 2,
            "latent_dim": 5,
            "num_bins": 4,
        },
        "all": {"frame_size": 64, "patch_size": 4, "context_length": 4, "dataset": "CLIPS"},
    },
    "sonic": {
        "tokenizer": {
            "embed_dim": 128,
            "num_heads": 8,
            "hidden_dim": 256,
            "num_blocks": 4,
            "latent_dim": 6,
            "num_bins": 4,
        },
        "actions": {"embed_dim": 128, "num_heads": 8, "hidden_dim": 256, "num_blocks": 4, "n_actions": 16},
        "dynamics": {
            "embed_dim": 128,
            "num_heads": 8,
            "hidden_dim": 256,
            "num_blocks": 4,
            "latent_dim": 6,
            "num_bins": 4,
        },
        "all": {"frame_size": 64, "patch_size": 4, "context_length": 4, "dataset": "SONIC"},
    },
}
_EXPERTS = {"use_moe": True, "num_experts": 4, "top_k_experts": 2}
for _name, _of in (("experts", "small"), ("sonic-experts", "sonic")):
    SIZES[_name] = {**SIZES[_of], "dynamics": {**SIZES[_of]["dynamics"], **_EXPERTS}}
SIZES["alone"] = {**SIZES["small"], "all": {**SIZES["small"]["all"], "use_actions": False}}
STEPS, CONTEXT = 10, 2


def randomise(model: torch.nn.Module) -> None:
    """Weights large enough that every operation changes the output, even where the upstream starts at zero."""
    for name, p in model.named_parameters():
        with torch.no_grad():
            if "rms.weight" in name or name.endswith(("latent_head.0.weight", "action_head.0.weight")):
                p.normal_(1.0, 0.1)
            elif p.dim() == 1:
                p.normal_(0.0, 0.1)
            elif "latent_head" in name or "action_head.3" in name:  # so that all kinds of codes occur
                p.normal_(0.0, 2.5 / math.sqrt(p.shape[1]))
            elif "to_gamma_beta" in name or "mask_token" in name or "router" in name:
                p.normal_(0.0, 0.3)
            else:
                p.normal_(0.0, 1.2 / math.sqrt(p[0].numel()))


def frames(size: int, count: int) -> np.ndarray:
    """Smooth random pictures that move."""
    rng = np.random.default_rng(0)
    small = (rng.random((1, 4, 4, 3)) + 0.15 * rng.standard_normal((count, 4, 4, 3)).cumsum(0)) % 1
    return (small.repeat(size // 4, 1).repeat(size // 4, 2) * 255).astype(np.uint8)


def save(model: torch.nn.Module, config: dict[str, Any], path: Path, prefix: str = "") -> None:
    """Save the dictionary of the published files. One step of Adam gives a real optimizer state."""
    optimizer = torch.optim.AdamW(list(model.parameters())[:1])
    optimizer.step()
    weights = {prefix + name: value for name, value in model.state_dict().items()}
    state = {
        "model": weights,
        "optimizer_state_dict": optimizer.state_dict(),
        "scheduler_state_dict": None,
        "config": config,
        "step": 5,
        "timestamp": "2025_09_17_06_20_26",
    }
    torch.save(state, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--frames", type=int, default=6, help="frames of the loop")
    parser.add_argument("--video", type=Path, help="npz with frames uint8 [clips, T, H, W, 3], instead of random ones")
    parser.add_argument(
        "--train", type=int, default=0, help="steps of training on the video, instead of random weights"
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    sys.path.insert(0, str(args.upstream))
    from models.dynamics import DynamicsModel  # type: ignore[import-not-found]
    from models.latent_actions import LatentActionModel  # type: ignore[import-not-found]
    from models.video_tokenizer import VideoTokenizer  # type: ignore[import-not-found]
    from utils.config import DeviceType, DistributedConfig  # type: ignore[import-not-found]
    from utils.utils import save_training_state  # type: ignore[import-not-found]

    torch.manual_seed(1)
    size = SIZES[args.size]
    every = size["all"]
    side = every["frame_size"]
    common = {"frame_size": (side, side), "patch_size": every["patch_size"]}
    tokenizer = VideoTokenizer(**common, **size["tokenizer"]).eval()
    lam = LatentActionModel(**common, **size["actions"]).eval()
    dynamics = DynamicsModel(**common, **size["dynamics"], conditioning_dim=lam.action_dim).eval()
    actor = lam if every.get("use_actions", True) else None
    if args.video:
        with np.load(args.video) as data:
            clips = data["frames"]
        top, left = (clips.shape[2] - side) // 2, (clips.shape[3] - side) // 2
        clips = clips[:, :, top : top + side, left : left + side]  # the middle
    else:
        clips = frames(side, 4)[None]
    if args.train:
        train(tokenizer, lam, dynamics, to_model(clips), args.train)
    else:
        for model in (tokenizer, lam, dynamics):
            randomise(model)

    out: Path = args.output
    out.mkdir(parents=True, exist_ok=True)
    save(tokenizer, {**every, **size["tokenizer"]}, out / "tokenizer.pth")
    save(dynamics, {**every, **size["dynamics"]}, out / "dynamics.pth", "_orig_mod.")
    config = {**every, **size["actions"], "distributed": DistributedConfig(), "device": DeviceType.CPU}
    adam = torch.optim.AdamW(list(lam.parameters())[:1])
    if actor is not None:
        save_training_state(actor, adam, None, config, str(out), "latent_actions", 5)

    expected = answers(tokenizer, actor, dynamics, clips[0, :4], args.frames)
    np.savez_compressed(out / "expected.npz", **expected)
    for name, value in expected.items():
        print(name, value.dtype, value.shape)


def to_model(clips: np.ndarray) -> torch.Tensor:
    """uint8 [B, T, H, W, 3] -> [B, T, 3, H, W] in -1…1."""
    return ((torch.from_numpy(clips).float() / 255 - 0.5) / 0.5).permute(0, 1, 4, 2, 3).contiguous()


def train(tokenizer: Any, lam: Any, dynamics: Any, clips: torch.Tensor, steps: int) -> None:
    """Train with the upstream's losses on windows of 4 frames, each model after the one it needs."""

    def windows(count: int) -> torch.Tensor:
        starts = torch.randint(clips.shape[1] - 3, (count,)).tolist()
        batch = torch.stack([clips[i % len(clips), start : start + 4] for i, start in enumerate(starts)])
        return batch.flip(-1) if torch.rand(()) < 0.5 else batch

    def fit(model: Any, loss_of: Any, steps: int, rate: float) -> None:
        model.train()
        adam = torch.optim.AdamW(model.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(adam, rate, total_steps=steps)
        for step in range(steps):
            loss = loss_of()
            adam.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            adam.step()
            schedule.step()
            if step % 50 == 0:
                print(type(model).__name__, step, f"{loss.item():.4f}", flush=True)
        model.eval()

    def predicted() -> torch.Tensor:
        batch = windows(4)
        with torch.no_grad():
            ids, actions = tokenizer.tokenize(batch), lam.encode(batch)
        latents = tokenizer.quantizer.get_latents_from_indices(ids)
        return dynamics(latents, training=True, conditioning=actions, targets=ids)[2]

    fit(tokenizer, lambda: tokenizer(windows(4))[0], steps, 2e-3)
    fit(lam, lambda: lam(windows(4))[0], steps // 4, 1e-3)
    fit(dynamics, predicted, steps // 2, 2e-3)


@torch.no_grad()
def answers(tokenizer: Any, lam: Any, dynamics: Any, video: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """What expected.npz holds."""
    pixels = to_model(video[None])
    latents_of = tokenizer.quantizer.get_latents_from_indices
    tokens = tokenizer.tokenize(pixels)
    found: dict[str, Any] = {"video": video, "tokens": tokens[0]}
    found["decoded"] = picture(tokenizer.detokenize(latents_of(tokens))[0])
    conditioning = None
    if lam is not None:
        found["actions"] = lam.quantizer.get_indices_from_latents(lam.encode(pixels))[0]
        found["forced_actions"] = torch.arange(CONTEXT) % lam.quantizer.codebook_size
        conditioning = lam.quantizer.get_latents_from_indices(found["forced_actions"][None])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = dynamics.forward

    def forward(latents: torch.Tensor, **rest: Any) -> Any:
        result = original(latents, **rest)
        seen.append((latents[0, -1].clone(), result[0][0, -1].clone()))
        return result

    dynamics.forward = forward
    context = latents_of(tokens[:, :CONTEXT])
    done = dynamics.forward_inference(context, 1, STEPS, latents_of, conditioning=conditioning, temperature=0.0)
    del dynamics.forward
    codes, mask = dynamics.output_mlp.out_features, dynamics.mask_token.reshape(-1)
    index = tokenizer.quantizer.get_indices_from_latents
    found["step_ids"] = torch.stack([torch.where((z == mask).all(-1), codes, index(z)) for z, _ in seen])
    found["step_logits"] = torch.stack([logits for _, logits in seen])
    found["sampled"] = index(done[0, -1])

    # The inference script's loop, interactive: pixels go round as the decoder left them.
    generated, given, loop = pixels[:, :CONTEXT].clone(), [], []
    for i in range(count):
        context_frames = generated[:, -CONTEXT:]
        ids, act = tokenizer.tokenize(context_frames), None
        if lam is not None:
            given.append(int((3 * i + 1) % lam.quantizer.codebook_size))
            recent = given[-CONTEXT:]
            act = lam.quantizer.get_latents_from_indices(torch.tensor([recent]))
            if len(recent) < CONTEXT:
                before = lam.quantizer(lam.encode(context_frames[:, : CONTEXT - len(recent) + 1]))
                act = torch.cat([before, act], 1)
        z = dynamics.forward_inference(latents_of(ids), 1, STEPS, latents_of, conditioning=act, temperature=0.0)
        new = tokenizer.detokenize(z)[:, -1:]
        generated = torch.cat([generated, new], 1)
        loop.append(index(z[0, -1]))
    if lam is not None:
        found["loop_actions"] = torch.tensor(given)
    found["loop_tokens"] = torch.stack(loop)
    found["loop_frames"] = picture(generated[0, CONTEXT:])

    rows = []
    for total in (1, 7, 16, 63, 64, 100, 256, 1024):
        for steps in (1, 2, 5, 10, 16, 25, 64):
            for m in range(steps):
                raw = dynamics.exp_schedule_torch(m, steps, total, 5.0, "cpu")
                rows.append((total, steps, m, int(torch.ceil(raw).item())))
    found["schedule"] = torch.tensor(rows)
    return {name: np.asarray(value) for name, value in found.items()}


def picture(frames_TCHW: torch.Tensor) -> torch.Tensor:
    return frames_TCHW.permute(0, 2, 3, 1).contiguous()


if __name__ == "__main__":
    main()
