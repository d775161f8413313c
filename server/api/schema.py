"""The inputs and outputs of the API, for its checks and its OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from genie_cpp.model import Model
from genie_cpp.sampler import Sampler
from genie_cpp.server.api.sessions import ServedSession

FrameFormat = Literal["png", "npy", "json"]
RolloutFormat = Literal["json", "npy"]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")  # an unknown field is a client's mistake


class SamplerSettings(_Asked):
    """What is left out stays as it is."""

    steps: StrictInt | None = Field(None, ge=1, description="MaskGIT passes per frame.")
    temperature: float | None = Field(None, ge=0, le=100)
    order: Literal["confidence", "random", "largest-probability"] | None = None
    noise: float | None = Field(None, ge=0, le=100)
    threshold: float | None = Field(None, ge=0, le=1)

    def over(self, s: Sampler) -> Sampler:
        """Raises SamplerError."""
        return Sampler(
            s.steps if self.steps is None else self.steps,
            s.temperature if self.temperature is None else self.temperature,
            s.order if self.order is None else self.order,
            s.noise if self.noise is None else self.noise,
            s.threshold if self.threshold is None else self.threshold,
        )


class Step(_Asked):
    action: Annotated[StrictInt, Field(ge=-(2**31), lt=2**31)] | Annotated[StrictStr, Field(max_length=64)] = Field(
        description="A latent action, 0…actions-1 or one of action_names.", examples=[3]
    )


class Rollout(_Asked):
    actions: list[StrictInt | StrictStr] | str = Field(
        description="Latent actions, by number or name; as text `3*8,1` is 3 eight times.", examples=["3*8,1"]
    )


class Problem(BaseModel):
    error: str = Field(description="What is wrong, in one line.")
    hint: str = Field(description="What to do about it; may be empty.")


class Health(BaseModel):
    status: Literal["ok"] = "ok"
    version: str
    sessions: int
    sessions_limit: int


class SamplerInfo(BaseModel):
    steps: int
    temperature: float
    order: str
    noise: float
    threshold: float


class ModelInfo(BaseModel):
    index: int
    name: str
    weights: str
    width: int
    height: int
    actions: int = Field(description="Latent actions: 0…actions-1.")
    action_names: list[str] = Field(description="What each does, where the model says so; else empty.")
    tokens: int = Field(description="Tokens of a frame.")
    codebook_size: int
    context_length: int
    prompt: bool = Field(description="Whether it has a picture of its own to start from.")
    sampler: SamplerInfo
    isa: str
    threads: int
    sha256: str


class SessionInfo(BaseModel):
    id: str
    model: int
    frame_number: int = Field(description="Frames since the prompt's, the prompt included.")
    seed: int
    window: str
    sampler: SamplerInfo


class FrameInfo(BaseModel):
    frame_number: int
    seconds: float = Field(description="Time of the step on the server.")
    png: str = Field(description="The frame: PNG, base64.")


class RolloutInfo(BaseModel):
    frame_number: int = Field(description="Of the last frame.")
    seconds: float
    png: list[str] = Field(description="The frames: PNG, base64.")


class TokensInfo(BaseModel):
    frame_number: int
    tokens: list[int] = Field(description="Ids of the newest frame, row by row.")


def sampler_info(s: Sampler) -> SamplerInfo:
    return SamplerInfo(steps=s.steps, temperature=s.temperature, order=s.order, noise=s.noise, threshold=s.threshold)


def model_info(index: int, model: Model, prompt: bool) -> ModelInfo:
    hp = model.info
    return ModelInfo(
        index=index, name=model.name, weights=model.type, width=hp.frame_width, height=hp.frame_height,
        actions=hp.action_count,
        action_names=list(hp.action_names or ()), tokens=model.token_count, codebook_size=hp.codebook_size,
        context_length=hp.context_length, prompt=prompt, sampler=sampler_info(model.sampler), isa=model.isa,
        threads=model.threads, sha256=model.sha256,
    )  # fmt: skip


def session_info(session: ServedSession) -> SessionInfo:
    world = session.world
    return SessionInfo(
        id=session.id, model=session.index, frame_number=world.n_frames, seed=session.seed, window=world.window,
        sampler=sampler_info(world.sampler),
    )  # fmt: skip


def binary(*kinds: str) -> dict[str, Any]:
    """The content of a binary body or response in OpenAPI."""
    return {"content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}}


def first(faults: Sequence[Any]) -> str:
    """The first of pydantic's errors, on one line."""
    if not faults:
        return "not of the documented form"
    place = ".".join(str(part) for part in faults[0].get("loc", ())[1:])  # without the leading body or query
    text = str(faults[0].get("msg", ""))
    return " ".join(f"{place}: {text}".split())[:200] if place else text[:200]
