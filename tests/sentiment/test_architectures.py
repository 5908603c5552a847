"""Other models than BERT, as they lie on the Hub: exported and served, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from project.sentiment import export as module
from project.sentiment import files
from project.sentiment.encoding import TextEncoder
from project.sentiment.export import export
from project.sentiment.files import ModelError, read_model_config
from project.sentiment.golden import GOLDEN_TEXTS, ParityError, check_golden, read_golden
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import BackendName
from project.sentiment.prediction import EncodedText
from tests.sentiment.conftest import sentiment_pipeline
from tests.sentiment.tiny import distilbert, mpnet, roberta

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)
Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("make", "window"), [(roberta, 32), (distilbert, 34), (mpnet, 32)], ids=["r", "d", "m"]
)
def test_architectures(make: Make, window: int, tmp_path: Path) -> None:
    """With a tokenizer in other files and no names of labels: as transformers answers."""
    folder = make(tmp_path / "model")
    assert "id2label" not in json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert not (folder / "tokenizer.json").exists()

    exported = export(str(folder))

    assert exported.difference < 1e-4
    reference = sentiment_pipeline(model=str(folder))
    short = list(GOLDEN_TEXTS[:4])
    expected = [
        {each["label"]: each["score"] for each in reference(text, top_k=None)} for text in short
    ]
    assert {*expected[0]} == {"LABEL_0", "LABEL_1"}
    assert len({round(each["LABEL_1"], 2) for each in expected}) == len(
        short
    )  # it tells them apart
    for backend in (BackendName.ONNX, BackendName.TRANSFORMERS):
        classifier = SentimentClassifier(folder, backend=backend)
        for prediction, scores in zip(classifier.predict(short), expected, strict=True):
            assert prediction.scores == pytest.approx(scores, abs=1e-4)
        (long,) = classifier.predict(["i like you " * 40])
        assert long.windows > 1
        check_golden(classifier, read_golden(folder), 1e-4)
    assert read_model_config(folder).window == window


def written(folder: Path) -> set[str]:
    """What an export has left."""
    return {path.name for path in folder.iterdir()} & {
        "model.onnx", "golden.json", module.DRAFT_FILE
    }  # fmt: skip


CHOOSES_ONE = {"architectures": ["BertForSequenceClassification"], "pad_token_id": 0}


@pytest.mark.parametrize(
    ("config", "labels", "window", "pad_id"),
    [
        ({}, ("LABEL_0", "LABEL_1"), 512, 0),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2"), 512, 0),
        ({"id2label": {"1": "b", "0": "a"}}, ("a", "b"), 512, 0),
        ({"id2label": {"0": "a", "1": "b"}, "architectures": None}, ("a", "b"), 512, 0),
        ({"problem_type": "single_label_classification"}, ("LABEL_0", "LABEL_1"), 512, 0),
        (
            {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1},
            ("LABEL_0", "LABEL_1"),
            512,
            1,
        ),
        (
            {"model_type": "xlm-roberta", "max_position_embeddings": 514, "pad_token_id": None},
            ("LABEL_0", "LABEL_1"),
            512,
            1,
        ),
        (
            {"model_type": "bert", "max_position_embeddings": 514, "pad_token_id": None},
            ("LABEL_0", "LABEL_1"),
            514,
            0,
        ),
    ],
)
def test_config(
    config: dict[str, Any], labels: tuple[str, ...], window: int, pad_id: int, tmp_path: Path
) -> None:
    """What is not in the file is what transformers takes for it."""
    (tmp_path / "config.json").write_text(json.dumps({**CHOOSES_ONE, **config}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": null}', encoding="utf-8")

    assert read_model_config(tmp_path) == files.ModelConfig(labels, window, pad_id)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"problem_type": "multi_label_classification"},
            "problem_type is 'multi_label_classification'; only 'single_label_classification' can",
        ),
        ({"problem_type": "regression"}, "problem_type is 'regression'"),
        ({"num_labels": 1}, r"labels are \['LABEL_0'\]; there must be 2 or more, all different"),
        ({"id2label": {"0": "a"}}, "2 or more"),
        ({"id2label": {"0": "a", "1": "a"}}, "all different"),
        ({"id2label": {"0": "a", "2": "b"}}, "no sequence classifier: KeyError"),
        ({"id2label": ["a", "b"]}, "no sequence classifier: TypeError"),
        ({"architectures": ["BertForMaskedLM"]}, "no sequence classifier, but BertForMaskedLM"),
        ({"architectures": None}, "neither architectures nor id2label"),
    ],
)
def test_other_kinds_are_refused(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    """Outputs that are no probabilities of labels are not taken for such; the reason is said."""
    (tmp_path / "config.json").write_text(json.dumps({**CHOOSES_ONE, **config}), encoding="utf-8")

    with pytest.raises(ModelError, match=message):
        read_model_config(tmp_path)


@pytest.mark.parametrize(
    "config", [{"problem_type": "multi_label_classification"}, {"num_labels": 1}]
)
def test_other_kinds_are_neither_exported_nor_served(
    config: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the reason, and no file; the same reason from the loader."""
    folder = distilbert(tmp_path / "model", **config)

    assert module.main([str(folder), "--output", str(tmp_path / "output")]) == 2

    said = capsys.readouterr().err
    assert "problem_type is" in said or "2 or more" in said
    assert not (tmp_path / "output").exists()
    with pytest.raises(ModelError, match=r"problem_type is|2 or more"):
        SentimentClassifier(folder, backend=BackendName.TRANSFORMERS)


def test_golden_answers_are_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong in our own reading of a text is noticed: the reference does not pass by it."""
    encoded = TextEncoder._encoded

    def without_the_end(self: TextEncoder, *arguments: Any) -> EncodedText:  # noqa: ANN401
        text = encoded(self, *arguments)
        return EncodedText(tuple(window[:-1] for window in text.windows), text.tokens)

    folder = distilbert(tmp_path / "model")
    monkeypatch.setattr(TextEncoder, "_encoded", without_the_end)

    with pytest.raises(ParityError, match="the model answers"):
        export(str(folder))
    assert written(folder) == set()


def test_window_beyond_the_table_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An architecture that counts positions otherwise fails its export, not every long text."""
    monkeypatch.setattr(files, "POSITIONS_AFTER_PADDING", frozenset())
    folder = roberta(tmp_path / "model")

    with pytest.raises(ModelError, match="up to 34 tokens"):
        export(str(folder))
    assert written(folder) == set()


def test_damaged_weights_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What transformers cannot load is a message, not a traceback."""
    folder = distilbert(tmp_path / "model")
    (folder / "model.safetensors").unlink()

    assert module.main([str(folder)]) == 2
    assert f"export: {folder}: transformers cannot load it" in capsys.readouterr().err


def test_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """A model that was not exported says which file is missing, and how to get it."""
    with pytest.raises(ModelError, match=r"tokenizer\.json is missing: .*export writes it"):
        SentimentClassifier(distilbert(tmp_path / "model"), backend=BackendName.TRANSFORMERS)
