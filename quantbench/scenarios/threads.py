"""Threads that call LoadGen last as long as the process.

LoadGen (6.0.17, `logging.cc`) keeps a log for each thread that calls it, and frees it when the thread has ended. Where
such a log held more than 1024 entries between two looks of LoadGen's own thread, a request to look again can be left
over, and the next test in the process reads the freed log: a segmentation fault in one of some 10,000 short tests.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["begin"]

_MOST = 1024  # threads LoadGen has room for; they start as they are needed, and those that are idle are used again

_lasting = ThreadPoolExecutor(_MOST, thread_name_prefix="loadgen")


def begin(work: Callable[[], None]) -> Future[None]:
    """Let a thread do `work`; the thread remains when that is done."""
    return _lasting.submit(work)
