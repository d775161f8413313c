"""The messages between the page and the server over a websocket, subprotocol `genie-play.1`.

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

VERSION = 1
SUBPROTOCOL = f"genie-play.{VERSION}"


def error(fault: GenieError) -> dict[str, Any]:
    return {"type": "error", "message": str(fault), "hint": fault.hint}


def frame(session: Session, whole_path: bool = False, **more: Any) -> bytes:
    """The frame shown. `first` and `last`: depths of the path's ends. `path`, if `whole_path`: the ids between them.

    more: extra fields, for an opened session.
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
