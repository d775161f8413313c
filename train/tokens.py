"""Recorded frames as the dynamics model sees them: tokens, latent actions, and how rare each code is."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from genie_cpp.convert.reference.model import Genie
from genie_cpp.train.dataset import UNKNOWN, Dataset, Say, Watch, to_float
from genie_cpp.train.starting import device_of


@torch.no_grad()
def tokenized(genie: Genie, clips: Dataset, cache: Path, stride: int, watch: Watch) -> tuple[Tensor, Tensor]:
    """Ids [M, T, P] and latent actions [M, T] (-1 first) of windows that begin every `stride` frames. Cached while the
    tokenizer, the LAM and the windows stay the same."""
    at = clips.windows(stride)
    made_with = hashlib.sha256(at.tobytes())
    for part in (genie.tokenizer, genie.lam):
        for tensor in part.state_dict().values():
            made_with.update(tensor.cpu().numpy().tobytes())
    if cache.exists():
        with np.load(cache) as kept:
            if str(kept["made_with"]) == made_with.hexdigest():
                return torch.from_numpy(kept["ids"]), torch.from_numpy(kept["actions"])
    device, ids, actions = device_of(genie), [], []
    for begin in range(0, len(at), 16):
        watch("tokenizing", begin, len(at))
        video = to_float(torch.from_numpy(clips.frames[at[begin : begin + 16]]).to(device))
        ids.append(genie.tokenizer.encode(video).cpu().to(torch.int32))
        actions.append(F.pad(genie.lam.infer(video), (1, 0), value=-1).cpu().to(torch.int16))
    latents = torch.cat(actions).numpy()
    if clips.actions is not None:
        steps = at[:, :-1]
        latents[:, 1:] = pressed(latents[:, 1:], clips.actions[steps], clips.blocked[steps], genie.config.action_count)
    tokens = torch.cat(ids)
    np.savez(cache, ids=tokens.numpy(), actions=latents, made_with=made_with.hexdigest())
    return tokens, torch.from_numpy(latents)


def moved_alike(ids_MTP: Tensor, actions_MT: Tensor, rows: int, columns: int, say: Say) -> Tensor:
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
    cases = [match[latents == k] for k in range(count)]
    does = torch.stack([(c.mean(0) if len(c) else match.mean((0, 1))).argmax() for c in cases])
    best = match.argmax(-1)
    usual = match.gather(-1, does[latents][..., None])[..., 0]
    wrong = usual < match.max(-1).values - 0.1
    wanted = torch.where(wrong, best, does[latents])
    given = latents.clone()
    for step in does.unique():
        alike, those = (does == step).nonzero().flatten(), wanted == step
        given[those] = alike[torch.randint(len(alike), (int(those.sum()),))]
    say(f"latents that do the same: {does.tolist()}; {float(wrong.float().mean()):.4f} of all did something else")
    return torch.cat([actions_MT[:, :1], given.to(actions_MT.dtype)], 1)


def pressed(
    latents: NDArray[np.int16], keys: NDArray[np.uint8], blocked: NDArray[np.bool_], count: int
) -> NDArray[np.int16]:
    """`latents`, changed where a wall was in the way. There frames do not show which key was pressed, so the key gets
    the latent that it mostly has elsewhere."""
    for key in np.unique(keys[blocked & (keys != UNKNOWN)]):
        usual = np.bincount(latents[(keys == key) & ~blocked], minlength=count).argmax()
        latents[(keys == key) & blocked] = usual
    return latents


def rarity_of(ids: Tensor, vocabulary: int) -> Tensor:
    """[vocabulary]: 1 for codes of average frequency or above, up to 4 for rare ones, which make up landmarks."""
    seen = torch.bincount(ids.flatten().long(), minlength=vocabulary).float()
    usual = seen[seen > 0].mean()
    return (usual / seen.clamp(min=1)).sqrt().clamp(1, 4)
