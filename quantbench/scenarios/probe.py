"""A quick look at how fast a variant is, for the rates and batch sizes that LoadGen wants to know beforehand."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from quantbench.graphs.executor import Executor
from quantbench.tasks.base import Task

__all__ = ["Speed", "concurrency", "probe"]

Array = NDArray[Any]

BATCHES = (1, 2, 4, 8, 16, 32)
MOST_WORKERS = 8
RUNS = 30
FASTEST = 20e-6
"""Seconds that LoadGen and its Python binding take for a query that nothing is computed for, about."""
HINDRANCE = 1.2
"""How much longer a batch may take beside others, where it takes long anyway."""
WORTHWHILE = 1.03
"""A larger batch has to bring this much more throughput: it costs memory and latency."""


@dataclass(frozen=True)
class Speed:
    """Seconds from samples in memory to predictions, by batch size."""

    best: dict[int, float]
    """The fastest of a few runs: what the variant can do."""
    mean: dict[int, float]
    """The mean of them: what can be counted on, on a machine that does other things too."""
    concurrent: dict[int, float] = field(default_factory=dict)
    """Samples a second by the number of threads that compute Server's batches at once; empty where nobody asked."""

    def batch(self, *, within: float = math.inf, largest: int | None = None) -> int:
        """The smallest batch whose throughput is nearly the highest.

        Args:
            within, largest: only batches of at most so many seconds, and so many samples, count. 1 always does.
        """
        best = 1
        for size, seconds in self.best.items():
            allowed = seconds <= within and (largest is None or size <= largest)
            if allowed and size / seconds > WORTHWHILE * best / self.best[best]:
                best = size
        return best

    def workers(self, batch: int, *, within: float = math.inf) -> int:
        """The fewest threads whose throughput is nearly the highest.

        Args:
            batch: the size that `concurrent` was measured with.
            within: only as many threads count as have their batches done in so many seconds beside each other, or
                about as soon as one has alone.
        """
        best = 1
        for count, rate in self.concurrent.items():
            alone, beside = batch / self.concurrent[1], count * batch / rate
            if beside <= max(within, HINDRANCE * alone) and rate > WORTHWHILE * self.concurrent[best]:
                best = count
        return best

    def throughput(self, batch: int, *, sustained: bool = False) -> float:
        """Samples a second at a measured batch size: at best, or in the mean."""
        return batch / (self.mean if sustained else self.best)[batch]


def probe(executor: Executor, task: Task, inputs: Sequence[Array], budget: float = 1.0) -> Speed:
    """Time batches of growing size, for about `budget` seconds (longer where one run of one sample takes longer)."""
    inputs = sorted(inputs, key=lambda sample: sample.shape)
    end = time.perf_counter() + budget
    best: dict[int, float] = {}
    mean: dict[int, float] = {}
    for size in BATCHES:
        batch = [inputs[k % len(inputs)] for k in range(size)]
        first = _seconds(executor, task, batch)  # includes what the runtime allocates for a new shape
        share = min(end, time.perf_counter() + budget / len(BATCHES))
        timed: list[float] = []
        while len(timed) < RUNS and time.perf_counter() < share:
            timed.append(_seconds(executor, task, batch))
        best[size] = min(timed, default=first)
        mean[size] = sum(timed) / len(timed) if timed else first
        if time.perf_counter() + 2 * mean[size] > end:
            break
    return Speed(best, mean)


def concurrency(
    executor: Executor, task: Task, inputs: Sequence[Array], batch: int, budget: float = 0.25
) -> dict[int, float]:
    """Samples a second of one thread that computes batches, of two at once, and so on while more bring more.

    Args:
        budget: seconds for each number of threads (longer where one batch takes longer).
    """
    samples = [inputs[k % len(inputs)] for k in range(batch)]
    rates: dict[int, float] = {}
    for count in range(1, MOST_WORKERS + 1):
        end = time.perf_counter() + budget

        def work(end: float = end) -> int:
            done = 0
            while not done or time.perf_counter() < end:
                _seconds(executor, task, samples)
                done += 1
            return done

        started = time.perf_counter()
        with ThreadPoolExecutor(count) as threads:
            batches = sum(each.result() for each in [threads.submit(work) for _ in range(count)])
        rates[count] = batches * batch / (time.perf_counter() - started)
        if count > 1 and rates[count] <= WORTHWHILE * rates[count - 1]:
            break
    return rates


def _seconds(executor: Executor, task: Task, batch: Sequence[Array]) -> float:
    start = time.perf_counter()
    task.predictions(task.infer(executor, task.feeds(executor, batch)))
    return max(time.perf_counter() - start, FASTEST)
