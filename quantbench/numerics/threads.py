"""Sharing work on an array out among threads that release the GIL."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

__all__ = ["PARALLEL_FROM", "cores", "share"]

PARALLEL_FROM = 1 << 19
"""Values from which a second thread pays for its start (some 50 microseconds)."""


def share(size: int, chunk: int, threads: int | None, work: Callable[[int, int], Any]) -> None:
    """Call work(first, last) over 0..size, one run of whole chunks a thread; the caller's thread takes the first."""
    if threads is None:
        threads = cores() if size >= PARALLEL_FROM else 1
    workers = max(1, min(threads, math.ceil(size / chunk)))
    if workers == 1:
        work(0, size)
        return
    step = math.ceil(math.ceil(size / chunk) / workers) * chunk
    starts = range(0, size, step)
    pool = _pool(os.getpid(), workers - 1)
    others = [pool.submit(work, start, min(start + step, size)) for start in starts[1:]]
    work(0, min(step, size))
    for other in others:
        other.result()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@lru_cache(maxsize=8)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work. The process is part of the key because a fork does not take threads along."""
    return ThreadPoolExecutor(workers, thread_name_prefix="round")
