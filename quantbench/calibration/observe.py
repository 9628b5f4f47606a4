"""Run a task's calibration samples through its graphs and watch the tensors in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration.histogram import Histogram, Observation
from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor, PassingExecutor, SessionExecutor
from quantbench.graphs.staging import StagedExecutor, Tap
from quantbench.numerics.threads import side_by_side
from quantbench.support import progress
from quantbench.tasks import Task, fitting_batch

__all__ = ["Feeds", "Observations", "Observer", "Sizes", "record_feeds"]

Array = NDArray[Any]
Observations = dict[str, dict[str, Observation]]
"""Graph name → tensor name → what was seen."""
Feeds = dict[str, list[dict[str, Array]]]
"""Graph name → what it was fed, one mapping a call."""
Sizes = dict[str, dict[str, float]]
"""Graph name → tensor name → elements in one call for one sample."""

_Viewers = dict[tuple[str, str], Callable[[Array], object]]  # by graph and tensor

_BATCH, _BATCH_BYTES = 32, 2 << 20
"""Samples that run together, and what their inputs may take: their tensors are counted when several are complete."""
_RECORDED_BATCH = 8
_RECORDED_BATCH_BYTES = 1 << 20
"""Kept inputs that run together: little, because what runs them later may hold every tensor of a batch."""
_RECORDED_BATCHES = 6
"""As many at least, so that they can be divided for one purpose and another."""
_RECORDED_LEAST = 6
"""Samples that are kept whatever their size."""


class Observer:
    """Graphs opened to be watched, which takes a while: best done while samples are prepared.

    Args:
        models: the graphs by name.
        tensors: graph name → names of float32 tensors to watch. A graph may have none.

    Raises:
        InputError: a tensor is not in its graph.
    """

    def __init__(self, models: Mapping[str, ir.Model], tensors: Mapping[str, Sequence[str]]) -> None:
        self.tensors = {graph: tuple(tensors.get(graph, ())) for graph in models}
        """Graph name → what is watched of it."""
        self._workers, threads = side_by_side()  # with a core for each batch, counting costs no core its time
        self._viewers: _Viewers = {}
        self._executor = _opened(models, self.tensors, self._viewers, threads)

    def sizes(self, task: Task, inputs: Sequence[Array]) -> Sizes:
        """How large each of the tensors is, in the mean over a few samples' inputs, each alone.

        A task may make many calls of a graph for a sample; it is stopped when all tensors have been seen.
        """
        found: dict[tuple[str, str], list[int]] = {key: [] for key in self._watched()}
        for each in inputs:
            left = set(found)
            self._viewers.clear()
            self._viewers.update({key: partial(_add_size, key, sizes, left) for key, sizes in found.items()})
            with suppress(_Enough):
                task.infer(self._executor, task.feeds(self._executor, [each]))
        sizes: Sizes = {graph: {} for graph in self.tensors}
        for (graph, name), elements in found.items():
            if elements:
                sizes[graph][name] = sum(elements) / len(elements)
        return sizes

    def watch(self, tensors: Mapping[str, Sequence[str]]) -> None:
        """From now on, watch these of the tensors alone."""
        self.tensors = {graph: tuple(tensors.get(graph, ())) for graph in self.tensors}

    def observe(
        self,
        task: Task,
        samples: Samples,
        count: int,
        recorded: int = 0,
        recorded_bytes: int = 64 << 20,
        known: Observations | None = None,
    ) -> tuple[Observations, Feeds, list[Any]]:
        """Count the values of the tensors over the first `count` samples.

        One pass over the samples, in memory that does not grow with their number. On the way, what the task feeds its
        graphs is kept for some of them, evenly spread.

        Args:
            recorded: for how many at most.
            recorded_bytes: what their inputs may take.
            known: what an earlier call has seen of the same; then the graphs run for `recorded` samples alone.

        Returns:
            (what was seen of each tensor; for each graph, what it was fed, one mapping a call; the task's answers to
            the samples in their order, none where they did not all run).

        Raises:
            InputError: there are fewer than `count` samples, or a tensor becomes NaN or infinite.
        """
        if count > len(samples):
            raise InputError(f"calibration asks for {count} samples, but there are only {len(samples)}")
        counting = any(self.tensors.values()) and known is None
        histograms = {(graph, name): Histogram(name) for graph, name in self._watched()} if counting else {}
        self._viewers.clear()
        self._viewers.update({key: histogram.add for key, histogram in histograms.items()})
        kept = _spread(samples, count, recorded, recorded_bytes)
        others = sorted(set(range(count)) - set(kept)) if counting else []
        few = min(_RECORDED_BATCH, max(len(kept) // _RECORDED_BATCHES, 1))
        batches = [(part, True) for part in _batches(kept, fitting_batch(samples, few, _RECORDED_BATCH_BYTES))]
        batches += [(part, False) for part in _batches(others, fitting_batch(samples, _BATCH, _BATCH_BYTES))]

        def run(batch: tuple[Sequence[int], bool]) -> tuple[Feeds, list[Any]]:
            indices, keep = batch
            recording = _RecordingExecutor(self._executor, self.tensors) if keep else None
            runner = recording or self._executor
            result = task.infer(runner, task.feeds(runner, [samples.input(index) for index in indices]))
            return recording.feeds if recording else {}, task.predictions(result)

        feeds: Feeds = {name: [] for name in self.tensors}
        answers: dict[int, Any] = {}
        with ThreadPoolExecutor(self._workers) as pool:
            found = progress(pool.map(run, batches), len(batches), "calibrating")
            for (indices, _), (fed, predictions) in zip(batches, found, strict=True):
                answers.update(zip(indices, predictions, strict=True))
                for name, calls in fed.items():
                    feeds[name] += calls
        if known is not None:
            return known, feeds, []
        seen: Observations = {graph: {} for graph in self.tensors}
        for (graph, name), histogram in histograms.items():
            seen[graph][name] = histogram.observation()
        return seen, feeds, [answers[index] for index in range(count)] if len(answers) == count else []

    def _watched(self) -> list[tuple[str, str]]:
        return [(graph, name) for graph, names in self.tensors.items() for name in names]


def record_feeds(
    models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int, recorded: int, recorded_bytes: int
) -> Feeds:
    """What an observer keeps of the graphs' feeds, without observing anything."""
    return Observer(models, {}).observe(task, samples, count, recorded, recorded_bytes)[1]


