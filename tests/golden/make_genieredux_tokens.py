"""Make tests/golden/genieredux/use_token.npz: the output of GenieRedux's later code with the weights in that folder.

    python tests/golden/make_genieredux_tokens.py UPSTREAM

UPSTREAM is a checkout of its CVPR 2025 code; it needs einops and beartype. That code reads the same files
differently: with `use_token` the codes of the tokens are added to their embeddings. The weights are those of
make_genieredux.py.
Written: guided_logits and genieredux_logits float32 [T-1, P, V], of the frames and actions of expected.npz.
"""

from __future__ import annotations

import argparse
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch
from make_genieredux import ACTIONS, SIZES

FOLDER = Path(__file__).parent / "genieredux"


def upstream(path: Path) -> Any:
    """The upstream's `models`. Its logger needs a terminal with colours."""
    import logging

    logger = types.ModuleType("tools.logger")
    logger.getLogger = logging.getLogger  # type: ignore[attr-defined]
    sys.modules["tools"], sys.modules["tools.logger"] = types.ModuleType("tools"), logger
    sys.path.insert(0, str(path))
    import models  # type: ignore[import-not-found]

    return models


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream", type=Path)
    models, size = upstream(parser.parse_args().upstream), SIZES["small"]
    tokenizer = models.Tokenizer(**size["common"], **size["codec"], codebook_size=size["codes"], wandb_mode="disabled")
    tokenizer.load_state_dict(torch.load(FOLDER / "tokenizer.pt", weights_only=True)["model"])
    with np.load(FOLDER / "expected.npz") as data:
        tokens = torch.from_numpy(data["tokens"].astype(np.int64))
        forced = torch.from_numpy(data["guided_forced_actions"].astype(np.int64))
    side = size["common"]["image_size"] // size["common"]["patch_size"]
    found = {}
    for name in ("guided", "genieredux"):
        maskgit = models.MaskGIT(
            **size["common"],
            **size["dynamics"],
            is_guided=name == "guided",
            action_dim=ACTIONS,
            num_tokens=size["codes"],
            max_seq_len=size["max_seq_len"][name],
            use_token=True,
        )
        dynamics = models.Dynamics(maskgit=maskgit, inference_steps=1, sample_temperature=0.0)
        if name == "guided":
            world = models.GenieReduxGuided(tokenizer, dynamics, use_action_embeddings=False)
        else:
            lam = models.LatentActionModel(
                **size["common"], **size["codec"], codebook_size=ACTIONS, wandb_mode="disabled"
            )
            world = models.GenieRedux(tokenizer, lam, dynamics)
        world.load_state_dict(torch.load(FOLDER / f"{name}.pt", weights_only=True)["model"])
        world.eval()
        with torch.no_grad():
            grid = tokens[None, :-1].unflatten(2, (side, side))
            logits = maskgit(grid, world.get_codes_from_indices(forced[None]), tokenizer=tokenizer)
        found[f"{name}_logits"] = logits[0].view(len(tokens) - 1, side * side, -1).numpy()
    np.savez_compressed(FOLDER / "use_token.npz", **found)


if __name__ == "__main__":
    main()
