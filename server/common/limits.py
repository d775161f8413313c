"""What one client may use."""

from __future__ import annotations

from dataclasses import dataclass

from genie_cpp.play.session import MAX_BYTES


@dataclass(frozen=True)
class Limits:
    """Sessions at a time; bytes of a text message, of a picture and of a session's history; pixels; frames of a file;
    seconds until a client that does not read counts as gone; open connections in total and per address; seconds for a
    request's header; worlds that a player has played on; seconds that a page has to come back."""

    sessions: int = 8
    message_bytes: int = 4096
    picture_bytes: int = 16 << 20
    picture_pixels: int = 16_000_000
    session_bytes: int = MAX_BYTES
    recording_frames: int = 4096
    send_seconds: float = 20.0
    connections: int = 128
    address_connections: int = 96
    header_seconds: float = 10.0
    plays: int = 4
    linger_seconds: float = 900.0


@dataclass(frozen=True)
class ServeLimits(Limits):
    """The limits of `genie-serve`, in addition to those of a player.

    rollout_frames: of one request. idle_seconds: until an unused session is closed. receive_seconds: for a whole
    request body. waiting: requests that may wait for their turn on one session. max_steps: of the sampler, unless the
    model's own number is larger.
    """

    message_bytes: int = 64 << 10
    rollout_frames: int = 256
    idle_seconds: float = 600.0
    receive_seconds: float = 30.0
    waiting: int = 4
    max_steps: int = 64
