"""Reads ``cortex.yaml``: every mistake with its line, key and limit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from project.asyncapi.document import Document, DocumentError, read_document
from project.asyncapi.problems import Problem, find_problems
from project.asyncapi.spec import AsyncAPI, AsyncAPIs

T = TypeVar("T")


class ConfigError(ValueError):
    """A file could not be read, or does not describe what it should; one line per mistake."""


def read_config(path: Path) -> list[AsyncAPI]:
    """Read the APIs that ``path`` describes, in its order.

    Raises:
        ConfigError: the message names the file, the lines, the keys and what is wrong with them.
    """
    return parse_apis(path, load(path))


def load(path: Path) -> Document:
    """Read the YAML document of ``path``.

    Raises:
        ConfigError: it is not there, or is none.
    """
    try:
        return read_document(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text in UTF-8") from error
    except DocumentError as error:
        raise ConfigError(f"{path}:{error.line}: {error}") from error


def parse_apis(path: Path, document: Document) -> list[AsyncAPI]:
    """Make APIs of a document.

    Raises:
        ConfigError: see :func:`read_config`.
    """
    if not isinstance(document.value, list):
        raise ConfigError(f"{path}:1: must be a list of APIs: each begins with '- name:'")
    return parse(path, document, AsyncAPIs, AsyncAPI)


def parse(path: Path, document: Document, models: TypeAdapter[T], root: type[BaseModel]) -> T:
    """Make models of a document; ``root`` is the outermost.

    Raises:
        ConfigError: see :func:`read_config`.
    """
    try:
        return models.validate_python(document.value)
    except ValidationError as error:
        raise ConfigError(report(path, find_problems(error, document, root))) from error


def report(path: Path, problems: Iterable[Problem]) -> str:
    """One line per problem, as compilers write them."""
    return "\n".join(f"{path}:{problem.line}: {problem}" for problem in problems)
