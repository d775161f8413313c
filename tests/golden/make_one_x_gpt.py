"""Make tests/golden/one_x_gpt: random checkpoints by the upstream's own classes and what they answer.

    python tests/golden/make_one_x_gpt.py UPSTREAM --size small -o tests/golden/one_x_gpt
    python tests/golden/make_one_x_gpt.py UPSTREAM --size 35m -o SOMEWHERE

UPSTREAM is a checkout of 1x-technologies/1xgpt; it needs einops, mup, huggingface_hub and tqdm. What it imports for
CUDA and for training alone (xformers, lightning, losses) is replaced by empty modules. Each run writes

    pre_norm/, qk_norm/   config.json and model.safetensors by save_pretrained; qk_norm has muP's scales too
    magvit2.ckpt          a Lightning checkpoint: state_dict with averaged weights and a loss beside, optimizer states
    expected.npz          inputs and the upstream's outputs, float32

Keys of expected.npz (T frames of P tokens, K factors of V values, N steps): video uint8 [T, H, W, 3]; latents [T, P,
L] of it before they become bits, and tokens [T, P], the upstream's encoder in double precision, since at full size its
float32 is 2e-4 of the largest away from that; decoded float32 [T, H, W, 3] in -1…1, of `tokens`. For each checkpoint,
with its name before: prompt [C, P]; step_ids and step_logits [N, P] and [N, P, K V], input and output of every step of
the greedy order after the prompt; greedy [F, P] and random [F, P]: the frames that follow it, with N and 2 steps, the
random order from `uniform(draw = 1)` of docs/sampling.md with seed 5 instead of torch's own numbers; schedule rows (P,
N, m, tokens masked after step m).
"""

from __future__ import annotations

import argparse
import copy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genie_cpp.convert.reference.philox import uniform

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    # Pictures of 8 x 8 pixels, 16 tokens of 8 bits; the numbers of channels change in encoder and decoder.
    "small": {
        "dynamics": {"num_layers": 2, "num_heads": 2, "d_model": 32, "T": 4, "S": 16, "image_vocab_size": 256},
        "tokenizer": {
            "z_channels": 8,
            "codebook_size": 256,
            "base_channels": 32,
            "ch_mult": (2, 1),
            "num_res_blocks": 1,
        },
    },
    "35m": {
        "dynamics": {"num_layers": 32, "num_heads": 8, "d_model": 256, "T": 16, "S": 256, "image_vocab_size": 1 << 18},
        "tokenizer": {},
    },
    "138m": {
        "dynamics": {"num_layers": 32, "num_heads": 8, "d_model": 512, "T": 16, "S": 256, "image_vocab_size": 1 << 18},
        "tokenizer": {},
    },
}
KINDS: dict[str, dict[str, Any]] = {
    "pre_norm": {"qk_norm": False, "use_mup": False},
    "qk_norm": {"qk_norm": True, "use_mup": True, "qkv_bias": True},
}
STEPS, SEED = 4, 5


def import_upstream(path: Path) -> None:
    """Replace what only CUDA or training needs by empty modules."""
    sys.path.insert(0, str(path))

    class Nothing(torch.nn.Module):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

    def module(name: str, **members: Any) -> None:
        sys.modules[name] = types.ModuleType(name)
        for key, value in members.items():
            setattr(sys.modules[name], key, value)

    import os

    os.environ["XFORMERS_DISABLED"] = "true"
    nothing = dict.fromkeys(("LowerTriangularMask", "memory_efficient_attention", "unbind"))
    module("xformers")
    module("xformers.ops", **nothing)
    module("transformers")
    module("transformers.utils", ModelOutput=dict)
    module("lightning", LightningModule=torch.nn.Module)
    module("magvit2.modules.losses.vqperceptual", VQLPIPSWithDiscriminator=Nothing)
    schedulers = dict.fromkeys(("Scheduler_LinearWarmup", "Scheduler_LinearWarmup_CosineDecay"))
    module("magvit2.modules.scheduler.lr_scheduler", **schedulers)


