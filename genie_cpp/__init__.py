"""Play Genie world models on the CPU: `World.load().reset(picture)`, then `.step(action)`.

A name is imported when it is first used (PEP 562), so that a command loads only what it needs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genie_cpp.errors import (
        ActionError,
        BenchError,
        CheckpointError,
        GenieError,
        GGUFError,
        ImageError,
        ModelError,
        NativeError,
        OutputError,
        SamplerError,
        StateError,
    )
    from genie_cpp.model import Model
    from genie_cpp.sampler import Sampler
    from genie_cpp.version import __version__
    from genie_cpp.world import World

__all__ = [
    "ActionError",
    "BenchError",
    "CheckpointError",
    "GGUFError",
    "GenieError",
    "ImageError",
    "Model",
    "ModelError",
    "NativeError",
    "OutputError",
    "Sampler",
    "SamplerError",
    "StateError",
    "World",
    "__version__",
]

_HOMES = {"Model": "model", "Sampler": "sampler", "World": "world", "__version__": "version"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"genie_cpp.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
