"""The shipped cortex.yaml, run; and the example of docs/cortex.md in which an API calls it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from textwrap import dedent
from typing import Any

from tests.helpers import ROOT, RuntimeProcess, free_port, wait_until

IN_CLUSTER = "http://ingressgateway-apis.istio-system.svc.cluster.local/sentiment"


def chaining_example(url: str) -> dict[str, Any]:
    """What the example defines, with ``url`` in place of the address inside a cluster."""
    text = (ROOT / "docs" / "cortex.md").read_text(encoding="utf-8")
    found = re.search(r"^    import httpx\n(?:(?:    .*)?\n)+", text, re.MULTILINE)
    assert found
    code = dedent(found[0])
    assert code.count(IN_CLUSTER) == 1
    defined: dict[str, Any] = {}
    exec(code.replace(IN_CLUSTER, url), defined)  # noqa: S102
    return defined


def test_shipped_file_runs(tmp_path: Path) -> None:
    """It serves, as it is but for the port; the example works against it; Ctrl-C ends it."""
    shipped = (ROOT / "cortex.yaml").read_text(encoding="utf-8")
    moved = shipped.replace("port: 8000", f"port: {free_port()}")
    (tmp_path / "cortex.yaml").write_text(moved, encoding="utf-8")
    runtime = RuntimeProcess(tmp_path, [])
    try:
        example = chaining_example(runtime.url())
        request_id = asyncio.run(example["classify"](["i like you", "i hate you"]))
        result = wait_until(lambda: asyncio.run(example["result"](request_id)))
        assert [each["label"] for each in result["predictions"]] == ["POSITIVE", "NEGATIVE"]
        assert runtime.interrupt() == 0
        assert "pre_stop failed" not in runtime.text()
    finally:
        runtime.close()
