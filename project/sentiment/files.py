"""A model's folder: where it is, and what its files say."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WEIGHTS = Path(__file__).parent / "weights"
"""The model that the project ships."""

WEIGHTS_FILE = "model.safetensors"
GRAPH_FILE = "model.onnx"
REVISION_DIGITS = 12
DOWNLOADED = ["*.json", "*.safetensors", "*.txt", "*.model", GRAPH_FILE]
"""What is fetched of a Hub id: configuration, tokenizer, weights and graph, in no other format."""


class ModelError(RuntimeError):
    """The model could not be loaded."""


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What inference needs of ``config.json`` and ``tokenizer_config.json``.

    Attributes:
        labels: names by class index.
        window: the most tokens that the model reads at once, special tokens included.
    """

    labels: tuple[str, ...]
    window: int
    pad_id: int


def find_model(model: str | Path, revision: str | None = None) -> Path:
    """The folder of a local model, or of a downloaded Hub id.

    Raises:
        ModelError: there is no such folder, and no such id can be downloaded.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download  # slow to import, and only needed here

    try:
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=DOWNLOADED))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {str(model)!r} is no folder, and cannot be downloaded: {error}"
        ) from error


def read_model_config(folder: Path) -> ModelConfig:
    """Read the configuration of a sequence-classification model.

    Raises:
        ModelError: a file is missing, or names no labels.
    """
    config, tokenizer = _read_json(folder / "config.json"), {}
    if (folder / "tokenizer_config.json").exists():
        tokenizer = _read_json(folder / "tokenizer_config.json")
    try:
        labels = config["id2label"]
        positions = int(config.get("max_position_embeddings", 512))
        return ModelConfig(
            labels=tuple(labels[str(index)] for index in range(len(labels))),
            window=min(positions, int(tokenizer.get("model_max_length", positions))),
            pad_id=int(config.get("pad_token_id") or 0),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder}/config.json: no sequence classifier: {error!r}") from error


def weights_revision(folder: Path) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the weights, or of the first file of them.

    Raises:
        ModelError: there are no weights.
    """
    files = [folder / WEIGHTS_FILE, *sorted(folder.glob("*.safetensors")), *folder.glob("*.bin")]
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