@torch.no_grad()
def randomise(model: torch.nn.Module, deep: bool) -> None:
    """Weights large enough that every operation changes the output, even where the upstream starts at zero. They are
    rounded to half precision, so that a file can store them as such. A deep model keeps the matrices of its own
    initialisation: with larger ones, 32 blocks, most of them without norms, would magnify any rounding."""
    for name, p in model.named_parameters():
        if "norm" in name and name.endswith("weight"):
            p.normal_(1.0, 0.1)
        elif p.dim() == 1:
            p.normal_(0.0, 0.1)
        elif "embed" in name:
            p.normal_(0.0, 0.7)
        elif "out_x_proj" in name:
            mup = getattr(p, "infshape", None)  # which makes more of these in a narrow model
            p.normal_(0.0, 3.0 / p.shape[1] ** 0.5 * min(1.0, mup.width_mult() if mup else 1.0))
        elif not deep:
            p.normal_(0.0, 1.2 / p[0].numel() ** 0.5)
        p.copy_(p.half().float())


def frames(size: int, count: int) -> np.ndarray:
    """Smooth random pictures that move."""
    rng = np.random.default_rng(0)
    small = (rng.random((1, 4, 4, 3)) + 0.15 * rng.standard_normal((count, 4, 4, 3)).cumsum(0)) % 1
    return (small.repeat(size // 4, 1).repeat(size // 4, 2) * 255).astype(np.uint8)


def make_tokenizer(size: dict[str, Any], path: Path, compact: bool) -> Any:
    """A random MAGVIT2 in a Lightning file, read back by the upstream as visualize.py does."""
    from magvit2.config import VQConfig  # type: ignore[import-not-found]
    from magvit2.models.lfqgan import VQModel  # type: ignore[import-not-found]

    config = VQConfig(**size)
    model = VQModel(config)
    randomise(model, not compact)
    state = {name: value.half() if compact else value.clone() for name, value in model.state_dict().items()}
    for name, value in state.items():  # wrong averages, one value for each tensor: reading these by mistake would show
        if name.startswith("model_ema.") and value.dim():
            state[name] = torch.full((1,), 0.01).expand(value.shape)
    state["loss.discriminator.main.0.weight"] = torch.zeros(1).expand(4, 3, 4, 4)
    torch.save(
        {
            "epoch": 1,
            "global_step": 7,
            "pytorch-lightning_version": "2.2.0",
            "state_dict": state,
            "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}, "param_groups": [{"lr": 1e-4}]}],
            "lr_schedulers": [],
            "hyper_parameters": {"config": config},
        },
        path,
    )
    load = torch.load
    torch.load = lambda *a, **k: load(*a, **{**k, "weights_only": False})  # the upstream is older than torch 2.6
    again = VQModel(config, ckpt_path=str(path))
    torch.load = load
    return again.eval()


@torch.no_grad()
def pictures(model: Any, video: np.ndarray, patch: int) -> dict[str, np.ndarray]:
    """The tokenizer's output for frames. Tokens count bits as visualize.py does: channel c is bit c."""
    x = torch.from_numpy(video).float().permute(0, 3, 1, 2) / 127.5 - 1
    with model.ema_scope():
        z = copy.deepcopy(model.encoder).double()(x.double()).float()
        T, L, h, w = z.shape
        tokens = ((z > 0).long() << torch.arange(L)[:, None, None]).sum(1)
        shape = (T, h, w, L)
        quant = model.quantize.get_codebook_entry(tokens.reshape(T, h * w), bhwc=shape).flip(1)
        assert torch.equal(quant, torch.where(z > 0, 1.0, -1.0))
        decoded = model.decode(quant)
    return {
        "video": video,
        "tokens": tokens.reshape(T, h * w).numpy(),
        "latents": z.permute(0, 2, 3, 1).reshape(T, h * w, L).numpy(),
        "decoded": decoded.permute(0, 2, 3, 1).contiguous().numpy(),
    }


@torch.no_grad()
def generations(model: Any, prompt_TP: np.ndarray) -> dict[str, np.ndarray]:
    """Logits of each greedy step, and the frames that follow a prompt in both orders."""
    T, side, C = model.config.T, model.h, len(prompt_TP)
    mask = model.mask_token_id

    def start() -> torch.Tensor:
        x = torch.full((1, T, side, side), mask)
        x[0, :C] = torch.from_numpy(prompt_TP).reshape(C, side, side)
        return x

    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    original = model.compute_logits

    def compute_logits(x: torch.Tensor) -> torch.Tensor:
        result = original(x)
        seen.append((x[0, C].reshape(-1).clone(), result[0, :, C].reshape(result.shape[1], -1).T.clone()))
        return result

    model.compute_logits = compute_logits
    model.maskgit_generate(start(), C, maskgit_steps=STEPS, unmask_mode="greedy")
    del model.compute_logits
    found = {
        "prompt": prompt_TP,
        "step_ids": torch.stack([ids for ids, _ in seen]).numpy(),
        "step_logits": torch.stack([logits for _, logits in seen]).numpy(),
    }
    rand_like = torch.rand_like
    for order, steps in (("greedy", STEPS), ("random", 2)):
        x, made = start(), []
        for t in range(C, T):
            step = iter(range(steps))

            def numbers(like: torch.Tensor, t: int = t, step: Any = step) -> torch.Tensor:
                u = uniform(SEED, np.arange(side * side), next(step), t, 1)
                return torch.from_numpy(u).reshape(like.shape)

            torch.rand_like = numbers
            x[:, t], _ = model.maskgit_generate(x, t, maskgit_steps=steps, unmask_mode=order)
            made.append(x[0, t].reshape(-1).clone())
        found[order] = torch.stack(made).numpy()
    torch.rand_like = rand_like
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("upstream", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--frames", type=int, default=0, help="stop after so many frames of the window; 0: all")
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    import_upstream(args.upstream)
    from genie.config import GenieConfig  # type: ignore[import-not-found]
    from genie.st_mask_git import STMaskGIT, cosine_schedule  # type: ignore[import-not-found]

    torch.manual_seed(1)
    size, out = SIZES[args.size], args.output
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(size["tokenizer"], out / "magvit2.ckpt", args.size == "small")
    patch = 2 ** (len(tokenizer.encoder.down) - 1)
    side = round(size["dynamics"]["S"] ** 0.5) * patch
    expected = pictures(tokenizer, frames(side, 4), patch)
    for name, kind in KINDS.items():
        shorter = {"T": args.frames} if args.frames else {}
        config = {"num_factored_vocabs": 2, **size["dynamics"], **kind, **shorter}
        model = STMaskGIT(GenieConfig(**config))
        if kind["use_mup"]:
            model.set_mup_shapes()
        model.init_weights()
        randomise(model, args.size != "small")
        model.save_pretrained(out / name, config=vars(model.config))
        (out / name / "README.md").unlink(missing_ok=True)
        model = STMaskGIT.from_pretrained(out / name).eval()
        rng = np.random.default_rng(2)
        prompt = rng.integers(0, config["image_vocab_size"], (2, config["S"]))
        expected |= {f"{name}_{key}": value for key, value in generations(model, prompt).items()}
    rows = []
    for total in (1, 7, 16, 100, 256, 400):
        for steps in (1, 2, 3, 8, 16):
            for m in range(steps - 1):
                rows.append((total, steps, m, int(np.ceil(cosine_schedule((m + 1) / steps) * total))))
    expected["schedule"] = np.array(rows)
    np.savez_compressed(out / "expected.npz", **expected)
    for name, value in expected.items():
        print(name, value.dtype, value.shape)


if __name__ == "__main__":
    main()
