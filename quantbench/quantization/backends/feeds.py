"""The calibration samples as a quantizer takes them: what one graph is fed, one call after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from numpy.typing import NDArray

from quantbench.datasets.base import Samples
from quantbench.graphs.executor import Executor, PassingExecutor
from quantbench.tasks import Task

__all__ = ["CalibrationFeeds"]

Array = NDArray[Any]


@dataclass(frozen=True)
class CalibrationFeeds:
    """What a task feeds `graph` for the first `count` samples, one sample at a time, as often as it is asked.

    Nothing is held: samples are prepared, and where a task runs several graphs in a loop the loop is run, anew for
    each pass.

    Attributes:
        executor: of the reference's FP32 graphs.
        loops: whether the task may run its graphs more than once a sample. Where it does not, a graph is not computed,
            because what it is fed is known before.
    """

    executor: Executor
    task: Task
    samples: Samples
    count: int
    graph: str
    loops: bool

    def __iter__(self) -> Iterator[dict[str, Array]]:
        recorder = _Recorder(self.executor, self.graph, self.loops)
        for index in range(self.count):
            with suppress(_Fed):
                self.task.infer(recorder, self.task.feeds(recorder, [self.samples.input(index)]))
            yield from recorder.take()

    def __len__(self) -> int:
        return self._calls

    @cached_property
    def _calls(self) -> int:
        return sum(1 for _ in self) if self.loops else self.count


class _Fed(Exception):  # noqa: N818 (nothing is wrong: it ends a sample whose feeds are known)
    """A graph was fed, and what it would compute is not wanted."""


class _Recorder(PassingExecutor):
    """Keeps what one graph is fed."""

    def __init__(self, executor: Executor, graph: str, computes: bool) -> None:
        super().__init__(executor)
        self._graph = graph
        self._computes = computes
        self._recorded: list[dict[str, Array]] = []

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        if graph == self._graph:
            self._recorded.append({name: value.copy() for name, value in feeds.items()})
        if not self._computes:
            raise _Fed
        return super().run(feeds, graph)

    def take(self) -> list[dict[str, Array]]:
        recorded, self._recorded = self._recorded, []
        return recorded
