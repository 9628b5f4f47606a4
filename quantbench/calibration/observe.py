"""Run a task's calibration samples through its graphs and watch the tensors in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration.histogram import Histogram, Observation
from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import SessionExecutor, TensorSpec
from quantbench.support import progress
from quantbench.tasks import Task

__all__ = ["Observations", "observe", "record_feeds"]

Array = NDArray[Any]
Observations = dict[str, dict[str, Observation]]
"""Graph name → tensor name → what was seen."""
_Watched = Mapping[str, Mapping[str, Callable[[Array], None]]]
"""Graph name → tensor name → what to call with each batch of the tensor's values."""

_BATCH = 8


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
    histograms = {graph: {name: Histogram(name) for name in names} for graph, names in tensors.items()}
    watched = {graph: {name: each.add for name, each in named.items()} for graph, named in histograms.items()}
    _drive(_WatchingExecutor(models, watched), task, samples, count, "calibrating")
    return {graph: {name: each.observation() for name, each in named.items()} for graph, named in histograms.items()}


def record_feeds(
    models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int
) -> dict[str, list[dict[str, Array]]]:
    """What the task feeds its graphs for the first `count` samples: for each graph, one mapping a call."""
    feeds: dict[str, list[dict[str, Array]]] = {name: [] for name in models}
    executor = _WatchingExecutor(models, {}, feeds)
    _drive(executor, task, samples, count, "recording")
    return feeds


def _drive(executor: _WatchingExecutor, task: Task, samples: Samples, count: int, what: str) -> None:
    if count > len(samples):
        raise InputError(f"calibration asks for {count} samples, but there are only {len(samples)}")
    for start in progress(range(0, count, _BATCH), what=what):
        inputs = [samples.input(index) for index in range(start, min(start + _BATCH, count))]
        task.infer(executor, task.feeds(executor, inputs))


class _WatchingExecutor:
    """Plain sessions that also compute the watched tensors and hand them over, and may keep what they are fed."""

    def __init__(
        self,
        models: Mapping[str, ir.Model],
        watched: _Watched,
        recorded: Mapping[str, list[dict[str, Array]]] | None = None,
    ) -> None:
        self._recorded = recorded
        self._watched = {name: watched.get(name, {}) for name in models}
        self._kept = {name: len(model.graph.outputs) for name, model in models.items()}
        self._executor = SessionExecutor({name: _expose(model, self._watched[name]) for name, model in models.items()})

    @property
    def execution(self) -> str:
        return "native"

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.inputs(graph)

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.outputs(graph)[: self._kept[graph]]

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        if self._recorded is not None:
            self._recorded[graph].append({name: value.copy() for name, value in feeds.items()})
        results = self._executor.run(feeds, graph)
        named = {spec.name: value for spec, value in zip(self._executor.outputs(graph), results, strict=True)}
        for tensor, visit in self._watched[graph].items():
            visit(feeds[tensor] if tensor in feeds else named[tensor])
        return results[: self._kept[graph]]


def _expose(model: ir.Model, tensors: Mapping[str, Any]) -> bytes:
    """The model with `tensors` as further outputs, serialized."""
    copy = model.clone()
    present = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    values = {output.name: output for node in copy.graph for output in node.outputs}
    copy.graph.outputs.extend(values[tensor] for tensor in tensors if tensor not in present)
    serialized: bytes = ir.to_proto(copy).SerializeToString()
    return serialized
