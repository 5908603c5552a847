"""What a teacher says of texts, in a file that grows: labelling goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from project.sentiment.data import DataError
from project.sentiment.fitting import load_tokenizer

BATCH_TOKENS = 2048  # padding included
CHUNK = 4096  # texts that are sorted by length together
MAX_TOKENS = 128


@dataclass(frozen=True, slots=True)
class SoftLabel:
    """A text and a teacher's logits of NEGATIVE and POSITIVE."""

    text: str
    logits: tuple[float, float]

    def probability(self) -> float:
        """Of POSITIVE, 0 to 1."""
        negative, positive = self.logits
        return 1 / (1 + math.exp(min(negative - positive, 700.0)))  # where floats end


def label(texts: Sequence[str], teacher: str, output: Path) -> None:
    """Append what ``teacher`` says of ``texts`` to ``output``, roughly in their order.

    Texts that the file has already are not labelled again. A row is two logits and the text, with
    tabs between them.

    Args:
        teacher: a Hub id or a local folder of a sequence-classification model.

    Raises:
        DataError: ``output`` has a row that is no soft label.
    """
    _drop_partial_row(output)
    known = {each.text for each in read_soft_labels(output)} if output.exists() else set()
    # Logits in bfloat16 depend a little on a batch's other texts: the batches are those of a run
    # that was not stopped.
    texts = list(dict.fromkeys(texts))
    tokenizer = load_tokenizer(teacher)
    batches = [batch for batch in _batches(texts, tokenizer) if not known.issuperset(batch)]
    model = AutoModelForSequenceClassification.from_pretrained(teacher, dtype=torch.bfloat16).eval()
    with output.open("a", encoding="utf-8") as file, torch.inference_mode():
        for batch in tqdm(batches, disable=None):
            encoded = tokenizer(
                batch, truncation=True, max_length=MAX_TOKENS, padding=True, return_tensors="pt"
            )
            rows = zip(batch, model(**encoded).logits.float().tolist(), strict=True)
            file.writelines(
                f"{row[0]:.4f}\t{row[1]:.4f}\t{text}\n" for text, row in rows if text not in known
            )
            file.flush()


def read_soft_labels(path: Path) -> list[SoftLabel]:
    """Read what :func:`label` wrote.

    Raises:
        DataError: a row is not two numbers and a text.
    """
    labels = []
    lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        try:
            negative, positive, text = line.split("\t", 2)
            labels.append(SoftLabel(text, (float(negative), float(positive))))
        except ValueError as error:
            raise DataError(f"{path}:{number}: no soft label: {line[:60]!r}") from error
    return labels


def _drop_partial_row(path: Path) -> None:
    """Cut off the row that a kill left without its end."""
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])
        if not path.stat().st_size:
            path.unlink()


def _batches(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[list[str]]:
    """Batches of texts of similar lengths, of about the same number of tokens."""
    lengths = {}
    if texts:  # a tokenizer refuses an empty list
        encoded = tokenizer(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
        lengths = dict(zip(texts, map(len, encoded), strict=True))
    for start in range(0, len(texts), CHUNK):
        batch: list[str] = []
        for text in sorted(texts[start : start + CHUNK], key=lengths.__getitem__):
            if batch and (len(batch) + 1) * lengths[text] > BATCH_TOKENS:
                yield batch
                batch = []
            batch.append(text)
        yield batch
