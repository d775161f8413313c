"""Put the three trained parts together into one native checkpoint (config.json + model.safetensors).

python examples/training/export.py --config examples/meadow/config.json --runs runs/meadow -o runs/meadow/world \
    --data data/meadow --names stay,left,right,up,down

With --names, each latent action is called as the true action that the latent action model mostly takes for it, on
episodes never trained on; "mixed" where that is less than two thirds of the time, "unused" where there are none. Of
several that do the same the one that does nothing else comes first: it is what the name then means.
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
    """A name for each latent action, from the true actions of the test episodes; the purest come first from then on."""
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
