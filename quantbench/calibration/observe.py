"""Run a task's calibration samples through its graphs and watch the tensors in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration.histogram import Histogram, Observation
from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import SessionExecutor, TensorSpec
from quantbench.support import progress
from quantbench.tasks import Task

__all__ = ["Observations", "observe"]

Array = NDArray[Any]
Observations = dict[str, dict[str, Observation]]
"""Graph name → tensor name → what was seen."""

_BATCH = 8


def observe(
    models: Mapping[str, ir.Model],
    tensors: Mapping[str, Sequence[str]],
    task: Task,
    samples: Samples,
    count: int,
) -> Observations:
    """Watch `tensors` (graph name → float32 tensor names) while the first `count` samples run through the task.

    One pass over the samples, in memory that does not grow with their number.

    Raises:
        InputError: there are fewer than `count` samples, or a tensor becomes NaN or infinite.
    """
    if count > len(samples):
        raise InputError(f"calibration asks for {count} samples, but there are only {len(samples)}")
    executor = _ObservingExecutor(models, tensors)
    batch = 1 if executor.fixed_batch else _BATCH
    for start in progress(range(0, count, batch), what="calibrating"):
        inputs = [samples.input(index) for index in range(start, min(start + batch, count))]
        task.infer(executor, task.feeds(executor, inputs))
    return executor.observations()


class _ObservingExecutor:
    """Plain sessions that also return the watched tensors, which are counted and dropped."""

    def __init__(self, models: Mapping[str, ir.Model], tensors: Mapping[str, Sequence[str]]) -> None:
        exposed = {name: _expose(model, tensors.get(name, ())) for name, model in models.items()}
        self._executor = SessionExecutor(exposed)
        self._kept = {name: len(model.graph.outputs) for name, model in models.items()}
        self._inputs = {name: [value.name for value in model.graph.inputs] for name, model in models.items()}
        self._histograms = {
            name: {tensor: Histogram(tensor) for tensor in tensors.get(name, ())} for name in models
        }

    @property
    def execution(self) -> str:
        return "native"

    @property
    def fixed_batch(self) -> bool:
        return any(spec.shape[:1] == (1,) for name in self._kept for spec in self.inputs(name))

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.inputs(graph)

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.outputs(graph)[: self._kept[graph]]

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        results = self._executor.run(feeds, graph)
        named = {spec.name: value for spec, value in zip(self._executor.outputs(graph), results, strict=True)}
        for tensor, histogram in self._histograms[graph].items():
            histogram.add(feeds[tensor] if tensor in feeds else named[tensor])
        return results[: self._kept[graph]]

    def observations(self) -> Observations:
        return {
            graph: {tensor: histogram.observation() for tensor, histogram in histograms.items()}
            for graph, histograms in self._histograms.items()
        }


def _expose(model: ir.Model, tensors: Sequence[str]) -> bytes:
    """The model with `tensors` as further outputs, serialized."""
    copy = model.clone()
    present = {value.name for value in (*copy.graph.inputs, *copy.graph.outputs)}
    values = {output.name: output for node in copy.graph for output in node.outputs}
    copy.graph.outputs.extend(values[tensor] for tensor in tensors if tensor not in present)
    return ir.to_proto(copy).SerializeToString()
