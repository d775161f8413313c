"""What one client may take."""

from __future__ import annotations

from dataclasses import dataclass

from genie_cpp.play.session import MAX_BYTES


@dataclass(frozen=True)
class Limits:
    """Sessions at a time; bytes of a text message, of a picture and of a session's past; pixels; frames of a file;
    seconds until a client that does not take an answer counts as gone; connections open at a time, and of them from one
    address; seconds until a request's header is whole."""

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


@dataclass(frozen=True)
class ServeLimits(Limits):
    """Of `genie-serve`, beyond those of a player.

    rollout_frames: of one request. idle_seconds: until a session that nobody uses is closed. receive_seconds: for a
    whole request body. waiting: requests that may wait for their turn on one session. max_steps: of the sampler, where
    the model's own are not more.
    """

    message_bytes: int = 64 << 10
    rollout_frames: int = 256
    idle_seconds: float = 600.0
    receive_seconds: float = 30.0
    waiting: int = 4
    max_steps: int = 64
