"""Play Genie world models on the CPU: `World.load().reset(picture)`, then `.step(action)`."""

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
