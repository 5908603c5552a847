"""The measurements are of what is shipped."""

from __future__ import annotations

import re
from pathlib import Path

from tests.helpers import ROOT


def pins(path: Path) -> dict[str, str]:
    """Versions by package."""
    return dict(re.findall(r"^([\w-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_peers_compute_with_our_versions() -> None:
    """What the peers share with the product has the version that the product is pinned to."""
    ours = pins(ROOT / "project/sentiment/requirements.txt")
    peers = pins(ROOT / "bench/requirements.txt")
    shared = {name: version for name, version in peers.items() if name in ours}

    assert shared == {name: ours[name] for name in shared}
    assert {"onnxruntime", "torch", "transformers", "fastapi", "uvicorn"} <= set(shared)
