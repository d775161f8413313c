"""Whether a part has learned what the next one needs, on held-out clips. A stage that failed ends the run, with why."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from genie_cpp.convert.reference.model import LatentActionModel, Tokenizer
from genie_cpp.train.dataset import Dataset
from genie_cpp.train.errors import TrainError
from genie_cpp.train.losses import Decoder

CLIPS = 16
LEAST_CODES = 4  # that a tokenizer uses
LEAST_GAIN = 1.0  # dB of a tokenizer over the mean colour of all frames
LEAST_SHUFFLED = 0.1  # dB that a code's knowledge of the change is worth
MORE = "more --minutes may help; the same command goes on from here"


@torch.no_grad()
def tokenizer(model: Tokenizer, held: Dataset) -> dict[str, float]:
    """Raises TrainError if the codes collapsed."""
    model.eval()
    video = held.batch(CLIPS)
    pixels, ids, _ = model(video)
    mse, mean = F.mse_loss(pixels.clamp(0, 1), video), video.mean((0, 1, 2, 3))
    found = {
        "reconstruction_db": float(-10 * mse.log10()),
        "over_mean_db": float(10 * (F.mse_loss(mean.expand_as(video), video) / mse).log10()),
        "codes_used": float(ids.unique().numel()),
    }
    if found["codes_used"] < LEAST_CODES or found["over_mean_db"] < LEAST_GAIN:
        raise TrainError(
            f"the tokenizer collapsed: it uses {found['codes_used']:.0f} codes, and its pictures are "
            f"{found['over_mean_db']:.1f} dB better than one colour",
            MORE,
        )
    return found


@torch.no_grad()
def actions(model: LatentActionModel, decoder: Decoder | None, held: Dataset) -> dict[str, float]:
    """decoder: None for a LAM that was told the keys. Raises TrainError if its codes say nothing about the change."""
    model.eval()
    video = held.batch(CLIPS)
    codes, ids, _ = model.vq(model.latents(video))
    found = {"actions_used": float(ids.unique().numel())}
    if decoder is not None:

        def error(codes: Tensor) -> Tensor:
            return F.mse_loss(decoder(video, codes), video[:, 1:])

        known, copied = error(codes), F.mse_loss(video[:, :-1], video[:, 1:])
        other = torch.stack([error(F.embedding(ids.roll(k, 0), model.vq.codebook)) for k in (1, 2, 3)]).mean()
        found["over_copying_db"] = float(10 * (copied / known).log10())
        found["over_shuffled_db"] = float(10 * (other / known).log10())
    if found["actions_used"] < 2 or found.get("over_shuffled_db", LEAST_SHUFFLED) < LEAST_SHUFFLED:
        raise TrainError(
            f"no actions were found: {found['actions_used']:.0f} of the codes are used, and they make the next frame "
            f"{found.get('over_shuffled_db', 0):.2f} dB better than any other would",
            f"somebody must act in the videos, and most steps must show it; {MORE}",
        )
    return found
