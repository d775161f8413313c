"""Turns a picture that a client sent into a prompt."""

from __future__ import annotations

from genie_cpp.model import Model
from genie_cpp.play.session import Prompt
from genie_cpp.server.common.decoder import Decoder
from genie_cpp.server.common.limits import Limits
from genie_cpp.server.common.messages import ProtocolError

_decoder = Decoder()


def decode(data: bytes, model: Model, limits: Limits) -> Prompt:
    """A prompt from the bytes of a picture file. Fitted at once, because the file may be large. Raises GenieError."""
    if len(data) > limits.picture_bytes:
        raise ProtocolError(f"the picture has {len(data)} bytes; {limits.picture_bytes} are the limit")
    hp = model.info
    return Prompt(_decoder.frame(data, limits.picture_pixels, hp.frame_width, hp.frame_height))
