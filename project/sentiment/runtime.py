"""ONNX Runtime without its telemetry; import it from here.

Since 1.29 the library reports by default, over the network, which models are loaded, and keeps a
data base of it in the home folder. It reads the variable when it is imported.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import onnxruntime

__all__ = ["onnxruntime"]
