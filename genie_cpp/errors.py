"""One exception per kind of fault. `str(error)` is one line; `hint` says what to do about it."""

from __future__ import annotations


class GenieError(Exception):
    """Base of every fault this package reports; the command line prints `error: …` and `hint: …`."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class GGUFError(GenieError):
    """The file is not a well-formed GGUF."""


class ModelError(GenieError):
    """A well-formed GGUF that is not a Genie model, or one that this version cannot run."""


class CheckpointError(GenieError):
    """A checkpoint that cannot be converted."""


class HubError(GenieError):
    """A published world that does not exist or cannot be fetched."""


class ImageError(GenieError):
    """A picture that cannot be read or is of an impossible size."""


class ActionError(GenieError, ValueError):
    """An action that the model does not have."""


class SamplerError(GenieError, ValueError):
    """A sampler setting outside its range."""


class StateError(GenieError):
    """A saved state that does not belong to this model, or a world stepped before `reset`."""


class OutputError(GenieError):
    """An output that exists or cannot be written."""


class BenchError(GenieError):
    """A benchmark that cannot be run as asked."""


class NativeError(GenieError):
    """The C core failed: out of memory, no threads, or an ISA that this CPU does not have."""
