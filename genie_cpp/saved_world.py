"""What `World.save` stores: the window's tokens and actions, seed, frame number and settings. Not the model."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genie_cpp.errors import SamplerError, StateError
from genie_cpp.file import state_file
from genie_cpp.model import Model
from genie_cpp.sampler import Sampler
from genie_cpp.window import POLICIES

_VERSION = 1


@dataclass(frozen=True)
class SavedWorld:
    """ids: int32 [T, P]. actions: [T], the first is -1. inferred: how many of the actions the LAM inferred. pixels:
    float32 [T, P, X], only with the window "retokenize"."""

    seed: int
    frame_number: int
    window: str
    sampler: Sampler
    ids: NDArray[np.int32]
    actions: list[int]
    inferred: int
    pixels: NDArray[np.float32] | None

    def to_bytes(self, model: Model) -> bytes:
        s = self.sampler
        head: dict[str, Any] = {
            "version": _VERSION,
            "model": model.sha256,
            "seed": self.seed,
            "frame_number": self.frame_number,
            "window": self.window,
            **({} if model.backend == "cpu" else {"backend": model.backend}),
            "sampler": {field.name: getattr(s, field.name) for field in dataclasses.fields(s)},
        }
        arrays: dict[str, NDArray[Any]] = {"ids": self.ids, "actions": np.array(self.actions, np.int32)}
        if self.pixels is not None:
            head["inferred"], arrays["pixels"] = self.inferred, self.pixels
        return state_file.pack(head, arrays)

    @staticmethod
    def from_bytes(state: bytes, model: Model) -> SavedWorld:
        """Raises StateError if the data is damaged, or belongs to another model or backend."""
        hp = model.info
        largest = max(1, 3 * hp.tokenizer_patch_size**2)
        most = 4 * hp.context_length * (model.token_count * largest + 1) + state_file.MAX_HEAD
        head, arrays = state_file.unpack(state, most)
        try:
            version, of, seed, number = head["version"], head["model"], head["seed"], head["frame_number"]
            settings, window, backend = head["sampler"], head["window"], head.get("backend", "cpu")
            ids, actions = arrays["ids"], arrays["actions"]
            pixels = arrays["pixels"] if window == "retokenize" else None
            inferred = head["inferred"] if pixels is not None else 0
            sampler = Sampler(**settings)
        except (KeyError, TypeError, SamplerError) as error:
            raise StateError(f"not a saved world: {type(error).__name__}: {str(error)[:100]}") from None
        if version != _VERSION:
            raise StateError(f"the saved world has version {str(version)[:20]!r}, this package reads {_VERSION}")
        if of != model.sha256:
            raise StateError("the saved world belongs to another model", "open the model it was saved with")
        if backend != model.backend:  # backends round differently, so the world would not continue as it was saved
            raise StateError(
                f"the saved world was played on another backend, not on {model.backend}",
                "open the model with the backend that it was saved on",
            )
        fits = (
            ids.ndim == 2
            and ids.dtype == np.int32
            and ids.shape[1] == model.token_count
            and 1 <= len(ids) <= hp.context_length
            and actions.shape == (len(ids),)
            and actions.dtype == np.int32
            and 0 <= ids.min()
            and ids.max() < hp.codebook_size
            and -1 <= actions.min()
            and actions.max() < hp.action_count
            and isinstance(window, str)
            and window in POLICIES
            and type(seed) is int
            and 0 <= seed < 1 << 64
            and type(number) is int
            and len(ids) <= number < 1 << 63
            and (pixels is None or _are_pixels(pixels, len(ids), model))
            and type(inferred) is int
            and 0 <= inferred < len(ids)
            and (inferred == 0 or hp.has_lam)
        )
        if not fits:
            raise StateError("the saved world is damaged")
        return SavedWorld(seed, number, window, sampler, ids, actions.tolist(), inferred, pixels)


def _are_pixels(pixels: NDArray[Any], frames: int, model: Model) -> bool:
    shape = (frames, model.token_count, 3 * model.info.tokenizer_patch_size**2)
    return pixels.shape == shape and pixels.dtype == np.float32 and bool(np.isfinite(pixels).all())
