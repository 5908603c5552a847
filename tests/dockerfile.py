"""What tests need of a Dockerfile, read as the builder reads it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction, with the stage that it is in."""

    stage: str
    name: str
    value: str

    def words(self) -> list[str]:
        """Its arguments: the list of an exec form, or what a shell would make of a line."""
        if self.value.startswith("["):
            words: list[str] = json.loads(self.value)
            return words
        return shlex.split(self.value)


def read_dockerfile(path: Path) -> list[Instruction]:
    """All instructions; those before the first stage are in the stage ""."""
    return list(_instructions(path.read_text(encoding="utf-8")))


def _instructions(text: str) -> Iterator[Instruction]:
    stage = ""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for line in lines.replace("\\\n", " ").splitlines():
        name, _, value = line.strip().partition(" ")
        if not name:
            continue
        if name == "FROM":
            words = value.split()
            stage = words[2] if len(words) == 3 else "final"
        yield Instruction(stage, name, " ".join(value.split()))


def of_stage(
    instructions: list[Instruction], stage: str, name: str | None = None
) -> list[Instruction]:
    """The instructions of a stage, all or those of one name."""
    return [each for each in instructions if each.stage == stage and name in (None, each.name)]


def copied(instructions: list[Instruction], stage: str, context: Path) -> dict[Path, Path]:
    """Where every file that a stage copies from the context is in the final image, below /app.

    /model is copied there in the end.
    """
    files: dict[Path, Path] = {}
    for instruction in of_stage(instructions, stage, "COPY"):
        *sources, target = instruction.words()
        if sources[0].startswith("--from"):
            continue
        for source in sources:
            for found in sorted(context.glob(source)):
                files |= _placed(found, Path(target.removeprefix("/model/")))
    return files


def _placed(found: Path, target: Path) -> dict[Path, Path]:
    if found.is_dir():
        inside = [file for file in found.rglob("*") if file.is_file()]
        return {file: target / file.relative_to(found) for file in inside}
    return {found: target / found.name}
