r"""Teaches a tokenizer to read emoji: as the emoticons that its vocabulary has.

    python -m project.sentiment.emoji weights

BERT's vocabulary has few emoji, and makes one unknown token of a word and the emoji that it ends
with. Here the tokenizer's normalizer replaces them before it does anything else, so every reader
of ``tokenizer.json`` has the same text: this project's, and ``transformers``'.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HAPPY = (
    "😀😃😄😁😆😅🤣😂🙂😊😇🥰😍🤩😘😗😚😙😋🤗🥳😎🤠😺😸😻👍👏🙌💪🎉🎊💯🔥✨🌟⭐"
    "❤💕💖💗💙💚💛💜🧡💘💝😌☺👌🤝🏆🙏🤍🖤♥💐😜😝😛"
)
UNHAPPY = "😞😔😟😕🙁☹😣😖😫😩🥺😢😭😤😠😡🤬😰😥😓🙄😒😑👎💔🤮🤢😨😱😿😾💩😐😬🤦🤯😳"
MODIFIERS = "\U0001f3fb-\U0001f3ff\ufe0f\u200d"  # skin tones, presentation, joiner
REPLACED = ((MODIFIERS, ""), (HAPPY, " :) "), (UNHAPPY, " :( "))


def teach_tokenizer(folder: Path) -> None:
    """Change the tokenizer in ``folder``, in place; once taught, it stays as it is."""
    path, config_path = folder / "tokenizer.json", folder / "tokenizer_config.json"
    tokenizer, config = _read(path), _read(config_path)
    steps = [
        {"type": "Replace", "pattern": {"Regex": f"[{signs}]"}, "content": content}
        for signs, content in REPLACED
    ]
    present = tokenizer["normalizer"]
    if present["type"] != "Sequence":
        tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [*steps, present]}
        _write(path, tokenizer)
    # Also of one that was taught and saved again, under a name that earlier versions do not know.
    # BertTokenizer would build a normalizer of its own, whatever the file says.
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    _write(config_path, config)


def _read(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def _write(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Teach the tokenizer of the folder that is named; returns the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("emoji: name one folder that has a tokenizer.json", file=sys.stderr)
        return 2
    try:
        teach_tokenizer(Path(arguments[0]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"emoji: {arguments[0]}: {error!r}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
