"""Put the three trained parts together into one native checkpoint (config.json + model.safetensors).

python examples/training/export.py --config examples/hopper/config.json --runs runs/hopper -o runs/hopper/world
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from train import load_part

from genie_cpp.convert.reference import checkpoint
from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Genie


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--half", action="store_true", help="store fp16, without the parts that only training needs")
    args = parser.parse_args()
    genie = Genie(GenieConfig.load(args.config))
    for part in ("tokenizer", "lam", "dynamics"):
        load_part(getattr(genie, part), args.runs / part)
    dtype = torch.float16 if args.half else torch.float32
    checkpoint.save(genie, args.output, dtype, training_parts=not args.half)


if __name__ == "__main__":
    main()
