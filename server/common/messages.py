"""Messages of a websocket: JSON objects with a type. Their numbers are checked."""

from __future__ import annotations

import json
from typing import Any

from genie_cpp.errors import GenieError


class ProtocolError(GenieError):
    """A message that the server does not understand."""


def parse(text: str, most: int) -> dict[str, Any]:
    """Parse a message of the client. Raises ProtocolError."""
    if len(text) > most:
        raise ProtocolError(f"the message has {len(text)} characters; {most} are the limit")
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        raise ProtocolError("the message is not JSON") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("a message must be an object with a type")
    return message


def whole(message: dict[str, Any], name: str, least: int, most: int, default: int | None = None) -> int:
    """An integer in a message. Raises ProtocolError."""
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = json.dumps(value)[:40]
        raise ProtocolError(f"{message['type']}: {name} must be a whole number in {least}…{most}, not {shown}")
    return value


def number(message: dict[str, Any], name: str, least: float, most: float) -> float:
    """A number in a message. Raises ProtocolError."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        shown = json.dumps(value)[:40]
        raise ProtocolError(f"{message['type']}: {name} must be a number in {least:g}…{most:g}, not {shown}")
    return float(value)


def text(message: dict[str, Any], name: str, most: int = 400) -> str:
    """A text in a message. Raises ProtocolError."""
    value = message.get(name)
    if not isinstance(value, str) or len(value) > most:
        shown = json.dumps(value)[:40]
        raise ProtocolError(f"{message['type']}: {name} must be a text of at most {most} characters, not {shown}")
    return value
