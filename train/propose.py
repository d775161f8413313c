"""A configuration for the videos and the time that there are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from genie_cpp.convert.reference.config import DynamicsConfig, GenieConfig, LamConfig, TokenizerConfig
from genie_cpp.spec.stack_spec import StackParams
from genie_cpp.train.errors import TrainError
from genie_cpp.train.videos import Facts

PRESETS = ("tiny", "small", "paper-appendix-f")
SMALL_FRAME = 80  # pixels: up to this width and height, a game's own size is taken, with patches of 4
PIXELS = 128 * 80  # of a frame, otherwise
PATCH = 8
SHORT = 30.0  # minutes: below this the tiny model learns more than the small one


def frame_size(videos: Sequence[Facts]) -> tuple[int, int]:
    """Width and height for these videos: the shape that most of them have, in whole patches."""
    shapes = [(v.width, v.height) for v in videos]
    width, height = max(set(shapes), key=shapes.count)
    if max(width, height) <= SMALL_FRAME:
        return max(4, width // 4 * 4), max(4, height // 4 * 4)
    scale = min(1.0, math.sqrt(PIXELS / (width * height)))
    return tuple(max(PATCH, round(side * scale / PATCH) * PATCH) for side in (width, height))  # type: ignore[return-value]


def parsed_size(text: str) -> tuple[int, int]:
    """ "128x80" -> (128, 80). Raises TrainError."""
    across, x, down = text.lower().partition("x")
    if not (x and across.isdecimal() and down.isdecimal() and len(across) < 6 and len(down) < 6):
        raise TrainError(f"--size is WIDTHxHEIGHT in pixels, such as 128x80, not {text!r}")
    width, height = int(across), int(down)
    if not (8 <= width <= 1024 and 8 <= height <= 1024) or width % 4 or height % 4:
        raise TrainError(f"--size {text}: the sides must be multiples of 4 from 8 to 1024")
    return width, height


def config(
    width: int, height: int, preset: str | None, minutes: float, actions: int, context: int, name: str
) -> GenieConfig:
    """The configuration of a preset for frames of this size; None: by the time there is. Raises TrainError."""
    chosen = preset or ("tiny" if minutes < SHORT else "small")
    if chosen not in PRESETS:
        raise TrainError(f"there is no preset {chosen!r}", f"choose among {', '.join(PRESETS)}")
    small_frame = max(width, height) <= SMALL_FRAME
    patch = 4 if small_frame or width % PATCH or height % PATCH or chosen == "paper-appendix-f" else PATCH
    made = {"tiny": _tiny, "small": _small, "paper-appendix-f": _paper}[chosen]()
    tokenizer, lam, dynamics = made
    lam_patch = next((p for p in (lam.patch_size, 8, 4) if width % p == 0 and height % p == 0), 4)
    return GenieConfig(
        dataclasses.replace(tokenizer, patch_size=patch),
        dataclasses.replace(lam, patch_size=lam_patch),
        dynamics,
        frame_width=width,
        frame_height=height,
        context_length=context,
        action_count=actions,
        card={"name": name, "description": f"trained by genie-train, preset {chosen}"},
    )


def _stack(blocks: int, width: int, heads: int, ffn: int, *sublayers: str, qk_norm: bool = False) -> StackParams:
    return StackParams(
        block_count=blocks,
        embedding_length=width,
        head_count=heads,
        key_length=width // heads,
        feed_forward_length=ffn,
        sublayers=sublayers or ("spatial", "temporal", "ffn"),
        qk_norm=qk_norm,
    )


Parts = tuple[TokenizerConfig, LamConfig, DynamicsConfig]


def _tiny() -> Parts:
    return (
        TokenizerConfig(_stack(2, 96, 3, 192, "ffn"), _stack(2, 96, 3, 192, "spatial", "ffn"), "vit", 8, 512),
        LamConfig(_stack(2, 96, 3, 192, "spatial", "ffn"), None, 8, 6, difference=True),
        DynamicsConfig(_stack(3, 128, 4, 256, qk_norm=True), {"steps": 2, "temperature": 0}),
    )


def _small() -> Parts:
    return (
        TokenizerConfig(_stack(2, 128, 4, 256, "ffn"), _stack(2, 128, 4, 256, "spatial", "ffn"), "vit", 8, 1024),
        LamConfig(_stack(2, 96, 3, 192, "spatial", "ffn"), None, 8, 6, difference=True),
        DynamicsConfig(_stack(4, 192, 6, 384, qk_norm=True), {"steps": 2, "temperature": 0}),
    )


def _paper() -> Parts:
    """The widths of arXiv 2402.15391, appendix F. The LAM sees differences, without which it needs far more steps."""
    stack = _stack(8, 512, 8, 2048)
    return (
        TokenizerConfig(stack, stack, "st-vivit", 4, 1024),
        LamConfig(stack, stack, 8, 32, difference=True),
        DynamicsConfig(_stack(12, 512, 8, 2048, qk_norm=True), {"steps": 25, "temperature": 1.0}),
    )
