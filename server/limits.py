"""What one client may take."""

from __future__ import annotations

from dataclasses import dataclass

from ..session import MAX_BYTES


@dataclass(frozen=True)
class Limits:
    """Sessions at a time; bytes of a text message, of a picture and of a session's past; pixels; frames of a file."""

    sessions: int = 8
    message_bytes: int = 4096
    picture_bytes: int = 16 << 20
    picture_pixels: int = 16_000_000
    session_bytes: int = MAX_BYTES
    recording_frames: int = 4096
