"""``python -m project.asyncapi validate``: what is wrong with Cortex's files, or all they say.

To stderr what is wrong, a line each with file, line and key; to stdout, if nothing is, the
configuration with Cortex's defaults filled in. What is not wrong but surely not meant is an advice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from project.asyncapi.advice import advise, unknown_node_groups
from project.asyncapi.cluster_spec import Cluster
from project.asyncapi.config import ConfigError, report
from project.asyncapi.files import ConfigFile, read_file
from project.asyncapi.spec import AsyncAPI


def main(argv: Sequence[str]) -> int:
    """Run the command line; returns the exit code: 0 if nothing is wrong."""
    arguments = _parse(argv)
    files, mistakes = _read(arguments.files)
    clusters = [file.content for file in files if isinstance(file.content, Cluster)]
    for file in files:
        if unknown := unknown_node_groups(file, clusters):
            mistakes.append(report(file.path, unknown))
    for mistake in mistakes:
        print(mistake, file=sys.stderr)
    for file in files:
        for problem in advise(file):
            print(f"{file.path}:{problem.line}: advice: {problem}", file=sys.stderr)
    if not mistakes:
        print("---\n".join(_full(file) for file in files), end="")
    return 1 if mistakes else 0


def _read(paths: Sequence[Path]) -> tuple[list[ConfigFile], list[str]]:
    files, mistakes = [], []
    for path in paths:
        try:
            files.append(read_file(path))
        except ConfigError as error:
            mistakes.append(str(error))
    return files, mistakes


def _full(file: ConfigFile) -> str:
    """The file as Cortex reads it."""
    values = _plain(file.content)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100)
    return f"# {file.path}, with Cortex's defaults\n{text}"


def _plain(content: list[AsyncAPI] | Cluster) -> Any:  # noqa: ANN401 -- plain values
    if isinstance(content, Cluster):
        return content.with_defaults().model_dump(exclude_none=True)
    return [api.with_defaults().model_dump(exclude_none=True) for api in content]


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m project.asyncapi validate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "files",
        nargs="*",
        type=Path,
        default=[Path("cortex.yaml")],
        metavar="FILE",
        help="cortex.yaml or cluster.yaml; both together: node groups are checked (cortex.yaml)",
    )
    return parser.parse_args(argv)
