"""Systems under test: what answers LoadGen's queries with an opened variant."""

from __future__ import annotations

import abc
import array
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from typing import Any

import mlperf_loadgen as lg

from quantbench.graphs.executor import Executor
from quantbench.scenarios.threads import begin
from quantbench.tasks.base import Task

__all__ = ["Answer", "DirectSystem", "QueueSystem", "SystemUnderTest", "answers"]

Answer = Callable[[Sequence[int]], list[bytes]]
"""From the sample indices of a batch to the bytes that answer each."""


def answers(executor: Executor, task: Task, sample: Callable[[int], Any], *, stacked: bool = False) -> Answer:
    """The way from samples in memory to response bytes: stack, infer, decode, encode.

    Args:
        sample: the loaded sample of an index.
        stacked: samples are loaded as the feeds of one sample already, and come one by one.
    """

    def answer(indices: Sequence[int]) -> list[bytes]:
        feeds = sample(indices[0]) if stacked else task.feeds(executor, [sample(index) for index in indices])
        predictions = task.predictions(task.infer(executor, feeds))
        return [task.to_bytes(prediction, index) for prediction, index in zip(predictions, indices, strict=True)]

    return answer


_AWAKE = 0.2
"""Seconds for which a thread that nothing is left to do for looks again and again instead of sleeping."""


class SystemUnderTest(abc.ABC):
    """What LoadGen calls, from a thread of its own.

    LoadGen has no way to end a test early, and an exception that passes through it leaves it unusable. So a system
    that fails, or is told to stop, keeps the error, computes nothing more, and answers with nothing until LoadGen ends.
    """

    def __init__(self, answer: Answer) -> None:
        self.error: BaseException | None = None
        self._answer = answer

    @abc.abstractmethod
    def issue(self, ids: list[int], indices: list[int]) -> None:
        """A query: LoadGen's ids of its samples, and their indices in the sample library."""

    @abc.abstractmethod
    def flush(self) -> None:
        """No more queries come."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the work of the threads."""

    def stop(self, error: BaseException) -> None:
        """Compute nothing more, because of `error`; the first one given is kept."""
        self.error = self.error or error

    def _compute(self, indices: Sequence[int]) -> list[bytes] | None:
        """The answers of a batch; None after a failure."""
        if self.error is None:
            try:
                return self._answer(indices)
            except Exception as error:
                self.stop(error)
        return None


class DirectSystem(SystemUnderTest):
    """Answers each query within LoadGen's own call: SingleStream, MultiStream and Offline.

    Args:
        answer: computes the answers of a batch.
        batch: the most samples computed at once.
        order: a query of several batches is computed in the order of this key of its indices, so that samples of one
            shape are stacked together (the rules allow sorting within a query).
    """

    def __init__(self, answer: Answer, batch: int, order: Callable[[int], Any] = int) -> None:
        super().__init__(answer)
        self._batch = batch
        self._order = order

    def issue(self, ids: list[int], indices: list[int]) -> None:
        if len(ids) > self._batch and self.error is None:
            places = sorted(range(len(ids)), key=lambda place: self._order(indices[place]))
            ids, indices = [ids[place] for place in places], [indices[place] for place in places]
        for start in range(0, len(ids), self._batch):
            part = slice(start, start + self._batch)
            _complete(ids[part], self._compute(indices[part]))

    def flush(self) -> None:
        """Nothing is ever left to do."""

    def close(self) -> None:
        """No thread works for it."""


class QueueSystem(SystemUnderTest):
    """Answers from worker threads, each of which takes what waits in the queue as one batch: Server.

    After a failure answers are held back until `flush`: LoadGen ends a Server run when more queries are open than its
    settings accept, which is sooner than its schedule ends.

    Args:
        answer: computes the answers of a batch.
        batch: the most samples computed at once.
        workers: how many threads compute.
    """

    def __init__(self, answer: Answer, batch: int, workers: int) -> None:
        super().__init__(answer)
        self._batch = batch
        self._waiting: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._held: list[int] = []
        self._flushed = False
        self._alone = workers == 1
        self._workers = [begin(self._work) for _ in range(workers)]

    def issue(self, ids: list[int], indices: list[int]) -> None:
        self._flushed = False
        if self.error is not None:
            self._hold(ids)
            return
        for sample in zip(ids, indices, strict=True):
            self._waiting.put(sample)

    def flush(self) -> None:
        with self._lock:
            self._flushed = True
            held, self._held = self._held, []
        _complete(held, None)

    def close(self) -> None:
        for _ in self._workers:
            self._waiting.put(None)
        wait(self._workers)

    def _work(self) -> None:
        while (first := self._next()) is not None:
            samples = [first, *self._more()]
            ids = [id_ for id_, _ in samples]
            responses = self._compute([index for _, index in samples])
            if responses is None:
                self._hold(ids)
            else:
                _complete(ids, responses)

    def _next(self) -> tuple[int, int] | None:
        """What comes next. A thread that sleeps wakes late, and on a core that has rested it computes slower; but where
        others compute, it would keep a core from them."""
        until = time.perf_counter() + (_AWAKE if self._alone else 0.0)
        while self._waiting.empty() and time.perf_counter() < until:
            time.sleep(0)  # lets LoadGen's thread have the interpreter
        return self._waiting.get()

    def _more(self) -> list[tuple[int, int]]:
        """What else waits, up to the batch size."""
        samples: list[tuple[int, int]] = []
        while len(samples) < self._batch - 1:
            try:
                sample = self._waiting.get_nowait()
            except queue.Empty:
                break
            if sample is None:
                self._waiting.put(None)  # the end, for the loop to see
                break
            samples.append(sample)
        return samples

    def _hold(self, ids: list[int]) -> None:
        with self._lock:
            if not self._flushed:
                self._held += ids
                return
        _complete(ids, None)


def _complete(ids: Sequence[int], responses: Sequence[bytes] | None) -> None:
    """Hand the answers to LoadGen, which copies what it logs before this returns; None answers all with nothing."""
    if responses is None:
        lg.QuerySamplesComplete([lg.QuerySampleResponse(id_, 0, 0) for id_ in ids])
        return
    buffers = [array.array("B", response) for response in responses]
    lg.QuerySamplesComplete(
        [lg.QuerySampleResponse(id_, *buffer.buffer_info()) for id_, buffer in zip(ids, buffers, strict=True)]
    )
