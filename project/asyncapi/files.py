"""A ``cortex.yaml`` or a ``cluster.yaml``, whichever a file is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from project.asyncapi.cluster_spec import Cluster
from project.asyncapi.config import ConfigError, load, parse, parse_apis
from project.asyncapi.document import Document
from project.asyncapi.spec import AsyncAPI


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A file in which nothing is wrong.

    Attributes:
        content: the APIs of a ``cortex.yaml``, or the cluster of a ``cluster.yaml``.
    """

    path: Path
    document: Document
    content: list[AsyncAPI] | Cluster


def read_file(path: Path) -> ConfigFile:
    """Read a list of APIs, or the map that describes a cluster.

    Raises:
        ConfigError: see :func:`~project.asyncapi.config.read_config`.
    """
    document = load(path)
    if not isinstance(document.value, dict | list):
        raise ConfigError(f"{path}:1: must be a list of APIs, or the map that describes a cluster")
    if isinstance(document.value, list) or _describes_api(set(document.value)):
        return ConfigFile(path, document, parse_apis(path, document))
    return ConfigFile(path, document, parse(path, document, TypeAdapter(Cluster), Cluster))


def _describes_api(keys: set[str]) -> bool:
    """Whether a map with ``keys`` is meant as an API: a cluster has a region."""
    return bool({"name", "kind", "pod"} & keys) and "region" not in keys
