"""A model's folder: where it is, and what its files say."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
"""The model that the project ships."""

WEIGHTS_FILE = "model.safetensors"
GRAPH_FILE = "model.onnx"
TOKENIZER_FILE = "tokenizer.json"
REVISION_DIGITS = 12
SINGLE_LABEL = "single_label_classification"
DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model", GRAPH_FILE]
"""What is fetched of a Hub id: configuration, tokenizer, weights and graph."""

OLD_WEIGHTS = "pytorch_model*.bin"
"""Fetched only where there are no others."""

POSITIONS_AFTER_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "longformer",
        "luke",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Types that number positions from ``pad_token_id + 1``: so many fewer tokens fit their table.

Source: ``create_position_ids_from_input_ids`` in transformers' models.
"""


class ModelError(RuntimeError):
    """The model could not be loaded."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What inference needs of ``config.json`` and ``tokenizer_config.json``.

    Attributes:
        labels: names by class index.
        window: the most tokens that the model reads at once, special tokens included.
        graph: the file of the ONNX graph.
    """

    labels: tuple[str, ...]
    window: int
    pad_id: int
    graph: str = GRAPH_FILE


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a local model, or of a downloaded Hub id.

    Raises:
        ModelError: there is no such folder, and no such id can be downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download  # slow to import, and only needed here

    try:
        folder = Path(snapshot_download(str(model), revision=revision, allow_patterns=DOWNLOADED))
        if not any(folder.glob("*.safetensors")):
            snapshot_download(str(model), revision=folder.name, allow_patterns=[OLD_WEIGHTS])
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {str(model)!r} is no folder, and cannot be downloaded: {error}"
        ) from error
    return folder


def read_model_config(folder: Path) -> ModelConfig:
    """Read the configuration of a sequence-classification model.

    Raises:
        ModelError: a file is missing, or describes no model that chooses one of several labels.
    """
    config, tokenizer = _read_json(folder / "config.json"), {}
    if (folder / "tokenizer_config.json").exists():
        tokenizer = _read_json(folder / "tokenizer_config.json")
    try:
        offset, pad_id = _padding(config)
        positions = int(config.get("max_position_embeddings") or 512) - offset
        return ModelConfig(
            labels=_labels(config),
            window=min(positions, int(tokenizer.get("model_max_length") or positions)),
            pad_id=pad_id,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}/config.json: no sequence classifier: {error!r}") from error
    except ModelError as error:
        raise ModelError(f"{folder}/config.json: {error}") from error


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the labels; where there are none, those that transformers gives.

    Raises:
        ModelError: the model is of another kind: its outputs are no probabilities of labels one of
            which applies.
    """
    kinds = config.get("architectures") or []
    named = config.get("id2label")
    if kinds and not any("SequenceClassification" in kind for kind in kinds):
        raise ModelError(f"no sequence classifier, but {', '.join(kinds)}")
    if not (kinds or named):
        raise ModelError("no sequence classifier: neither architectures nor id2label")
    problem = config.get("problem_type") or SINGLE_LABEL
    if problem != SINGLE_LABEL:
        raise ModelError(f"problem_type is {problem!r}; only {SINGLE_LABEL!r} can be served")
    named = named or {str(i): f"LABEL_{i}" for i in range(config.get("num_labels") or 2)}
    labels = tuple(str(named[str(index)]) for index in range(len(named)))
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise ModelError(f"the labels are {list(labels)}; there must be 2 or more, all different")
    return labels


def _padding(config: Mapping[str, Any]) -> tuple[int, int]:
    """The number of the first position, and the token id of padding."""
    pad_id = config.get("pad_token_id")
    if config.get("model_type") not in POSITIONS_AFTER_PADDING:
        return 0, int(pad_id or 0)
    pad_id = 1 if pad_id is None else int(pad_id)
    return pad_id + 1, pad_id


def weights_revision(folder: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the weights, or of the first file of them.

    Raises:
        ModelError: there are no weights.
    """
    files = [
        folder / WEIGHTS_FILE,
        *sorted(folder.glob("*.safetensors")),
        *sorted(folder.glob(OLD_WEIGHTS)),
    ]
    try:
        with next(file for file in files if file.exists()).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:REVISION_DIGITS]
    except (StopIteration, OSError) as error:
        raise ModelError(f"{folder}: no weights ({WEIGHTS_FILE})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path}: holds no object")
    return value
