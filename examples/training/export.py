"""Put the three trained parts together into one native checkpoint (config.json + model.safetensors).

python examples/training/export.py --config examples/meadow/config.json --runs runs/meadow -o runs/meadow/world \
    --data data/meadow --names stay,left,right,up,down

With --names, each latent action gets the name of the true action that it mostly stands for, on episodes not used for
training. It is called "mixed" if that is so less than two thirds of the time, "unused" if it never occurs. If several
latent actions get the same name, the purest comes first, and the name then means that one.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import numpy as np
import torch
from data import Clips, to_float
from train import load_part

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Genie


@torch.no_grad()
def action_names(genie: Genie, data: Path, names: list[str]) -> list[str]:
    """A name for each latent action, from the true actions of the test episodes. Sorts the codes, the purest first."""
    length = genie.config.context_length
    frames, actions, blocked = Clips(data, "test", length).windows(4 * length)
    table = np.zeros((genie.config.action_count, len(names)), int)
    for clip, true, wall in zip(frames, actions, blocked, strict=True):
        np.add.at(table, (genie.lam.infer(to_float(clip)[None])[0].numpy()[~wall], true[~wall]), 1)
    share = table.max(1) / np.maximum(table.sum(1), 1)
    if genie.dynamics.action_embd is not None:
        order = np.argsort(-share, kind="stable")
        for rows in (genie.lam.vq.codebook, genie.dynamics.action_embd.weight):
            rows.copy_(rows[torch.from_numpy(order)])
        table, share = table[order], share[order]
    found = [names[k] if s >= 2 / 3 else "mixed" for k, s in zip(table.argmax(1), share, strict=True)]
    return [name if row.any() else "unused" for name, row in zip(found, table, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--half", action="store_true", help="store fp16, without the parts that only training needs")
    parser.add_argument("--data", type=Path, help="to name the latent actions by")
    parser.add_argument("--names", help="true actions' names, comma-separated")
    args = parser.parse_args()
    config = GenieConfig.load(args.config)
    genie = Genie(config)
    for part in ("tokenizer", "lam", "dynamics"):
        load_part(getattr(genie, part), args.runs / part)
    if args.names:
        genie.config = dataclasses.replace(config, action_names=action_names(genie, args.data, args.names.split(",")))
        print(dict(enumerate(genie.config.action_names)))
    dtype = torch.float16 if args.half else torch.float32
    checkpoint.save(genie, args.output, dtype, training_parts=not args.half)


if __name__ == "__main__":
    main()
