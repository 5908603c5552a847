"""Answers as bytes: an object, always, for Cortex fails every poll of anything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import to_json

from project.engine import ModelInfo
from project.inputs import Submission
from project.problems import Problem
from project.sentiment.prediction import Prediction

Outcome = Prediction | Problem
"""What became of one text."""


def answer(submission: Submission, outcomes: Sequence[Outcome], model: ModelInfo | None) -> bytes:
    """The answer to a request: one outcome per text of ``submission``, in their order.

    Args:
        model: None: there is none yet, and no text that it would be needed for.
    """
    provenance = _provenance(model) if model is not None else {}
    named = {} if submission.id is None else {"id": submission.id}
    entries = [
        _entry(outcome, text_id, submission.top_k)
        for outcome, text_id in zip(outcomes, submission.ids, strict=True)
    ]
    if submission.single:
        return to_json({**entries[0], **named, **provenance})
    return to_json({"predictions": entries, **named, **provenance})


def error_result(problem: Problem) -> bytes:
    """The answer that tells a request from the queue what is wrong with it."""
    return to_json({"error": problem.members()})


def _provenance(model: ModelInfo) -> dict[str, str]:
    return {"model": model.name, "revision": model.revision, "backend": model.backend}


def _entry(outcome: Outcome, text_id: str | None, top_k: int | None) -> dict[str, Any]:
    entry: dict[str, Any] = (
        {"error": outcome.members()} if isinstance(outcome, Problem) else _scored(outcome, top_k)
    )
    if text_id is not None:
        entry["id"] = text_id
    return entry


def _scored(prediction: Prediction, top_k: int | None) -> dict[str, Any]:
    return {
        "label": prediction.label,
        "score": prediction.score,
        "scores": _best(prediction.scores, top_k),
        "tokens": prediction.tokens,
        "windows": prediction.windows,
        "truncated": prediction.truncated,
    }


def _best(scores: Mapping[str, float], top_k: int | None) -> Mapping[str, float]:
    if top_k is None or top_k >= len(scores):
        return scores
    return dict(sorted(scores.items(), key=lambda item: item[1], reverse=True)[:top_k])
