"""Measurements: run by hand or with ``make bench``, never as tests."""

IMAGE_ENV = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
"""What the product's image sets for speed: so run the servers with its session, and the batcher
that is measured beside them."""
