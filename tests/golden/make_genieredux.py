"""Make tests/golden/genieredux: random checkpoints by the upstream's own classes and what they answer.

    python tests/golden/make_genieredux.py UPSTREAM --size small -o tests/golden/genieredux
    python tests/golden/make_genieredux.py UPSTREAM --size full -o SOMEWHERE
    python tests/golden/make_genieredux.py UPSTREAM --size clips --video tests/parity/clips.npz --train 600 -o CLIPS

UPSTREAM is a checkout of GenieRedux (its NeurIPS workshop code); it needs einops and beartype. Each run writes

    tokenizer.pt     as the trainer saves it: model, optim, step, scaler
    guided.pt        GenieRedux-G, one-hot actions
    genieredux.pt    GenieRedux: dynamics and latent action model
    expected.npz     inputs and the upstream's outputs, float32

Keys of expected.npz (T frames of P tokens, V codes, N steps, C frames of prompt): video uint8 [T, H, W, 3]; tokens
[T, P] of the video; decoded float32 [K, H, W, 3] of the first K; actions [T-1] that the latent action model infers. For
each model (guided, genieredux): forced_actions [T-1]; logits [T-1, P, V], of the frame after each; step_ids
[N, C + 1, P] and step_logits [N, 2, P, V], input and output of every step at temperature 0 when two frames are dreamt
together; dreamt [2, P]; loop_actions, loop_tokens [F, P] and loop_frames uint8 [F, H, W, 3] of the interactive
generation one frame at a time; pair_tokens [F, P] of the same by twos.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

SIZES: dict[str, dict[str, Any]] = {
    # 8 x 8 tokens, odd feed-forward lengths, and a window that ends inside the table of positions.
    "small": {
        "common": {"dim": 26, "heads": 2, "dim_head": 16, "image_size": 64, "patch_size": 8},
        "codec": {"num_blocks": 1, "temporal_patch_size": 1, "codebook_dim": 8},
        "codes": 48,
        "dynamics": {"num_blocks": 2},
        "max_seq_len": {"guided": 340, "genieredux": 700},
        "frames": {"video": 6, "decoded": 3, "loop": 4, "steps": 4},
    },
    # For --train: small enough for a CPU to learn a few clips in minutes.
    "clips": {
        "common": {"dim": 64, "heads": 4, "dim_head": 16, "image_size": 64, "patch_size": 8},
        "codec": {"num_blocks": 2, "temporal_patch_size": 1, "codebook_dim": 16},
        "codes": 128,
        "dynamics": {"num_blocks": 2},
        "max_seq_len": {"guided": 512, "genieredux": 512},
        "frames": {"video": 6, "decoded": 6, "loop": 4, "steps": 4},
    },
    "full": {
        "common": {"dim": 512, "heads": 8, "dim_head": 64, "image_size": 64, "patch_size": 4},
        "codec": {"num_blocks": 8, "temporal_patch_size": 1, "codebook_dim": 32},
        "codes": 1024,
        "dynamics": {"num_blocks": 12},
        "max_seq_len": {"guided": 4000, "genieredux": 8000},
        "frames": {"video": 3, "decoded": 3, "loop": 2, "steps": 3},
    },
}
ACTIONS, PROMPT = 7, 2


def upstream(path: Path) -> Any:
    """The upstream's `models`. Its vector quantizer imports a print function from a module full of plotting."""
    utils = types.ModuleType("utils.utils")
    utils.debug = print  # type: ignore[attr-defined]
    sys.modules["utils"], sys.modules["utils.utils"] = types.ModuleType("utils"), utils
    sys.path.insert(0, str(path))
    import models  # type: ignore[import-not-found]

    return models


