"""Work shared among threads: each value once, whoever takes it, and no failure lost."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from quantbench.numerics.threads import share


@pytest.mark.parametrize("size", [1, 63, 64, 65, 1000, 6400])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_value_is_worked_on_once(size: int, threads: int) -> None:
    counts = np.zeros(size, np.int64)
    pieces: list[tuple[int, int]] = []

    def work(first: int, last: int) -> None:
        counts[first:last] += 1
        pieces.append((first, last))

    share(size, 64, threads, work)
    assert (counts == 1).all()
    assert all(first % 64 == 0 for first, _ in pieces), "only whole chunks, but for the last"


def test_threads_that_are_free_take_part() -> None:
    seen: set[str] = set()

    def work(first: int, last: int) -> None:
        time.sleep(0.02)
        seen.add(threading.current_thread().name)

    share(12, 1, 3, work)
    assert len(seen) == 3


@pytest.mark.parametrize("failing", [0, 5, 11])
def test_a_failure_in_any_thread_reaches_the_caller(failing: int) -> None:
    def work(first: int, last: int) -> None:
        time.sleep(0.005)
        if first == failing:
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        share(12, 1, 3, work)
