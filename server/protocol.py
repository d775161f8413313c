"""What the page and the server say to each other over a websocket, subprotocol `genie-play.1`.

The client sends JSON objects with a `type`, or a file as a binary message: a picture starts a world, and a saved
session is opened by the `replay` messages that follow. The server sends JSON objects, and frames as binary messages:
uint32 (little endian) length of a JSON object, the object, a PNG. Every message of the client has one answer, in
order; `error` is one, and the session goes on after it.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from ..errors import GenieError
from ..session import Session

VERSION = 1
SUBPROTOCOL = f"genie-play.{VERSION}"


class ProtocolError(GenieError):
    """A message that says nothing the server understands."""


def parse(text: str, most: int) -> dict[str, Any]:
    """A message of the client. Raises ProtocolError."""
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
    """A whole number of a message. Raises ProtocolError."""
    value = message.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        shown = json.dumps(value)[:40]
        raise ProtocolError(f"{message['type']}: {name} must be a whole number in {least}…{most}, not {shown}")
    return value


def number(message: dict[str, Any], name: str, least: float, most: float) -> float:
    """A number of a message. Raises ProtocolError."""
    value = message.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        shown = json.dumps(value)[:40]
        raise ProtocolError(f"{message['type']}: {name} must be a number in {least:g}…{most:g}, not {shown}")
    return float(value)


def error(fault: GenieError) -> dict[str, Any]:
    return {"type": "error", "message": str(fault), "hint": fault.hint}


def frame(session: Session, whole_path: bool = False, **more: Any) -> bytes:
    """The frame shown. `first` and `last` are depths of the path's ends; `path`, where asked for, the ids between.

    more: of an opened session.
    """
    node, path = session.node, session.path
    head: dict[str, Any] = {
        "type": "frame",
        "id": node.id,
        "depth": node.depth,
        "action": node.action,
        "first": session.nodes[path[0]].depth,
        "last": session.nodes[path[-1]].depth,
        "ms": {name: round(1000 * seconds, 2) for name, seconds in session.times.items()},
    }
    if whole_path:
        head["path"] = path
    head.update(more)
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + node.png
