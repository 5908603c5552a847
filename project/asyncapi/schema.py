"""``python -m project.asyncapi.schema FOLDER``: JSON schemas of Cortex's files, for editors."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from project.asyncapi.cluster_spec import Cluster
from project.asyncapi.spec import AsyncAPIs


def render() -> dict[str, str]:
    """The text of every schema, by the name of its file."""
    cluster: TypeAdapter[Any] = TypeAdapter(Cluster)
    return {
        "cortex.schema.json": _render("cortex.yaml of Cortex 0.42", AsyncAPIs),
        "cluster.schema.json": _render("cluster.yaml of Cortex 0.42", cluster),
    }


def _render(title: str, adapter: TypeAdapter[Any]) -> str:
    head = {"$schema": GenerateJsonSchema.schema_dialect, "title": title}
    return json.dumps(head | _tidy(adapter.json_schema()), indent=2, ensure_ascii=False) + "\n"


def _tidy(schema: Any) -> Any:  # noqa: ANN401 -- any JSON value
    """Without titles, which repeat the keys, and without defaults that no file could hold."""
    if isinstance(schema, list):
        return [_tidy(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    left_out = {"title"} if isinstance(schema.get("title"), str) else set()
    if isinstance(schema.get("default", {}), dict | None):
        left_out.add("default")
    return {key: _tidy(value) for key, value in schema.items() if key not in left_out}


def main(folder: Path) -> None:
    """Write the schemas into ``folder``."""
    for name, text in render().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
