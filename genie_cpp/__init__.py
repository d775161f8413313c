"""Play Genie world models on the CPU: `World.load().reset(picture)`, then `.step(action)`."""

from .errors import (
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
from .model import Model
from .sampler import Sampler
from .version import __version__
from .world import World

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
