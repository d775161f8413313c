"""The native checkpoint: a folder with `config.json` and `model.safetensors`."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from genie_cpp.convert.reference.config import GenieConfig
from genie_cpp.convert.reference.model import Genie


def save(model: Genie, folder: Path, dtype: torch.dtype = torch.float32, training_parts: bool = True) -> None:
    """Write the checkpoint; `training_parts=False` leaves out the LAM decoder, which play does not need."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.save(folder / "config.json")
    state = model.state_dict()
    if not training_parts:
        state = {k: v for k, v in state.items() if not k.startswith(LAM_TRAINING)}
    save_file({k: v.to(dtype).contiguous() for k, v in state.items()}, folder / "model.safetensors")


LAM_TRAINING = ("lam.decoder", "lam.action_input")


def load(folder: Path) -> Genie:
    """Read a native checkpoint as fp32. Raises ConfigError, FileNotFoundError, RuntimeError (tensors do not fit)."""
    model = Genie(GenieConfig.load(folder / "config.json"))
    state = {k: v.float() for k, v in load_file(folder / "model.safetensors").items()}
    missing = model.load_state_dict(state, strict=False)
    if lost := [k for k in missing.missing_keys if not k.startswith(LAM_TRAINING)] + missing.unexpected_keys:
        raise RuntimeError(f"the checkpoint's tensors do not fit its config.json: {lost[0]} is missing or unknown")
    return model.eval()
