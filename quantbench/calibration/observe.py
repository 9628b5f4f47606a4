"""Run a task's calibration samples through its graphs and watch the tensors in between."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration.histogram import Histogram, Observation, load_kernels
from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, PassingExecutor, SessionExecutor
from quantbench.graphs.staging import StagedExecutor, Tap
from quantbench.numerics.threads import begun, side_by_side
from quantbench.support import progress
from quantbench.tasks import Task, fitting_batch

__all__ = ["Feeds", "Observations", "observe", "record_feeds"]

Array = NDArray[Any]
Observations = dict[str, dict[str, Observation]]
"""Graph name → tensor name → what was seen."""
Feeds = dict[str, list[dict[str, Array]]]
"""Graph name → what it was fed, one mapping a call."""

_BATCH = 32
_RECORDED_BATCH = 8
_RECORDED_BATCH_BYTES = 1 << 20
"""Kept inputs that run together: little, because what runs them later may hold every tensor of a batch."""
_RECORDED_BATCHES = 6
"""As many at least, so that they can be divided for one purpose and another."""
_RECORDED_LEAST = 6
"""Samples that are kept whatever their size."""


def observe(
    models: Mapping[str, ir.Model],
    tensors: Mapping[str, Sequence[str]],
    task: Task,
    samples: Samples,
    count: int,
    recorded: int = 0,
    recorded_bytes: int = 64 << 20,
    known: Observations | None = None,
) -> tuple[Observations, Feeds]:
    """Count the values of `tensors` (graph name → float32 tensor names) over the first `count` samples.

    One pass over the samples, in memory that does not grow with their number. On the way, what the task feeds its
    graphs is kept for some of them, evenly spread.

    Args:
        recorded: for how many at most.
        recorded_bytes: what their inputs may take.
        known: what an earlier call with the same arguments has seen; then the graphs run for `recorded` samples alone.

    Returns:
        (what was seen of each tensor; for each graph, what it was fed, one mapping a call).

    Raises:
        InputError: there are fewer than `count` samples, or a tensor becomes NaN or infinite.
    """
    if count > len(samples):
        raise InputError(f"calibration asks for {count} samples, but there are only {len(samples)}")
    histograms = {graph: {name: Histogram(name) for name in names} for graph, names in tensors.items()}
    watched = {
        graph: {name: each.add if known is None else _ignore for name, each in named.items()}
        for graph, named in histograms.items()
    }
    workers, threads = side_by_side()  # with a core for each batch, counting costs no core its time
    if any(histograms.values()) and known is None:
        begun(load_kernels)  # while the graphs are cut and opened
    executor = _executor(models, watched, threads)
    kept = _spread(samples, count, recorded, recorded_bytes)
    others = sorted(set(range(count)) - set(kept)) if any(histograms.values()) and known is None else []
    few = min(_RECORDED_BATCH, max(len(kept) // _RECORDED_BATCHES, 1))
    batches = [(part, True) for part in _batches(kept, fitting_batch(samples, few, _RECORDED_BATCH_BYTES))]
    batches += [(part, False) for part in _batches(others, fitting_batch(samples, _BATCH))]

    def run(batch: tuple[Sequence[int], bool]) -> Feeds:
        indices, keep = batch
        recording = _RecordingExecutor(executor, models) if keep else None
        runner = recording or executor
        task.infer(runner, task.feeds(runner, [samples.input(index) for index in indices]))
        return recording.feeds if recording else {}

    feeds: Feeds = {name: [] for name in models}
    with ThreadPoolExecutor(workers) as pool:
        for found in progress(pool.map(run, batches), len(batches), "calibrating"):
            for name, calls in found.items():
                feeds[name] += calls
    if known is not None:
        return known, feeds
    seen = {graph: {name: each.observation() for name, each in named.items()} for graph, named in histograms.items()}
    return seen, feeds


def record_feeds(
    models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int, recorded: int, recorded_bytes: int
) -> Feeds:
    """What `observe` keeps of the graphs' feeds, without observing anything."""
    return observe(models, {}, task, samples, count, recorded, recorded_bytes)[1]


def _ignore(values: Array) -> None:
    """What stands where a tensor would be counted, so that the graph is run in the same pieces."""


def _executor(
    models: Mapping[str, ir.Model], watched: Mapping[str, Mapping[str, Callable[[Array], None]]], threads: int
) -> Executor:
    if not any(watched.values()):
        return SessionExecutor(
            {name: ir.to_proto(model).SerializeToString() for name, model in models.items()}, threads
        )
    taps = {graph: {name: Tap(visit, "values") for name, visit in named.items()} for graph, named in watched.items()}
    return StagedExecutor(models, taps, threads)


def _spread(samples: Samples, count: int, recorded: int, recorded_bytes: int) -> list[int]:
    """The samples to keep."""
    if not recorded or not count:
        return []
    fitting = max(recorded_bytes // max(samples.input(0).nbytes, 1), _RECORDED_LEAST)
    few = min(recorded, count, fitting)
    return [index * count // few for index in range(few)]


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


class _RecordingExecutor(PassingExecutor):
    """Keeps what its graphs are fed."""

    def __init__(self, executor: Executor, graphs: Mapping[str, Any]) -> None:
        super().__init__(executor)
        self.feeds: Feeds = {name: [] for name in graphs}

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        self.feeds[graph].append({name: value.copy() for name, value in feeds.items()})
        return super().run(feeds, graph)
