"""What goes over the wire: the answers, as the OpenAPI document describes them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class ProblemDetails(BaseModel):
    """What was wrong with a request or a text: RFC 9457."""

    type: str = Field(examples=["urn:problem-type:sentiment:text-too-long"])
    title: str = Field(description="the same for every problem of this type")
    status: int = Field(description="of HTTP, for a caller who is connected directly", ge=400)
    detail: str = Field(examples=["input_text has 600 tokens, at most 510 are taken"])
    field: str | None = Field(None, description="the part of the request that is at fault")
    limit: float | None = Field(None, description="the most that is taken")


class Refused(BaseModel):
    """In the place of the prediction of a text that cannot be classified."""

    error: ProblemDetails
    id: str | None = Field(None, description="of the text, if it has one")


class Scored(BaseModel):
    """What the model says of one text."""

    label: str = Field(examples=["POSITIVE"])
    score: float = Field(description="probability of the label", ge=0, le=1)
    scores: dict[str, float] = Field(description="probability of every label, or of top_k")
    tokens: int = Field(description="of the whole text")
    windows: int = Field(description="in which the text was read, 1 if the model read it at once")
    truncated: bool = Field(description="whether a part of the text was not read")
    id: str | None = Field(None, description="of the text, if it has one")


class Provenance(BaseModel):
    """Which model answered."""

    model: str = Field(description="its name", examples=["minilm-l6-sst2"])
    revision: str = Field(description="of its weights: the start of their SHA-256")
    backend: str = Field(description="what computed", examples=["onnx"])


class Classification(Scored, Provenance):
    """The answer to one text; ``id`` is the request's."""


class Classifications(Provenance):
    """The answer to a list of texts: an object, for Cortex fails every poll of a bare list."""

    predictions: list[Scored | Refused] = Field(description="one per text, in their order")
    id: str | None = Field(None, description="of the request, if it has one")


class Refusals(BaseModel):
    """The answer to a list, while no model is ready, if no text of it can be classified."""

    predictions: list[Refused] = Field(description="one per text, in their order")
    id: str | None = Field(None, description="of the request, if it has one")


class ErrorResult(BaseModel):
    """The answer to a request from the queue that is at fault itself, with status 200."""

    error: ProblemDetails


class Health(BaseModel):
    """The answer of ``GET /healthcheck``."""

    status: str = Field(description="ready, loading, failed or stalled", examples=["ready"])
    reason: str | None = Field(None, description="why it is not ready")
    model: str | None = None
    revision: str | None = None
    backend: str | None = None
    uptime_seconds: float = Field(description="since the process was started")
