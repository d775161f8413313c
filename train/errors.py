"""What can go wrong in training."""

from __future__ import annotations

from genie_cpp.errors import GenieError


class TrainError(GenieError):
    """Videos that a world cannot be learned from, a folder of another run, or a stage that failed."""
