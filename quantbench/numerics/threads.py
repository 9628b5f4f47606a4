"""Sharing work on an array out among threads that release the GIL."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Any, TypeVar

__all__ = ["PARALLEL_FROM", "begun", "cores", "in_order", "share", "side_by_side"]

T = TypeVar("T")
U = TypeVar("U")

PARALLEL_FROM = 1 << 19
"""Values from which a second thread pays for its start (some 50 microseconds)."""

_CALLS = 4


def share(size: int, chunk: int, threads: int | None, work: Callable[[int, int], Any]) -> None:
    """Call work(first, last) for every chunk of 0..size (a last one may be shorter), on at most so many threads.

    The caller's thread begins at once and takes what the others, which may be slow to wake, have not taken yet.
    """
    if threads is None:
        threads = cores() if size >= PARALLEL_FROM else 1
    workers = max(1, min(threads, math.ceil(size / chunk)))
    if workers == 1:
        work(0, size)
        return
    starts = iter(range(0, size, chunk))  # handing out the next is one step of the interpreter

    def take() -> None:
        for start in starts:
            work(start, min(start + chunk, size))

    pool = _pool(os.getpid(), workers - 1)
    others = [pool.submit(take) for _ in range(workers - 1)]
    take()
    for other in others:
        if not other.cancel():  # it has begun
            other.result()


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def side_by_side() -> tuple[int, int]:
    """(calls, threads): how many calls at once, with how many threads each, keep the cores busy.

    One thread a call wastes least; more than `_CALLS` at once would take their multiple of one call's memory.
    """
    calls = min(cores(), _CALLS)
    return calls, cores() // calls


def in_order(work: Callable[[T], U], items: Iterable[T], calls: int, ahead: int | None = None) -> Iterator[U]:
    """`work` of each item in their order, so many at once, and so many more (`ahead`; as many again) that are begun or
    done before they are asked for. What has not begun when the iteration is given up is not done any more."""
    if calls == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(calls) as pool:
        waiting: deque[Future[U]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > calls + (calls if ahead is None else ahead):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def begun(work: Callable[[], T]) -> Future[T]:
    """The result of work that begins at once, in a thread of its own."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return future


@lru_cache(maxsize=8)
def _pool(process: int, workers: int) -> ThreadPoolExecutor:
    """Threads that wait for work. The process is part of the key because a fork does not take threads along."""
    return ThreadPoolExecutor(workers, thread_name_prefix="round")
