"""How much faster one executor is than another, on a machine that does other things too."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from quantbench.datasets.base import Dataset
from quantbench.evaluation.scoring import DEFAULT_BATCH
from quantbench.graphs.executor import Executor
from quantbench.tasks import Task, max_batch

__all__ = ["speedup"]

ROUNDS = 9
_TURN = 0.15
"""Seconds that a turn takes at least: long beside what a clock and the threads of a session need to settle."""


def speedup(task: Task, dataset: Dataset, baseline: Executor, executor: Executor, *, rounds: int = ROUNDS) -> float:
    """The baseline's time over the executor's for one batch of scored samples, the batch that `evaluate` takes.

    The two take turns, so that what else the machine does slows both alike; the median over the rounds of the ratio of
    two neighbouring turns is returned.
    """
    seconds = (_turns(task, dataset, baseline), _turns(task, dataset, executor))
    return statistics.median(next(seconds[0]) / next(seconds[1]) for _ in range(rounds))


def _turns(task: Task, dataset: Dataset, executor: Executor) -> Iterator[float]:
    """Endless turns: each yields seconds a batch."""
    size = min(max_batch(executor) or DEFAULT_BATCH, len(dataset.scored))
    feeds = task.feeds(executor, [dataset.scored.input(index) for index in range(size)])
    while True:
        task.infer(executor, feeds)  # the other one's turn has cooled the caches
        runs, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < _TURN:
            task.infer(executor, feeds)
            runs += 1
        yield passed / runs
