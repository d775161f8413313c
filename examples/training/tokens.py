"""Recorded frames as the dynamics model sees them: tokens, latent actions, and how rare each code is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from data import Clips, to_float
from rich.progress import track
from torch import Tensor

from genie_cpp.convert.reference.model import Genie


@torch.no_grad()
def tokenized(genie: Genie, data: Path, output: Path, stride: int) -> tuple[Tensor, Tensor]:
    """Ids [M, T, P] and latent actions [M, T] (-1 first) of every training window. Cached in `output/tokens.npz` while
    the tokenizer, the LAM, the data and the stride stay the same."""
    cache, made_with = output / "tokens.npz", hashlib.sha256(f"{stride} {data.resolve()}".encode())
    made_with.update(str((data / "train.npz").stat().st_mtime_ns).encode())
    for part in (genie.tokenizer, genie.lam):
        for tensor in part.state_dict().values():
            made_with.update(tensor.cpu().numpy().tobytes())
    same = False
    if cache.exists():
        with np.load(cache) as kept:
            same = "made_with" in kept and str(kept["made_with"]) == made_with.hexdigest()
    if not same:
        clips = Clips(data, "train", genie.config.context_length)
        frames, keys, blocked = clips.windows(stride)
        device = next(genie.parameters()).device
        ids, actions = [], []
        for clip in track(frames.split(16), "tokenizing"):
            video = to_float(clip.to(device))
            tokens, acted = genie.tokenizer.encode(video), genie.lam.infer(video)
            ids.append(tokens.cpu().to(torch.int32))
            actions.append(F.pad(acted, (1, 0), value=-1).cpu().to(torch.int16))
        latents = torch.cat(actions).numpy()
        latents[:, 1:] = pressed(latents[:, 1:], keys, blocked, genie.config.action_count)
        np.savez(cache, ids=torch.cat(ids).numpy(), actions=latents, made_with=made_with.hexdigest())
    with np.load(cache) as data_:
        return torch.from_numpy(data_["ids"]), torch.from_numpy(data_["actions"])


def moved_alike(ids_MTP: Tensor, actions_MT: Tensor, rows: int, columns: int) -> Tensor:
    """[M, T] latent actions, in which those that move the picture alike replace each other at random.

    A latent action model with more codes than actions gives one action several codes, depending on the rest of the
    picture. In play a name always means one of them, so the dynamics must have seen each of them everywhere. A latent's
    effect is the step by which the tokens move in most of its pairs of frames. A pair that clearly moved otherwise gets
    a latent with that effect.
    """
    grid = ids_MTP.unflatten(2, (rows, columns))
    now, before = grid[:, 1:], F.pad(grid[:, :-1], (1, 1, 1, 1), value=-1)
    steps = [(y, x) for y in range(3) for x in range(3)]
    shown = []
    for y, x in steps:  # the share of tokens (inside the frame) that were one step away a frame before
        here = before[..., y : y + rows, x : x + columns]
        seen = here >= 0
        shown.append(((now == here) & seen).sum((-2, -1)) / seen.sum((-2, -1)))
    match, latents = torch.stack(shown, -1), actions_MT[:, 1:].long()
    count = int(latents.max()) + 1
    does = torch.stack([match[latents == k].mean(0).argmax() for k in range(count)])
    best = match.argmax(-1)
    usual = match.gather(-1, does[latents][..., None])[..., 0]
    wrong = usual < match.max(-1).values - 0.1
    wanted = torch.where(wrong, best, does[latents])
    given = latents.clone()
    for step in does.unique():
        alike, those = (does == step).nonzero().flatten(), wanted == step
        given[those] = alike[torch.randint(len(alike), (int(those.sum()),))]
    print(f"latents that do the same: {does.tolist()}; {float(wrong.float().mean()):.4f} of all did something else")
    return torch.cat([actions_MT[:, :1], given.to(actions_MT.dtype)], 1)


def pressed(latents: np.ndarray, keys: np.ndarray, blocked: np.ndarray, count: int) -> np.ndarray:
    """`latents`, changed where a wall was in the way. There frames do not show which key was pressed, so the key gets
    the latent that it mostly has elsewhere."""
    for key in np.unique(keys[blocked]):
        usual = np.bincount(latents[(keys == key) & ~blocked], minlength=count).argmax()
        latents[(keys == key) & blocked] = usual
    return latents


def rarity_of(ids: Tensor, vocabulary: int) -> Tensor:
    """[vocabulary]: 1 for codes of average frequency or above, up to 4 for rare ones, which make up landmarks."""
    seen = torch.bincount(ids.flatten().long(), minlength=vocabulary).float()
    usual = seen[seen > 0].mean()
    return (usual / seen.clamp(min=1)).sqrt().clamp(1, 4)
