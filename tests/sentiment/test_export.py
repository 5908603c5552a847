"""Export of a tiny model, and what stands in its way."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from project.sentiment import export as module
from project.sentiment.export import export
from project.sentiment.files import WEIGHTS, ModelError, find_model, read_model_config
from project.sentiment.golden import ParityError, check_golden, read_golden
from project.sentiment.model import SentimentClassifier, load_backend
from project.sentiment.options import BackendName

TEXTS = ["i like you", "i hate you", "a wonderful , moving film it is n't worth"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The copy gets a graph that shares its weights and answers as transformers does."""
    output = tmp_path / "exported"

    assert module.main([str(model), "--output", str(output)]) == 0

    assert "agrees with transformers" in capsys.readouterr().out
    assert not (model / "model.onnx").exists()
    assert len(read_golden(output)) >= 5
    graph = onnx.load(output / "model.onnx", load_external_data=False).graph
    assert [each.name for each in graph.input] == [
        "input_ids",
        "attention_mask",
        "token_type_ids",
    ]
    assert [each.name for each in graph.output] == ["logits"]
    outside = [each for each in graph.initializer if each.external_data]
    assert len(outside) > 10
    ours = SentimentClassifier(output).predict(TEXTS)
    theirs = SentimentClassifier(model, backend=BackendName.TRANSFORMERS).predict(TEXTS)
    for one, other in zip(ours, theirs, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_refuses_what_differs(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph that answers otherwise is an error, and the one that is served already stays."""
    restore = module._restore

    def wrong(stored: module.StoredTensor, name: str) -> list[onnx.NodeProto]:
        nodes = restore(stored, name)
        if stored.transposed and stored.shape[0] == stored.shape[1]:
            del nodes[0].output[:], nodes[1:]
            nodes[0].output.append(name)
        return nodes

    monkeypatch.setattr(module, "_restore", wrong)
    monkeypatch.setattr(module, "EXPORT_TOLERANCE", 1e-9)

    for name in ("model.onnx", "golden.json"):
        (model / name).write_text("of an export before", encoding="ascii")
    before = {path.name: path.read_bytes() for path in model.iterdir()}

    with pytest.raises(ParityError):
        export(str(model))

    assert {path.name: path.read_bytes() for path in model.iterdir()} == before


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_export_leaves_no_graph_of_other_weights(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that another model is copied into, a graph of the model before is worthless."""
    monkeypatch.setattr(module, "EXPORT_TOLERANCE", -1.0)
    output = tmp_path / "output"
    output.mkdir()
    (output / "model.onnx").write_text("of another model", encoding="ascii")

    with pytest.raises(ParityError):
        export(str(model), output)

    assert (output / "model.safetensors").exists()
    assert not list(output.glob("*.onnx"))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_int8(tmp_path: Path, shipped: SentimentClassifier) -> None:
    """In 8 bits the answers are near, the same in any batch, and refused by the usual tolerance."""
    output = tmp_path / "int8"

    exported = export(str(WEIGHTS), output, int8=True)

    assert 1e-4 < exported.difference < 0.05
    weights = onnx.load(output / "model.onnx", load_external_data=False).graph.initializer
    assert sum(each.data_type == onnx.TensorProto.UINT8 for each in weights) >= 36
    classifier = SentimentClassifier(output)
    alone = [classifier.predict([text])[0].score for text in TEXTS]
    together = [each.score for each in classifier.predict(TEXTS)]
    full = [each.score for each in shipped.predict(TEXTS)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together == pytest.approx(full, abs=0.05)
    with pytest.raises(ParityError, match=r"0\.0001 is tolerated"):
        check_golden(classifier, read_golden(output), 1e-4)


def test_int8_keeps_the_original(capsys: pytest.CaptureFixture[str]) -> None:
    """The graph in full precision is not overwritten: 8 bits need a folder of their own."""
    with pytest.raises(SystemExit, match="2"):
        module.main(["somewhere", "--int8"])

    assert "--int8 needs --output" in capsys.readouterr().err


def test_missing_model_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the name."""
    assert module.main(["no/such-model"]) == 2
    assert "no/such-model" in capsys.readouterr().err


def test_auto_takes_what_is_there(model: Path) -> None:
    """Without a graph, transformers computes; asking for ONNX says what is missing."""
    assert SentimentClassifier(model).workers == 1

    with pytest.raises(ModelError, match=r"model\.onnx"):
        SentimentClassifier(model, backend=BackendName.ONNX)


def test_missing_library_is_said(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose libraries are not installed says which, and how to get them."""

    def missing(name: str) -> None:
        raise ModuleNotFoundError(name, name="torch")

    monkeypatch.setattr("project.sentiment.model.import_module", missing)

    config = read_model_config(model)
    with pytest.raises(ModelError, match=r"'transformers' needs torch: pip install -r"):
        load_backend(model, config, BackendName.TRANSFORMERS, 1)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", "{", "config.json"),
        ("config.json", "[]", "holds no object"),
        ("config.json", "{}", "no sequence classifier"),
        ("tokenizer.json", "{}", "tokenizer.json"),
        ("model.safetensors", "", "model"),
    ],
)
def test_damaged_folder_is_named(model: Path, name: str, text: str, message: str) -> None:
    """A file that cannot be read is named."""
    (model / name).write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match=message):
        SentimentClassifier(model)


def test_local_folder_wins(model: Path) -> None:
    """A folder is taken as it is; its name is not looked up anywhere."""
    shutil.rmtree(model / "nothing", ignore_errors=True)

    assert find_model(str(model)) == model
