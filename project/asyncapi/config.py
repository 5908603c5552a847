"""Reads ``cortex.yaml`` and ``cluster.yaml``: every mistake with its line, key and limit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from project.asyncapi.cluster_spec import Cluster
from project.asyncapi.document import Document, DocumentError, read_document
from project.asyncapi.problems import Problem, find_problems
from project.asyncapi.spec import AsyncAPI, AsyncAPIs


class ConfigError(ValueError):
    """A file could not be read, or does not describe what it should; one line per mistake."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file in which nothing is wrong.

    Attributes:
        content: the APIs of a ``cortex.yaml``, or the cluster of a ``cluster.yaml``.
    """

    path: Path
    document: Document
    content: list[AsyncAPI] | Cluster


def read_config(path: Path) -> list[AsyncAPI]:
    """Read the APIs that ``path`` describes, in its order.

    Raises:
        ConfigError: the message names the file, the lines, the keys and what is wrong with them.
    """
    content = read_file(path).content
    if isinstance(content, Cluster):
        raise ConfigError(f"{path}:1: describes a cluster, not the APIs of a cortex.yaml")
    return content


def read_file(path: Path) -> ConfigFile:
    """Read a ``cortex.yaml``, which is a list, or a ``cluster.yaml``, which is a map.

    Raises:
        ConfigError: see :func:`read_config`.
    """
    document = _load(path)
    if isinstance(document.value, dict) and _describes_api(set(document.value)):
        raise ConfigError(f"{path}:1: must be a list of APIs: each begins with '- name:'")
    if not isinstance(document.value, dict | list):
        raise ConfigError(f"{path}:1: must be a list of APIs, or the map that describes a cluster")
    is_list = isinstance(document.value, list)
    try:
        if is_list:
            return ConfigFile(path, document, AsyncAPIs.validate_python(document.value))
        return ConfigFile(path, document, Cluster.model_validate(document.value))
    except ValidationError as error:
        problems = find_problems(error, document, AsyncAPI if is_list else Cluster)
        raise ConfigError(report(path, problems)) from error


def report(path: Path, problems: Iterable[Problem]) -> str:
    """One line per problem, as compilers write them."""
    return "\n".join(f"{path}:{problem.line}: {problem}" for problem in problems)


def _describes_api(keys: set[str]) -> bool:
    """Whether a map with ``keys`` is meant as an API: a cluster has a region."""
    return bool({"name", "kind", "pod"} & keys) and "region" not in keys


def _load(path: Path) -> Document:
    try:
        return read_document(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8") from error
    except DocumentError as error:
        raise ConfigError(f"{path}:{error.line}: {error}") from error
