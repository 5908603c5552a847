"""The runtime keeps to its process: no telemetry, bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers import ROOT

CLASSIFY = """
from project.sentiment.model import SentimentClassifier
print(SentimentClassifier().predict(["i like you"])[0].label)
"""
COUNT_HEAPS = """
import ctypes, sys, threading
from project.sentiment.memory import bound_malloc, trim_malloc
if sys.argv[1:]:
    bound_malloc()
ready = threading.Barrier(5)
def allocate():
    ready.wait()
    buffers = [bytearray(1000) for _ in range(1000)]
    ready.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
[thread.start() for thread in threads]
ready.wait(), ready.wait()
[thread.join() for thread in threads]
trim_malloc()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(None)
"""


VARIABLES = {"CI", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS"}
"""Any of them would turn the telemetry off."""


def run(code: str, *arguments: str, **env: str) -> str:
    """What ``code`` prints in a process of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, check=True, cwd=ROOT, env={**inherited, **env},
    )  # fmt: skip
    return done.stdout


def test_no_telemetry(tmp_path: Path) -> None:
    """Loading and running a model leaves nothing in the home folder to be sent anywhere."""
    label = run(CLASSIFY, HOME=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))

    assert label == "POSITIVE\n"
    assert list(tmp_path.rglob("*")) == []


def test_one_heap_for_all_threads() -> None:
    """With the bound, threads allocate from one heap; without, each gets its own."""
    assert run(COUNT_HEAPS).count("<heap nr=") > 1
    assert run(COUNT_HEAPS, "bounded").count("<heap nr=") == 1
