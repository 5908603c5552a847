"""(a) The tutorial: FastAPI, and a ``transformers.pipeline`` call per request."""

from __future__ import annotations

import torch
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

from project.sentiment.cpus import available_cpus
from project.sentiment.files import WEIGHTS

torch.set_num_threads(available_cpus())
classify = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
app = FastAPI()


class Body(BaseModel):
    """A text."""

    input_text: str


@app.post("/")
def post(body: Body) -> dict[str, object]:
    """On FastAPI's thread pool, as a plain function is."""
    (answer,) = classify(body.input_text)
    return dict(answer)


@app.get("/healthcheck")
def healthcheck() -> dict[str, str]:
    """Ready as soon as it is imported."""
    return {"status": "ready"}
