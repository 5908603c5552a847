"""Measurements: run by hand or with ``make bench``, never as tests."""

IMAGE_ENV = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What the product's image sets for speed: so run the servers with its session, and the batcher
that is measured beside them."""

CONCURRENCIES = (1, 8, 32, 64)
IN_PROCESS = "in process"
OURS, TUTORIAL, NULL = "ours", "FastAPI + pipeline", "null"
PIPELINE = "pipeline, one by one"
BOUND, ONNX_BOUND = "bound", "bound by ONNX Runtime's product"
"""Names in the raw figures, for those who measure and those who report."""