def _opened(
    models: Mapping[str, ir.Model], tensors: Mapping[str, Sequence[str]], viewers: _Viewers, threads: int
) -> Executor:
    """What runs the graphs and shows their tensors to who looks at them; of the observer, which owns it, it knows
    nothing, so that its sessions go when the observer does."""
    if not any(tensors.values()):
        return SessionExecutor(
            {name: ir.to_proto(model).SerializeToString() for name, model in models.items()}, threads
        )
    taps = {
        graph: {name: Tap(partial(_show, viewers, (graph, name)), "values") for name in names}
        for graph, names in tensors.items()
    }
    return StagedExecutor(models, taps, threads)


def _show(viewers: _Viewers, tensor: tuple[str, str], values: Array) -> None:
    """Show a tensor's values, unless nobody looks: then the graph runs in the same pieces all the same."""
    view = viewers.get(tensor)
    if view is not None:
        view(values)


class _Enough(Exception):  # noqa: N818 (nothing is wrong)
    """All that was to be seen has been seen."""


def _add_size(tensor: tuple[str, str], sizes: list[int], left: set[tuple[str, str]], values: Array) -> None:
    """Note how large a tensor is.

    Raises:
        _Enough: it was the last of those that are left.
    """
    sizes.append(values.size)
    left.discard(tensor)
    if not left:
        raise _Enough


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

    def __init__(self, executor: Executor, graphs: Iterable[str]) -> None:
        super().__init__(executor)
        self.feeds: Feeds = {name: [] for name in graphs}

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        self.feeds[graph].append({name: value.copy() for name, value in feeds.items()})
        return super().run(feeds, graph)