def randomise(model: torch.nn.Module) -> None:
    """Weights large enough that every operation changes the output, even where the upstream starts at one or zero."""
    for name, p in model.named_parameters():
        with torch.no_grad():
            if name.endswith(("gamma", "_scale")) or (p.dim() == 1 and name.endswith("weight")):
                p.normal_(1.0, 0.1)
            elif p.dim() == 1:
                p.normal_(0.0, 0.1)
            elif "embed" in name or "_emb.weight" in name:
                p.normal_(0.0, 1.0)
            elif "pos_bias.net.2" in name or "to_logits" in name:
                p.normal_(0.0, 3.0 / math.sqrt(p.shape[1]))
            else:
                p.normal_(0.0, 1.0 / math.sqrt(p[0].numel()))


def frames(size: int, count: int) -> np.ndarray:
    """Smooth random pictures that move."""
    rng = np.random.default_rng(0)
    small = (rng.random((1, 16, 16, 3)) + 0.15 * rng.standard_normal((count, 16, 16, 3)).cumsum(0)) % 1
    return (small.repeat(size // 16, 1).repeat(size // 16, 2) * 255).astype(np.uint8)


def windows(clips_BCTHW: torch.Tensor) -> torch.Tensor:
    """Two clips, each mirrored or not."""
    batch = clips_BCTHW[torch.randint(len(clips_BCTHW), (2,))]
    return batch.flip(-1) if torch.rand(()) < 0.5 else batch


def fit(model: Any, loss_of: Any, steps: int) -> None:
    """The upstream's losses; its tokenizer stays as it is inside a world."""
    model.train()
    wanted = [p for p in model.trainable_parameters() if p.requires_grad]
    adam = torch.optim.AdamW(wanted, 1e-3, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.OneCycleLR(adam, 1e-3, total_steps=steps)
    for step in range(steps):
        loss = loss_of()
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(wanted, 10.0)
        adam.step()
        schedule.step()
        if step % 50 == 0:
            print(type(model).__name__, step, f"{loss.item():.4f}", flush=True)
    model.eval()


def save(model: Any, weights: dict[str, Any], path: Path) -> None:
    """Save as the trainer does. One step of Adam gives a real optimizer state."""
    optimizer = torch.optim.AdamW(list(model.parameters())[:1])
    optimizer.step()
    torch.save({"step": 5, "model": weights, "optim": optimizer.state_dict(), "scaler": None}, path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--video", type=Path, help="npz with frames uint8 [clips, T, H, W, 3], instead of random ones")
    parser.add_argument("--train", type=int, default=0, help="steps of training on it, instead of random weights")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    models = upstream(args.upstream)
    torch.manual_seed(4)
    size, out = SIZES[args.size], args.output
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = models.Tokenizer(**size["common"], **size["codec"], codebook_size=size["codes"]).eval()
    count, side = size["frames"], size["common"]["image_size"]
    clips = frames(side, count["video"])[None]
    if args.video:
        with np.load(args.video) as data:
            clips = data["frames"]
        top, left = (clips.shape[2] - side) // 2, (clips.shape[3] - side) // 2
        clips = clips[:, : count["video"], top : top + side, left : left + side]  # the middle
    video = clips[0]
    moving = (torch.from_numpy(clips).float() / 255).permute(0, 4, 1, 2, 3).contiguous()
    pixels = moving[:1]
    if args.train:
        fit(tokenizer, lambda: tokenizer(windows(moving)), args.train)
    else:
        randomise(tokenizer)
    save(tokenizer, tokenizer.state_dict(), out / "tokenizer.pt")
    found: dict[str, Any] = {"video": video}
    tokenizer.eval()
    with torch.no_grad():
        tokens = tokenizer(pixels, return_only_codebook_ids=True)
        found["tokens"] = tokens[0].flatten(1)
        found["decoded"] = picture(tokenizer.decode_from_codebook_indices(tokens[:, : count["decoded"]]))
    for name in ("guided", "genieredux"):
        guided = name == "guided"
        maskgit = models.MaskGit(
            **size["common"],
            **size["dynamics"],
            is_guided=guided,
            action_dim=ACTIONS,
            num_tokens=size["codes"],
            max_seq_len=size["max_seq_len"][name],
        )
        dynamics = models.Dynamics(maskgit=maskgit, inference_steps=1, sample_temperature=0.0)
        if guided:
            world = models.GenieReduxGuided(tokenizer, dynamics)
        else:
            lam = models.LatentActionModel(**size["common"], **size["codec"], codebook_size=ACTIONS)
            world = models.GenieRedux(tokenizer, lam, dynamics)
        if args.train:
            still = torch.zeros(2, count["video"] - 1, dtype=torch.long)  # the clips' actions are unknown
            given = (torch.nn.functional.one_hot(still, ACTIONS).float(),) if guided else ()
            fit(world, lambda world=world, given=given: world(windows(moving), *given), args.train)
        else:
            randomise(world.dynamics)
            if not guided:
                randomise(lam)
        world.eval()
        save(dynamics, world.state_dict(), out / f"{name}.pt")
        found |= {f"{name}_{key}": value for key, value in answers(world, pixels, count).items()}
        if not guided:
            with torch.no_grad():
                found["actions"] = lam(pixels, return_only_codebook_ids=True)[0]
    expected = {name: np.asarray(value) for name, value in found.items()}
    for name, value in expected.items():
        if value.dtype == np.int64:
            expected[name] = value.astype(np.int16)
        print(name, expected[name].dtype, value.shape)
    np.savez_compressed(out / "expected.npz", **expected)


@torch.no_grad()
def answers(world: Any, pixels: torch.Tensor, count: dict[str, int]) -> dict[str, Any]:
    """What expected.npz holds for one model."""
    found: dict[str, Any] = {}
    dynamics, maskgit = world.dynamics, world.dynamics.maskgit
    tokens = world.get_tokenizer_codebook_ids(pixels)
    _, length, high, wide = tokens.shape
    P = high * wide
    forced = torch.arange(1, length) * 3 % ACTIONS
    found["forced_actions"] = forced
    found["logits"] = maskgit(tokens[:, :-1], world.get_codes_from_indices(forced[None]))[0].view(length - 1, P, -1)

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = maskgit.forward

    def forward(ids: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        logits = original(ids, *rest, **more)
        seen.append((ids[0].flatten(1).clone(), logits[0].view(len(ids[0]), P, -1)[-2:].clone()))
        return logits

    maskgit.forward, dynamics.inference_steps = forward, count["steps"]
    both = dynamics.sample(
        prime_token_ids=tokens[:, :PROMPT].flatten(1),
        actions=world.get_codes_from_indices(forced[None, :1].repeat(1, PROMPT + 1)),
        num_tokens=2 * P,
        patch_shape=(PROMPT + 2, high, wide),
    )
    del maskgit.forward
    dynamics.inference_steps = 1  # the upstream's scripts always use this, whatever they are told
    found["step_ids"] = torch.stack([ids for ids, _ in seen])
    found["step_logits"] = torch.stack([logits for _, logits in seen])
    found["dreamt"] = both[0].view(2, P)

    # The last of the prompt's actions leads to the first new frame.
    actions = torch.arange(PROMPT + count["loop"] - 1) * 2 % ACTIONS
    found["loop_actions"] = actions
    for key, dream in (("loop", 1), ("pair", 2)):
        with contextlib.redirect_stdout(io.StringIO()):
            video, ids = world.generate_interactive_video(
                prime_frames=pixels[:, :, :PROMPT],
                actions=actions[None],
                num_frames=count["loop"],
                dream_length=dream,
                return_tokens=True,
            )
        found[f"{key}_tokens"] = ids[0].flatten(1)
        if dream == 1:
            found["loop_frames"] = (picture(video).clamp(0, 1) * 255).round().to(torch.uint8)
    return found


def picture(video: torch.Tensor) -> torch.Tensor:
    """[1, 3, T, H, W] -> [T, H, W, 3]"""
    return video[0].permute(1, 2, 3, 0).contiguous()


if __name__ == "__main__":
    main()
