"""How a frame is sampled: the settings of docs/sampling.md."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genie_cpp.errors import SamplerError

ORDERS = ("confidence", "random", "largest-probability")
AUTO_THRESHOLD = 0.6  # of --steps auto; docs/performance.md shows the cost


@dataclass(frozen=True)
class Sampler:
    """MaskGIT settings, checked on creation.

    steps: refinement passes per frame, 1…1024. temperature: 0…100, 0 takes the likeliest token. order: which masked
    tokens are filled first, "confidence", "random" or "largest-probability". noise: Gumbel noise on the confidence,
    0…100. threshold: tokens with at least this probability are filled at once, and the frame ends early when no mask is
    left; 0…1, 0 is off.
    Raises SamplerError.
    """

    steps: int = 8
    temperature: float = 1.0
    order: str = "confidence"
    noise: float = 0.0
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or not 1 <= self.steps <= 1024:
            raise SamplerError(f"steps must be a whole number in 1…1024, not {self.steps!r}", "try --steps 8")
        for name, most in (("temperature", 100), ("noise", 100), ("threshold", 1)):
            value = getattr(self, name)
            # Compare before `isfinite`: an integer may be too large to convert to float.
            if not isinstance(value, (int, float)) or not 0 <= value <= most or not math.isfinite(value):
                raise SamplerError(f"{name} must be a number in 0…{most}, not {str(value)[:40]}")
        if self.order not in ORDERS:
            raise SamplerError(f"order must be one of {', '.join(ORDERS)}, not {self.order!r}")
