"""The shipped weights, and the classifier around any weights."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.sentiment import model
from project.sentiment.files import WEIGHTS, ModelError
from project.sentiment.golden import Golden, ParityError, check_golden, read_golden
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import BATCH_TOKENS, BackendName, LongTextPolicy, OnLongText
from project.sentiment.prediction import TextTooLong, TokenIds
from tests.helpers import FakeClassifier
from tests.sentiment.conftest import sentiment_pipeline

TEXTS = [
    "i like you",
    "i hate you",
    "a wonderful, moving film",
    "the worst two hours of my life, and i have been to the dentist",
    "meh",
]


def test_labels(shipped: SentimentClassifier) -> None:
    """The texts of the README have the labels that the README shows."""
    like, hate = shipped.predict(["i like you", "i hate you"])

    assert (like.label, hate.label) == ("POSITIVE", "NEGATIVE")
    assert like.score == like.scores["POSITIVE"] > 0.8
    assert hate.scores["POSITIVE"] + hate.scores["NEGATIVE"] == pytest.approx(1.0)


def test_agrees_with_pipeline(shipped: SentimentClassifier) -> None:
    """Plain transformers reads the same weights and answers the same, alone or in a batch."""
    reference = sentiment_pipeline(model=str(WEIGHTS))(TEXTS)

    for together, text, expected in zip(shipped.predict(TEXTS), TEXTS, reference, strict=True):
        (alone,) = shipped.predict([text])
        assert together.label == alone.label == expected["label"]
        assert together.score == pytest.approx(expected["score"], abs=1e-5)
        assert alone.score == pytest.approx(expected["score"], abs=1e-5)


def test_order_is_kept_over_batches(shipped: SentimentClassifier) -> None:
    """More texts than a batch holds, of mixed lengths, come back in their order."""
    texts = [TEXTS[number % 5] for number in range(203)]

    labels = [prediction.label for prediction in shipped.predict(texts)]

    expected = [prediction.label for prediction in shipped.predict(TEXTS)]
    assert labels == [expected[number % 5] for number in range(len(texts))]


@settings(deadline=None)
@given(lengths=st.lists(st.integers(3, 512), min_size=1, max_size=80), workers=st.integers(1, 4))
def test_batches_are_of_bounded_cost(lengths: list[int], workers: int) -> None:
    """All windows once and by length; padding counts, and is bounded where there are several."""
    lengths.sort()

    batches = model._batches(range(len(lengths)), lengths, workers)

    assert [index for batch in reversed(batches) for index in batch] == list(range(len(lengths)))
    padded = [len(batch) * max(lengths[index] for index in batch) for batch in batches]
    tokens = [sum(lengths[index] for index in batch) for batch in batches]
    assert all(
        cost <= BATCH_TOKENS or len(batch) == 1 for cost, batch in zip(padded, batches, strict=True)
    )
    if len(batches) > 1:
        assert all(0.85 * cost <= of for cost, of in zip(padded, tokens, strict=True))


def test_workers_share_a_few_texts() -> None:
    """More than one batch holds is not one full batch and a rest, beside which a core is idle."""
    lengths = [*range(20, 30), *range(30, 42, 2)]  # 16 texts of 455 tokens

    batches = model._batches(range(16), lengths, workers=2)

    workers = [0, 0]
    for batch in batches:
        workers[workers.index(min(workers))] += len(batch) * lengths[batch[-1]]
    assert (sum(lengths), len(lengths)) == (455, 16)
    assert max(workers) <= 300  # as one full batch and a rest, it would be 480


def test_no_texts(shipped: SentimentClassifier) -> None:
    """Nothing in, nothing out."""
    assert shipped.predict([]) == []


def test_backends_agree(shipped: SentimentClassifier) -> None:
    """ONNX Runtime and PyTorch read the same file and say the same, padded and not."""
    torch = SentimentClassifier(backend=BackendName.TRANSFORMERS)

    assert type(shipped._backend) is not type(torch._backend)
    for ours, theirs in zip(shipped.predict(TEXTS), torch.predict(TEXTS), strict=True):
        assert ours.scores == pytest.approx(theirs.scores, abs=1e-5)


def test_long_text_is_read_whole(shipped: SentimentClassifier) -> None:
    """All windows count: a long text that begins badly and goes on well is POSITIVE."""
    text = "an awful, dreadful scene . " * 30 + "a wonderful, moving scene . " * 300

    (prediction,) = shipped.predict([text])

    assert (prediction.label, prediction.truncated) == ("POSITIVE", False)
    assert prediction.windows > 3
    alone = SentimentClassifier(long_texts=LongTextPolicy(max_windows=10**6)).encode([text])[0]
    assert prediction.tokens == alone.tokens == 30 * 6 + 300 * 6


def test_long_text_is_cut(shipped: SentimentClassifier) -> None:
    """ON_LONG_TEXT=truncate, and a text of more windows than are read, say what was not read."""
    text = "good " * 2000
    (cut,) = SentimentClassifier(long_texts=LongTextPolicy(OnLongText.TRUNCATE)).predict([text])
    (bounded,) = SentimentClassifier(long_texts=LongTextPolicy(max_windows=2)).predict([text])

    assert (cut.windows, cut.tokens, cut.truncated) == (1, 2000, True)
    assert (bounded.windows, bounded.tokens, bounded.truncated) == (2, 2000, True)


@pytest.mark.parametrize(("words", "windows"), [(510, 1), (511, 2)])
def test_window_is_used_in_full(shipped: SentimentClassifier, words: int, windows: int) -> None:
    """510 tokens and the two special ones are one window, one token more is two."""
    assert shipped.predict(["good " * words])[0].windows == windows


def test_long_text_is_refused() -> None:
    """ON_LONG_TEXT=reject names the text and both lengths."""
    classifier = SentimentClassifier(long_texts=LongTextPolicy(OnLongText.REJECT))

    with pytest.raises(TextTooLong, match="511 tokens, at most 510") as caught:
        classifier.predict(["fine", "good " * 511])
    assert caught.value.index == 1


def test_golden_answers_hold(shipped: SentimentClassifier) -> None:
    """The shipped weights reproduce what they answered when they were exported, closely."""
    golden = read_golden(WEIGHTS)

    assert len(golden) >= 5
    check_golden(shipped, golden, tolerance=1e-5)


def test_golden_answers_catch_a_damaged_model(tmp_path: Path) -> None:
    """A few flipped weights load without an error, and are noticed."""
    folder = tmp_path / "damaged"
    shutil.copytree(WEIGHTS, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1500:-500] = bytes(1000)  # a third of the last layer's weights
    (folder / "model.safetensors").write_bytes(weights)

    with pytest.raises(ParityError, match="the model answers"):
        check_golden(SentimentClassifier(folder), read_golden(folder))


def test_golden_answers_need_a_file(tmp_path: Path) -> None:
    """A graph that nothing can be compared with is not served; without a graph there is no need."""
    folder = tmp_path / "unchecked"
    shutil.copytree(WEIGHTS, folder)
    (folder / "golden.json").unlink()

    with pytest.raises(ParityError, match=r"no golden\.json .* -m project\.sentiment\.export"):
        check_golden(SentimentClassifier(folder), read_golden(folder))
    torch = SentimentClassifier(folder, backend=BackendName.TRANSFORMERS)
    assert check_golden(torch, read_golden(folder)) == 0.0


@pytest.mark.parametrize("text", ["", "[1]", '[{"text": "a"}]'])
def test_damaged_golden_answers_are_named(text: str, tmp_path: Path) -> None:
    """A file that cannot be read is named."""
    (tmp_path / "golden.json").write_text(text, encoding="utf-8")

    with pytest.raises(ModelError, match=r"golden\.json"):
        read_golden(tmp_path)


@pytest.mark.parametrize("wrong", [True, False])
def test_golden_answers_are_checked_in_both_ways(wrong: bool) -> None:
    """A batch that is alone is computed by another session: each is compared."""

    class Broken(FakeClassifier):
        def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
            rows = super().infer(batch, alone=alone)
            return [[0.9] for _ in rows] if alone is wrong else rows

    golden = [Golden("a" * 10, {"POSITIVE": 0.1, "NEGATIVE": 0.9})]

    assert check_golden(FakeClassifier(), golden) == 0.0
    with pytest.raises(ParityError, match=r"0\.8 off"):
        check_golden(Broken(), golden)


def test_golden_answers_have_the_labels(shipped: SentimentClassifier) -> None:
    """A label more, or less, is no answer that was exported."""
    with pytest.raises(ParityError, match="inf off"):
        check_golden(shipped, [Golden("a", {"POSITIVE": 0.5})], tolerance=1.0)


def test_graph_holds_no_weights() -> None:
    """The graph names tensors of the one weights file, and nothing of the machine it is from."""
    graph = (WEIGHTS / "model.onnx").read_bytes()

    assert len(graph) < 100_000
    assert graph.count(b"model.safetensors") > 90
    assert b"site-packages" not in graph
    assert b".py" not in graph


def test_half_precision_and_size() -> None:
    """The weights are small enough to commit, and stored in half precision."""
    file = WEIGHTS / "model.safetensors"

    assert file.stat().st_size < 46_000_000
    with file.open("rb") as tensors:
        header = json.loads(tensors.read(int.from_bytes(tensors.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}


def test_missing_model_is_named(tmp_path: Path) -> None:
    """A folder that is not there is an error of its own, with its name."""
    with pytest.raises(ModelError, match="nowhere"):
        SentimentClassifier(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "texts"), [(["good"], ["good"]), ([], ["i like you!", "i hate you!"])]
)
def test_command_line(
    arguments: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of JSON per text; two samples without any."""
    assert model.main(arguments) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert set(lines[0]) >= {"text", "label", "score", "scores"}
