"""What a step of training minimises, for each of the three parts."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Dynamics, LatentActionModel, Tokenizer
from genie_cpp.convert.reference.stack import patchify, unpatchify
from genie_cpp.train.dataset import Dataset
from genie_cpp.train.played import Played

Losses = dict[str, Tensor]
Decoder = Callable[[Tensor, Tensor], Tensor]


class ShiftDecoder(nn.Module):
    """Frames 1..T-1 and the code after each -> frames 2..T: each patch is a mixture of the old frame's parts near it.

    The decoder of a latent action model is for training only. This one is used if the configuration names none. The
    code and the place choose the mixture (the transformations of Finn et al. 2016, arXiv 1605.07157). It finds the
    directions of a game in minutes on a CPU, where attention needs a GPU. parts: the steps are 1 / parts of a patch, up
    to a whole one.
    """

    def __init__(self, g: GenieConfig, parts: int = 1, width: int = 64) -> None:
        super().__init__()
        self.patch = g.lam.patch_size
        self.tokens = g.frame_width * g.frame_height // self.patch**2
        steps = [k * self.patch // parts for k in range(-parts, parts + 1)]
        self.steps = [(y, x) for y in steps for x in steps]
        self.choose = nn.Sequential(nn.Linear(g.lam.latent_length, width), nn.GELU())
        self.everywhere = nn.Linear(width, len(self.steps))
        self.place = nn.Linear(width, self.tokens * len(self.steps))
        nn.init.zeros_(self.place.weight)

    def forward(self, video_BTHWC: Tensor, codes_BTL: Tensor) -> Tensor:
        past = video_BTHWC[:, :-1]
        B, T, H, W, C = past.shape
        # Beyond the border nothing is known. Repeating the border is as good a guess as any.
        p = self.patch
        wide = F.pad(past.reshape(B * T, H, W, C).permute(0, 3, 1, 2), (p, p, p, p), mode="replicate")
        chosen = self.choose(codes_BTL)
        share = self.place(chosen).view(B, T, self.tokens, -1) + self.everywhere(chosen)[:, :, None]
        share = share.softmax(-1)
        mixed = torch.zeros_like(patchify(past, p))
        for k, (y, x) in enumerate(self.steps):
            moved = wide[:, :, p + y : p + y + H, p + x : p + x + W].permute(0, 2, 3, 1).view(B, T, H, W, C)
            mixed = mixed + share[..., k, None] * patchify(moved, p)
        return unpatchify(mixed, H, W, p)


def tokenizer_step(model: Tokenizer, clips: Dataset, batch: int, share: float) -> Losses:
    # Neighbouring frames are alike, so a tokenizer of single frames learns more from mixed ones.
    video = clips.batch(batch, mixed=model.g.tokenizer.kind == "vit")
    pixels, ids, commitment = model(video)
    mse = F.mse_loss(pixels.float(), video)
    return {"loss": mse * 10 + 0.02 * commitment, "psnr": -10 * mse.log10(), "codes": ids.unique().numel() + mse * 0}


def lam_step(
    model: LatentActionModel, decoder: Decoder, clips: Dataset, even: bool, mirror: bool, batch: int, share: float
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


def lam_keys_step(model: LatentActionModel, clips: Dataset, batch: int, share: float) -> Losses:
    """If frames alone do not separate two actions, the recorded keys can: code k is key k."""
    video, keys = clips.labelled(batch)
    z = F.normalize(model.latents(video).float(), dim=-1)
    logits, keys = (z @ model.vq.codebook.T).flatten(0, 1) / 0.1, keys.flatten()
    return {
        "loss": F.cross_entropy(logits, keys, ignore_index=-1),
        "accuracy": (logits.argmax(-1) == keys).sum() / (keys >= 0).sum(),
    }


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
    """ids [M, T, P], actions [M, T]: windows of tokens. corrupt: largest share of wrong tokens in the context. own:
    share of steps whose context is the model's own. played, rarity: see train.played and train.tokens."""
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
