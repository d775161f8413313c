"""The messages between the page and the server over a websocket, subprotocol `genie-play.2`.

The client sends JSON objects with a `type`, or a file as a binary message. A picture starts a world; a saved session is
replayed by the `replay` messages that follow. The server sends JSON objects, and frames as binary messages: uint32
(little endian) length of a JSON object, the object, a PNG. Every message of the client gets one answer, in order. It
may be an `error`, after which the session goes on.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from genie_cpp.errors import GenieError
from genie_cpp.play.session import Session

VERSION = 2
SUBPROTOCOL = f"genie-play.{VERSION}"


def error(fault: GenieError) -> dict[str, Any]:
    return {"type": "error", "message": str(fault), "hint": fault.hint}


def frame(session: Session, **more: Any) -> bytes:
    """The frame shown. `first` and `last`: depths of the path's ends. more: extra fields."""
    node, path = session.node, session.path
    head: dict[str, Any] = {
        "type": "frame",
        "id": node.id,
        "depth": node.depth,
        "action": node.action,
        "first": session.nodes[path[0]].depth,
        "last": session.nodes[path[-1]].depth,
        "ms": {name: round(1000 * seconds, 2) for name, seconds in session.times.items()},
        **more,
    }
    text = json.dumps(head, separators=(",", ":")).encode()
    return struct.pack("<I", len(text)) + text + node.png
