"""Run a task's calibration samples through its graphs and watch the tensors in between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration.histogram import Histogram, Observation
from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, SessionExecutor, TensorSpec
from quantbench.graphs.staging import StagedExecutor, Tap
from quantbench.support import progress
from quantbench.tasks import Task

__all__ = ["Feeds", "Observations", "observe", "record_feeds"]

Array = NDArray[Any]
Observations = dict[str, dict[str, Observation]]
"""Graph name → tensor name → what was seen."""
Feeds = dict[str, list[dict[str, Array]]]
"""Graph name → what it was fed, one mapping a call."""

_BATCH = 32
_BATCH_BYTES = 8 << 20
"""Inputs that run together; what a graph computes on the way is some ten times as large."""
_RECORDED_BATCH = 8


def observe(
    models: Mapping[str, ir.Model],
    tensors: Mapping[str, Sequence[str]],
    task: Task,
    samples: Samples,
    count: int,
) -> Observations:
    """Count the values of `tensors` (graph name → float32 tensor names) over the first `count` samples.

    One pass over the samples, in memory that does not grow with their number.

    Raises:
        InputError: there are fewer than `count` samples, or a tensor becomes NaN or infinite.
    """
    _check(samples, count)
    histograms = {graph: {name: Histogram(name) for name in names} for graph, names in tensors.items()}
    taps = {
        graph: {name: Tap(each.add, "values") for name, each in named.items()} for graph, named in histograms.items()
    }
    _drive(StagedExecutor(models, taps), task, samples, range(count), _BATCH, "calibrating")
    return {graph: {name: each.observation() for name, each in named.items()} for graph, named in histograms.items()}


def record_feeds(models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int) -> Feeds:
    """What the task feeds its graphs for `count` samples, evenly spread over all: for each graph, one mapping a call.

    Raises:
        InputError: there are fewer than `count` samples.
    """
    _check(samples, count)
    feeds: Feeds = {name: [] for name in models}
    indices = [index * len(samples) // count for index in range(count)]
    executor = SessionExecutor({name: ir.to_proto(model).SerializeToString() for name, model in models.items()})
    _drive(_RecordingExecutor(executor, feeds), task, samples, indices, _RECORDED_BATCH, "recording")
    return feeds


def _check(samples: Samples, count: int) -> None:
    if count > len(samples):
        raise InputError(f"calibration asks for {count} samples, but there are only {len(samples)}")


def _drive(executor: Executor, task: Task, samples: Samples, indices: Sequence[int], largest: int, what: str) -> None:
    for inputs in progress(_batches(samples, indices, largest), what=what):
        task.infer(executor, task.feeds(executor, inputs))


def _batches(samples: Samples, indices: Sequence[int], largest: int) -> Iterator[list[Array]]:
    """The inputs, as many together as are worth it and fit."""
    batch: list[Array] = []
    for index in indices:
        array = samples.input(index)
        if len(batch) == largest or (batch and array.nbytes * (len(batch) + 1) > _BATCH_BYTES):
            yield batch
            batch = []
        batch.append(array)
    if batch:
        yield batch


class _RecordingExecutor:
    """Keeps what its graphs are fed."""

    def __init__(self, executor: Executor, feeds: Feeds) -> None:
        self._executor = executor
        self._feeds = feeds

    @property
    def execution(self) -> str:
        return self._executor.execution

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.inputs(graph)

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.outputs(graph)

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        self._feeds[graph].append({name: value.copy() for name, value in feeds.items()})
        return self._executor.run(feeds, graph)
