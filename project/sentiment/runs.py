"""What made a model, beside its weights: a run goes on as what it was begun as, or not at all.

The record also says which sentences were held back from training, so that nothing is chosen or
calibrated by sentences that were trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from project.sentiment.data import Example, read_examples
from project.sentiment.files import REVISION_DIGITS, find_model, weights_revision
from project.sentiment.phrases import hold_back

RUN_FILE = "run.json"


class RunError(ValueError):
    """A run cannot be gone on with, or is not what it is used as."""


def record_of(output: Path) -> Path:
    """Where the record of a model's folder is, or of a file."""
    return output.with_name(f"{output.name}.{RUN_FILE}") if output.is_file() else output / RUN_FILE


def begin(path: Path, record: Mapping[str, Any], *, begun: bool) -> None:
    """Note what a run is, before it makes anything; or check that it is what it was.

    Args:
        path: of the record.
        record: flat, of values that JSON has; with :func:`held_back_record` in it.
        begun: whether there is something that the run would go on from.

    Raises:
        RunError: it was begun as another run; the message says what differs.
    """
    if not path.exists():
        if begun:
            raise RunError(
                f"{path} is missing, which says of what run the parts beside it are:"
                " remove them, or name another --output"
            )
        write_record(path, record)
        return
    known = read_record(path)
    differing = [
        f"{name} {known.get(name)!r}, not {record.get(name)!r}"
        for name in sorted({*known, *record})
        if known.get(name) != record.get(name)
    ]
    if differing:
        raise RunError(
            f"{path}: the run was begun with {'; '.join(differing)}:"
            " go on with what it was begun with, or name another --output"
        )


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write a record, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """Read what :func:`begin` or :func:`write_record` wrote.

    Raises:
        RunError: there is no record, or a damaged one.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing, which says what was held back from training") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: {error}") from error
    if not isinstance(record, dict) or not isinstance(record.get("held_back"), int):
        raise RunError(f"{path}: no record of a run")
    return record


def held_back_record(held_back: Sequence[Example]) -> dict[str, Any]:
    """The part of a record that says which sentences were held back."""
    rows = [(each.text, each.label) for each in held_back]
    return {"held_back": len(rows), "held_back_digest": digest(rows)}


def check_held_back(path: Path, held_back: Sequence[Example]) -> dict[str, Any]:
    """The record in ``path``, if ``held_back`` is what it says was held back.

    Raises:
        RunError: there is no record; or others were held back, so that these may be trained on.
    """
    record, wanted = read_record(path), held_back_record(held_back)
    if {name: record.get(name) for name in wanted} != wanted:
        raise RunError(
            f"{path}: {record['held_back']} sentences were held back"
            f" (digest {record.get('held_back_digest')}), and not these {wanted['held_back']}"
            f" ({wanted['held_back_digest']}): give it the --train and --held-back that it had"
        )
    return record


def held_back_of(model: Path, train: Path, sentences: int | None) -> list[Example]:
    """What the run that made ``model`` held back of the file ``train``.

    Args:
        sentences: how many; None: as many as the record says. A model without a record is taken
            at the caller's word.

    Raises:
        DataError: ``train`` is no labelled file.
        RunError: the run held others back or none; or there is no record of it.
    """
    path = record_of(model)
    if sentences is None or path.exists():
        recorded = read_record(path)["held_back"]
        if not recorded:
            raise RunError(f"{path}: the model was trained on every sentence")
        sentences = recorded if sentences is None else sentences
    split = hold_back(read_examples(train), sentences)
    if path.exists():
        check_held_back(path, split.held_back)
    return split.held_back


def digest(value: object) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of ``value`` as JSON."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:REVISION_DIGITS]


def model_digest(model: str | Path) -> str:
    """The revision of the weights of a Hub id or a local folder.

    Raises:
        ModelError: there are none.
    """
    return weights_revision(find_model(model))
