"""Texts to token ids: whole, in overlapping windows where they are longer than the model's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from project.sentiment.files import TOKENIZER_FILE, ModelError
from project.sentiment.options import LongTextPolicy, OnLongText
from project.sentiment.prediction import EncodedText


class TextEncoder:
    """Tokenises for a model whose window is ``window`` tokens, special tokens included.

    Raises:
        ModelError: ``folder`` has no ``tokenizer.json``.
    """

    def __init__(self, folder: Path, window: int, policy: LongTextPolicy) -> None:
        file = folder / TOKENIZER_FILE
        if not file.exists():
            raise ModelError(f"{file} is missing: python -m project.sentiment.export writes it")
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise ModelError(f"{file}: {error}") from error
        special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        self._tokenizer.no_padding()
        self._overlap = min(policy.overlap, (window - special) // 2)
        self._tokenizer.enable_truncation(max_length=window, stride=self._overlap)
        self._special = special
        self._window = window
        self._policy = policy

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """Tokenise ``texts``; see :meth:`Classifier.encode`."""
        policy = on_long_text or self._policy.on_long_text
        encodings = self._tokenizer.encode_batch_fast(list(texts))
        return [self._encoded(each, policy) for each in encodings]

    def _encoded(self, first: Encoding, on_long_text: OnLongText) -> EncodedText:
        windows = tuple(tuple(each.ids) for each in (first, *first.overflowing))
        if len(windows) == 1:
            return EncodedText(windows, len(windows[0]) - self._special)
        tokens = self._count(windows)
        if on_long_text is OnLongText.REJECT:
            return EncodedText((), tokens, over=self._window - self._special)
        if on_long_text is OnLongText.TRUNCATE:
            return EncodedText(windows[:1], tokens, truncated=True)
        kept = windows[: self._policy.max_windows]
        return EncodedText(kept, tokens, truncated=len(kept) < len(windows))

    def _count(self, windows: Sequence[Sequence[int]]) -> int:
        overlaps = self._overlap * (len(windows) - 1)
        return sum(len(each) - self._special for each in windows) - overlaps
