"""Errors as clients of `genie-serve` see them: a status and `{"error": …, "hint": …}`."""

from __future__ import annotations

from typing import Any

from genie_cpp.errors import GenieError, NativeError


class ApiError(GenieError):
    """An error with an HTTP status."""

    def __init__(self, status: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status = status


def told(error: BaseException) -> tuple[int, dict[str, Any]]:
    """Status and body. Other errors than GenieError are the server's own, so their details are not revealed."""
    if isinstance(error, MemoryError) or (isinstance(error, NativeError) and "memory" in str(error)):
        return 503, {"error": "out of memory", "hint": "delete a session, or try again later"}
    if isinstance(error, GenieError):
        return getattr(error, "status", 400), {"error": str(error), "hint": error.hint}
    return 500, {"error": "internal error", "hint": "please report it, with what the server printed"}
