"""Imports point one way, and importing costs nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import TopologicalSorter

from tests.helpers import ROOT

HEAVY = ("torch", "transformers", "onnxruntime")


def module_name(path: str) -> str:
    """``project/a/b.py`` as ``project.a.b``."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports() -> dict[str, set[str]]:
    """Every module of the project, and the modules of the project that it imports anywhere."""
    files = [str(path.relative_to(ROOT)) for path in (ROOT / "project").rglob("*.py")]
    graph: dict[str, set[str]] = {}
    for file in files:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = {
            node.module
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module is not None
        }
        graph[module_name(file)] = {name for name in names if name.startswith("project.")}
    return graph


def test_no_cycles() -> None:
    """No module imports itself, however far around."""
    order = list(TopologicalSorter(imports()).static_order())

    assert "project.app" in order
    assert "project.asyncapi.runtime" in order


def test_asyncapi_and_container_meet_over_http_only() -> None:
    """The runtime imports neither the app nor the model, and they do not import it."""
    for module, imported in imports().items():
        for name in imported:
            inside = name.startswith("project.asyncapi")
            assert inside == module.startswith("project.asyncapi"), f"{module} imports {name}"


def test_model_is_usable_alone() -> None:
    """The model's package imports nothing of the container's."""
    for module, imported in imports().items():
        if module.startswith("project.sentiment"):
            assert {name for name in imported if not name.startswith("project.sentiment")} == set()


def test_conformance_suite_stands_alone() -> None:
    """It is run against other implementations: it imports pytest and the standard library."""
    for path in (ROOT / "tests" / "conformance").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            roots = {name.partition(".")[0] for name in names}
            assert roots <= sys.stdlib_module_names | {"pytest"}, f"{path.name} imports {names}"


def test_importing_is_cheap() -> None:
    """Neither the app nor the runtime loads a framework when it is imported."""
    code = (
        "import sys, project.app, project.asyncapi.__main__, async_requests\n"
        f"print(sorted(set(sys.modules) & set({HEAVY!r})))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"


def test_serving_needs_no_torch() -> None:
    """A container that answers has loaded neither torch nor transformers, and needs neither."""
    code = (
        "import sys\n"
        "from project.engine import load_classifier, Settings\n"
        "assert load_classifier(Settings()).predict(['i like you'])[0].label == 'POSITIVE'\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'onnx'}))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    assert not re.search(r"^(torch|transformers|onnx)==", required, re.MULTILINE)
    assert re.search(r"^onnxruntime==", required, re.MULTILINE)
