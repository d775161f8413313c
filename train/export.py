"""The trained parts as one native checkpoint, with names for its latent actions and pictures to start from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from genie_cpp.convert.reference.model import Genie
from genie_cpp.train.dataset import UNKNOWN, Dataset, to_float
from genie_cpp.train.errors import TrainError

STARTS = 12


def load_part(model: nn.Module, path: Path) -> None:
    """Load a trained part's weights into `model`. Raises TrainError."""
    state = path.with_suffix(".training.pt")
    if not state.exists():
        raise TrainError(f"{state.name} is not there", f"train the {path.name} first")
    weights = torch.load(state, weights_only=True, map_location="cpu")["model"]
    model.load_state_dict({k: v for k, v in weights.items() if not k.startswith("shift_decoder.")})
    model.eval()


@torch.no_grad()
def named(genie: Genie, held: Dataset, names: Sequence[str]) -> NDArray[np.int64]:
    """Give each latent action the name of the true action that it mostly stands for, and sort them, the purest first.

    A latent is "mixed" if no action has two thirds of its cases, "unused" if it never occurs. Returns the counts
    [latent, true action] on held-out clips, in the new order.
    """
    assert held.actions is not None
    at = held.windows(held.length - 1)
    known = (held.actions[at[:, :-1]] != UNKNOWN) & ~held.blocked[at[:, :-1]]
    table = np.zeros((genie.config.action_count, len(names)), int)
    for window, seen in zip(at, known, strict=True):
        latents = genie.lam.infer(to_float(torch.from_numpy(held.frames[window]))[None])[0].numpy()
        np.add.at(table, (latents[seen], held.actions[window[:-1]][seen]), 1)
    share = table.max(1) / np.maximum(table.sum(1), 1)
    if genie.dynamics.action_embd is not None:
        order = np.argsort(-share, kind="stable")
        for rows in (genie.lam.vq.codebook, genie.dynamics.action_embd.weight):
            rows.copy_(rows[torch.from_numpy(order)])
        table, share = table[order], share[order]
    found = [names[k] if s >= 2 / 3 else "mixed" for k, s in zip(table.argmax(1), share, strict=True)]
    found = [name if row.any() else "unused" for name, row in zip(found, table, strict=True)]
    genie.config = dataclasses.replace(genie.config, action_names=found)
    return table


def with_sampler(genie: Genie, sampler: dict[str, Any]) -> None:
    genie.config = dataclasses.replace(
        genie.config, dynamics=dataclasses.replace(genie.config.dynamics, sampler=sampler)
    )


def write_starts(held: Dataset, folder: Path) -> int:
    """Write pictures to start from, spread over the held-out clips, as 01-start.png … Returns how many."""
    folder.mkdir(parents=True, exist_ok=True)
    firsts = held.windows(1)[:, 0]
    picked = firsts[np.unique(np.linspace(0, len(firsts) - 1, STARTS).astype(int))]
    for number, frame in enumerate(picked, 1):
        Image.fromarray(held.frames[frame]).save(folder / f"{number:02}-start-{number}.png", optimize=True)
    return len(picked)
