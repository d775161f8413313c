"""Train one part of a Genie; run for tokenizer, lam, dynamics in that order (tokenizer and lam are independent).

    python examples/training/train.py tokenizer --config examples/meadow/config.json --data data/meadow \
        --output runs/meadow --minutes 20

Stops at its time budget or at Ctrl-C and keeps what it has; the same command goes on from there. Losses are appended
to `<output>/<part>.csv`. The learning rate follows the share of the budget that has passed.
"""

from __future__ import annotations

import argparse
import csv
import functools
import math
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from data import Clips
from played import Played
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tokens import moved_alike, rarity_of, tokenized
from torch import Tensor, nn

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Dynamics, Genie, LatentActionModel, Tokenizer, patchify, unpatchify
from genie_cpp.convert.reference.stack import STStack
from genie_cpp.convert.reference.vq import VectorQuantizer

Losses = dict[str, Tensor]
Decoder = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[float], Losses]  # given the share of the budget that has passed


def device_of(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


class ShiftDecoder(nn.Module):
    """Frames 1..T-1 and the code after each -> frames 2..T: each patch is a mixture of its old neighbours and itself.

    The decoder of a latent action model is for training only. This one is used if the configuration names none. The
    code and the place choose the mixture (the transformations of Finn et al. 2016, arXiv 1605.07157). It suits games
    that move by whole patches, and finds their directions in minutes on a CPU, where attention needs a GPU.
    """

    def __init__(self, g: GenieConfig, width: int = 64) -> None:
        super().__init__()
        self.patch = g.lam.patch_size
        self.tokens = g.frame_width * g.frame_height // self.patch**2
        self.choose = nn.Sequential(nn.Linear(g.lam.latent_length, width), nn.GELU())
        self.everywhere, self.place = nn.Linear(width, 9), nn.Linear(width, self.tokens * 9)
        nn.init.zeros_(self.place.weight)

    def forward(self, video_BTHWC: Tensor, codes_BTL: Tensor) -> Tensor:
        past = video_BTHWC[:, :-1]
        B, T, H, W, _ = past.shape
        rows, columns = H // self.patch, W // self.patch
        grid = patchify(past, self.patch).view(B, T, rows, columns, -1)
        # Patches beyond the border are unknown. Repeating the border's patches is as good a guess as any.
        wide = torch.cat([grid[:, :, :1], grid, grid[:, :, -1:]], 2)
        wide = torch.cat([wide[:, :, :, :1], wide, wide[:, :, :, -1:]], 3)
        moved = [wide[:, :, y : y + rows, x : x + columns].flatten(2, 3) for y in range(3) for x in range(3)]
        chosen = self.choose(codes_BTL)
        share = (self.place(chosen).view(B, T, self.tokens, 9) + self.everywhere(chosen)[:, :, None]).softmax(-1)
        mixed = sum(share[..., k, None] * part for k, part in enumerate(moved))
        return unpatchify(mixed, H, W, self.patch)


def tokenizer_step(model: Tokenizer, clips: Clips, batch: int, share: float) -> Losses:
    # Neighbouring frames are alike, so a tokenizer of single frames learns more from mixed ones.
    video = clips.batch(batch, mixed=model.g.tokenizer.kind == "vit")
    pixels, ids, commitment = model(video)
    mse = F.mse_loss(pixels.float(), video)
    return {"loss": mse * 10 + 0.02 * commitment, "psnr": -10 * mse.log10(), "codes": ids.unique().numel() + mse * 0}


def lam_step(
    model: LatentActionModel, decoder: Decoder, clips: Clips, batch: int, even: bool, mirror: bool, share: float
) -> Losses:
    model.vq.bypass = 0.5 if share < 0.5 else 0.0
    video = clips.batch(batch)
    if mirror:
        video[: batch // 2] = video[: batch // 2].flip(3)
    seen = video
    if not isinstance(decoder, ShiftDecoder):
        # The encoder sees the clip shifted by an amount that the decoder does not know. So a code cannot mean "to
        # column 5", only "left". (A ShiftDecoder cannot use a column anyway.)
        moves = torch.randint(video.shape[2], (batch, 2)).tolist()
        seen = torch.stack([clip.roll(move, (1, 2)) for clip, move in zip(video, moves, strict=True)])
    codes, ids, commitment = model.vq(model.latents(seen))
    predicted = decoder(video, codes)
    error = (predicted.float() - video[:, 1:]).square().mean((-3, -2, -1))
    change = (video[:, :-1] - video[:, 1:]).square().mean((-3, -2, -1))
    mse, copied = error.mean(), change.mean()
    # Relative to the change, so that a slow walk, with few changed pixels, counts as much as a fast fall.
    relative = (error / (change + 0.1 * copied)).mean()
    with torch.no_grad():  # how much the code helps: the same prediction with another clip's codes
        codes = F.embedding(ids.roll(1, 0), model.vq.codebook)
        shuffled = F.mse_loss(decoder(video, codes).float(), video[:, 1:])
    return {
        "loss": (relative if even else mse * 100) + 0.02 * commitment,
        "over_copy_db": 10 * (copied / mse).log10(),
        "over_shuffled_db": 10 * (shuffled / mse).log10(),
        "codes": ids.unique().numel() + mse * 0,
    }


def lam_keys_step(model: LatentActionModel, clips: Clips, batch: int, share: float) -> Losses:
    """If frames alone do not separate two actions, the recorded keys can: code k is key k."""
    video, keys = clips.labelled(batch)
    z = F.normalize(model.latents(video).float(), dim=-1)
    logits, keys = (z @ model.vq.codebook.T).flatten(0, 1) / 0.1, keys.flatten()
    return {
        "loss": F.cross_entropy(logits, keys, ignore_index=-1),
        "accuracy": (logits.argmax(-1) == keys).sum() / (keys >= 0).sum(),
    }


@torch.no_grad()
def spread(codes_KL: Tensor) -> Tensor:
    """The same number of unit vectors, pushed apart from each other."""
    codes = F.normalize(codes_KL.clone(), dim=-1)
    for _ in range(500):
        near = (codes @ codes.T - 2 * torch.eye(len(codes), device=codes.device)).exp()
        codes = F.normalize(codes - 0.1 * near @ codes / near.sum(1, keepdim=True), dim=-1)
    return codes


def around(ids_BTP: Tensor, rows: int, columns: int, reach: int) -> Tensor:
    """[B, T-1, P, N]: the tokens of the frame before at or near each place, up to one row and `reach` columns away."""
    B, T, P = ids_BTP.shape
    grid = F.pad(ids_BTP[:, :-1].reshape(B, T - 1, rows, columns), (reach, reach, 1, 1), value=-1)
    near = [grid[:, :, y : y + rows, x : x + columns] for y in range(3) for x in range(2 * reach + 1)]
    return torch.stack(near, -1).reshape(B, T - 1, P, -1)


@torch.no_grad()
def own_context(model: Dynamics, clean: Tensor, action: Tensor, passes: int) -> Tensor:
    """`clean` as the model would have predicted it from the frame `passes` earlier, with the same actions."""
    context, unknown = clean, torch.full_like(clean, model.mask_id)
    unknown[:, 0] = clean[:, 0]
    for _ in range(passes):
        logits = model.teacher_forced(context, unknown, action).float()
        noise = -torch.empty_like(logits).exponential_().log()
        context = torch.cat([clean[:, :1], (logits + noise).argmax(-1)[:, 1:]], 1)
    return context


def dynamics_step(
    model: Dynamics,
    ids: Tensor,
    actions: Tensor,
    batch: int,
    corrupt: float,
    own: float,
    share: float,
    played: Played | None = None,
    rarity: Tensor | None = None,
) -> Losses:
    pick = torch.randint(len(ids), (batch,), device=ids.device)
    clean, action = ids[pick].long(), actions[pick].long()
    B, T, _ = clean.shape
    context = clean
    if played is not None and float(torch.rand(())) < own:
        context, clean, action = (x.to(ids.device) for x in played.sample(B, T))

    def chance(*shape: int) -> Tensor:
        return torch.rand(*shape, device=ids.device)

    rate = torch.cos(math.pi / 2 * chance(B, T, 1))  # the sampler's schedule, so every step is practised
    hidden = chance(*clean.shape) < rate
    hidden[:, 0] = False
    # In play, past frames have mistakes, random ones and the model's own. It learns to go on from these correctly.
    if played is None and own > 0 and float(torch.rand(())) < own:
        context = own_context(model, clean, action, passes=int(torch.randint(1, 4, ())))
    wrong = chance(*clean.shape) < corrupt * chance(B, 1, 1)
    context = torch.where(wrong, torch.randint_like(clean, model.mask_id), context)
    masked = torch.where(hidden, model.mask_id, clean)
    logits = model.teacher_forced(context, masked, action)
    # Tokens that come into sight matter most for a world, but there are few: together they weigh as much as all others.
    # This weight grows during training: until the model has learned that the picture moves, they are only noise.
    columns, rows = model.stack.grid
    new = hidden.clone()
    new[:, 1:] &= ~(around(clean, rows, columns, 2) == clean[:, 1:, :, None]).any(-1)
    old = hidden & ~new
    error = F.cross_entropy(logits.float().flatten(0, 2), clean.flatten(), reduction="none").view(clean.shape)
    weight = old + new * (old.sum() / new.sum().clamp(min=1)).clamp(1, 1 + 11 * min(1.0, share / 0.3))
    if rarity is not None:
        weight = weight * rarity[clean]
    right = logits.argmax(-1) == clean
    return {
        "loss": (error * weight).sum() / weight.sum(),
        "accuracy": (right & old).sum() / old.sum().clamp(min=1),
        "accuracy_new": (right & new).sum() / new.sum().clamp(min=1),
    }


def waves(rows: int, columns: int, length: int) -> Tensor:
    """[rows * columns, length] sines of row and column, 2 to 32 places long: they show which tokens are neighbours."""
    frequency = math.pi * (1 / 16) ** torch.linspace(0, 1, length // 4)
    y, x = torch.arange(rows)[:, None] * frequency, torch.arange(columns)[:, None] * frequency
    y, x = torch.cat([y.sin(), y.cos()], 1)[:, None], torch.cat([x.sin(), x.cos()], 1)[None]
    return 0.03 * torch.cat([y.expand(-1, columns, -1), x.expand(rows, -1, -1)], -1).flatten(0, 1)


@torch.no_grad()
def same_everywhere(model: Tokenizer) -> None:
    """Make an encoder of single patches give a patch the same code at every place. When the picture moves by whole
    patches, the codes then move with it, and the dynamics have nothing else to learn about that."""
    if model.g.tokenizer.encoder.sublayers == ("ffn",):
        positions = model.encoder.pos_space
        positions.copy_(positions.mean(0).expand_as(positions))
        positions.requires_grad_(False)


@torch.no_grad()
def begin_from(genie: Genie, folder: Path) -> None:
    """Take the weights of a native checkpoint."""
    genie.load_state_dict(checkpoint.load(folder).state_dict())
    for module in genie.modules():
        if isinstance(module, VectorQuantizer):
            module.total.copy_(module.codebook)
            module.steps = 1000  # its codes are already spread


def optimizers_of(model: nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the matrices inside blocks, AdamW for all else and for a latent action model.

    With Muon, a dynamics model learns in a hundred steps that the picture moves. With AdamW alone it has then learned
    nothing yet.
    """
    wanted = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    blocks = () if isinstance(model, LatentActionModel) else wanted
    inner = [p for n, p in blocks if ".blk." in n and p.ndim == 2 and "norm" not in n]
    chosen = {id(p) for p in inner}
    rest = [p for _, p in wanted if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    return [adam, torch.optim.Muon(inner, lr=20 * rate, weight_decay=0.01)] if inner else [adam]


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 pays: on a CPU without such instructions PyTorch emulates them, tens of times slower than float."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported()


def run(model: nn.Module, step: Step, path: Path, minutes: float, rate: float, every: int = 25) -> None:
    optimizers = optimizers_of(model, rate)
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    spent, count, budget = 0.0, 0, minutes * 60
    state = path.with_suffix(".training.pt")
    if state.exists():
        saved = torch.load(state, weights_only=True, map_location=device_of(model))
        model.load_state_dict(saved["model"])
        # Weights alone are enough too: warm-up then makes up for the missing moments.
        for optimizer, moments in zip(optimizers, saved.get("optimizers", []), strict=False):
            optimizer.load_state_dict(moments)
        spent, count = saved["spent"], saved["count"]
        for name, module in model.named_modules():
            if f"{name}.usage" in saved["vq"]:
                module.usage, module.total, module.steps = (
                    saved["vq"][f"{name}.usage"],
                    saved["vq"][f"{name}.total"],
                    count,
                )

    def save() -> None:
        vq = {
            f"{n}.{k}": getattr(m, k)
            for n, m in model.named_modules()
            for k in ("usage", "total")
            if hasattr(m, "revive_below")
        }
        torch.save(
            {
                "model": model.state_dict(),
                "optimizers": [optimizer.state_dict() for optimizer in optimizers],
                "spent": spent,
                "count": count,
                "vq": vq,
            },
            state.with_suffix(".tmp"),
        )
        state.with_suffix(".tmp").rename(state)

    model.train()
    if not has_bf16(device_of(model)):
        # In float32 it takes attention for a pattern of another shape, and fails (torch 2.13).
        torch._inductor.config.pattern_matcher = False
    for module in model.modules():
        if isinstance(module, STStack):
            module.compile()
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    last_save, start = time.monotonic(), time.monotonic()
    before, first = spent, count
    log_path = path.with_suffix(".csv")
    fresh = not log_path.exists()
    with (
        log_path.open("a", newline="", encoding="utf-8") as handle,
        Progress(*columns, console=Console(stderr=True)) as progress,
    ):
        log, bar = csv.writer(handle), progress.add_task(path.stem, total=budget, completed=spent)
        try:
            while spent < budget:
                share = spent / budget
                factor = min(1, (count - first + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
                for optimizer, fulls in zip(optimizers, rates, strict=True):
                    for group, full in zip(optimizer.param_groups, fulls, strict=True):
                        group["lr"] = factor * full
                with torch.autocast(device_of(model).type, torch.bfloat16, enabled=has_bf16(device_of(model))):
                    losses = step(share)
                model.zero_grad()
                losses["loss"].backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                for optimizer in optimizers:
                    optimizer.step()
                count += 1
                if count == 1 or spent == before:
                    start = time.monotonic()  # compile time does not count
                spent = before + time.monotonic() - start
                if count % every == 0:
                    values = {k: round(float(v.detach()), 4) for k, v in losses.items()}
                    if fresh:
                        log.writerow(["step", "seconds", *values])
                        fresh = False
                    log.writerow([count, round(spent), *values.values()])
                    handle.flush()
                    progress.update(bar, completed=spent, description=f"{path.stem} {count} {values}")
                if time.monotonic() - last_save > 60:
                    save()
                    last_save = time.monotonic()
        except KeyboardInterrupt:
            progress.console.print("stopped; the same command goes on from here")
    save()


def load_part(model: nn.Module, path: Path) -> None:
    """Load a trained part's weights into `model`."""
    state = torch.load(path.with_suffix(".training.pt"), weights_only=True, map_location="cpu")["model"]
    model.load_state_dict({k: v for k, v in state.items() if not k.startswith("shift_decoder.")})
    model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["tokenizer", "lam", "dynamics"])
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--start", type=Path, help="a native checkpoint to begin from instead of from nothing")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--corrupt", type=float, default=0.1, help="largest share of wrong context tokens (dynamics)")
    parser.add_argument(
        "--own", type=float, default=0.5, help="share of steps that go on from its own frames (dynamics)"
    )
    parser.add_argument("--keys", action="store_true", help="learn from the recorded keys what an action is (lam)")
    parser.add_argument(
        "--walks", type=int, default=0, help="of its own, played through the C core; 0: none (dynamics)"
    )
    parser.add_argument("--every", type=int, default=300, help="steps after which these are played anew (dynamics)")
    parser.add_argument(
        "--alike", action="store_true", help="take latents for each other that move the picture alike (dynamics)"
    )
    parser.add_argument("--rare", action="store_true", help="weigh codes more that are seldom seen (dynamics)")
    parser.add_argument("--even", action="store_true", help="weigh slow and fast changes alike (lam)")
    parser.add_argument("--mirror", action="store_true", help="mirror half of the clips (lam)")
    parser.add_argument("--stride", type=int, default=8, help="frames between tokenized windows (dynamics)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):  # a shell ignores these for background jobs
        signal.signal(stop, signal.default_int_handler)
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(0)
    args.output.mkdir(parents=True, exist_ok=True)
    config = GenieConfig.load(args.config)
    genie = Genie(config).to(args.device)
    if args.start is not None:
        begin_from(genie, args.start)
    path = args.output / args.part
    model: nn.Module = getattr(genie, args.part)
    if args.part == "dynamics":
        patch, positions = config.tokenizer.patch_size, genie.dynamics.stack.pos_space
        if args.start is None:
            positions.data.copy_(waves(config.frame_height // patch, config.frame_width // patch, positions.shape[1]))
        load_part(genie.tokenizer, args.output / "tokenizer")
        load_part(genie.lam, args.output / "lam")
        ids, actions = (x.to(args.device) for x in tokenized(genie, args.data, args.output, args.stride))
        if args.alike:
            actions = moved_alike(ids, actions, *reversed(genie.dynamics.stack.grid))
        rarity = rarity_of(ids, config.tokenizer.codebook_size) if args.rare else None
        played = Played(genie, ids.cpu(), actions.cpu(), args.stride, args.walks, args.every) if args.walks else None
        run(
            model,
            # First the true frames: the model's own frames are useful only when it is nearly right.
            lambda share: dynamics_step(
                genie.dynamics,
                ids,
                actions,
                args.batch,
                args.corrupt,
                args.own if share > 0.4 else 0,
                share,
                played,
                rarity,
            ),
            path,
            args.minutes,
            args.rate,
        )
        return
    clips = Clips(args.data, "train", config.context_length, args.device)
    step: Step
    if args.part == "tokenizer":
        same_everywhere(genie.tokenizer)
        step = functools.partial(tokenizer_step, genie.tokenizer, clips, args.batch)
    elif args.keys:
        codebook = genie.lam.vq.codebook
        codebook.copy_(spread(codebook))
        step = functools.partial(lam_keys_step, genie.lam, clips, args.batch)
    else:
        decoder: Decoder = genie.lam.predict
        if config.lam.decoder is None:
            genie.lam.shift_decoder = decoder = ShiftDecoder(config).to(args.device)
        step = functools.partial(lam_step, genie.lam, decoder, clips, args.batch, args.even, args.mirror)
    run(model, step, path, args.minutes, args.rate)


if __name__ == "__main__":
    main()
