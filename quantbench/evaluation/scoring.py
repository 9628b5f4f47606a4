"""Scores one opened variant: inputs prepared, graphs run and timed, predictions measured."""

from __future__ import annotations

import itertools
import math
import numbers
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from quantbench.datasets.base import Dataset, Samples
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor
from quantbench.metrics import Outcomes, get_metric
from quantbench.numerics.threads import in_order
from quantbench.references import Reference
from quantbench.support import progress, sha256_lines
from quantbench.tasks import Task, fitting_batch, make_task, max_batch, open_with_truths

__all__ = ["DEFAULT_BATCH", "Score", "evaluate"]

Array = NDArray[Any]

DEFAULT_BATCH = 16

_PREPARED_BYTES = 64 << 20


@dataclass(frozen=True)
class Score:
    """How well one reference does in one dtype."""

    reference: str
    dtype: str
    metric: str
    score: float
    """The metric's value, a fraction of 1."""
    samples: int
    seconds: float
    """Inference alone: inputs prepared before, outputs decoded after."""
    samples_per_second: float
    execution: str
    """`native` or `emulated`."""
    total_seconds: float
    """Everything: opening the data, preparing, inference, decoding, measuring."""
    samples_sha256: str
    """sha256 of the ids of the scored samples, one a line."""
    outcomes: Outcomes = field(repr=False, compare=False)

    def document(self) -> dict[str, Any]:
        """The score as one JSON object, without the outcomes."""
        return {key: value for key, value in vars(self).items() if key != "outcomes"}


def evaluate(
    reference: Reference,
    executor: Executor,
    *,
    dtype: str,
    samples: int | None = None,
    batch: int | None = None,
    dataset: Dataset | None = None,
) -> Score:
    """Score an opened variant on the scored samples of its reference.

    Args:
        dtype: what the score is called; the executor decides what is computed.
        samples: only the first so many; all where there are no more.
        batch: samples a call; the graph's own where it is fixed, 16 without. Emulated graphs take no more than what
            stays in the cache.
        dataset: the reference's, where it is open already.

    Raises:
        InputError: `samples` or `batch` below 1, an unknown metric, a label outside the model's classes, samples that
            do not fit the model.
        MissingError: a file of the data set is missing.
    """
    started = time.perf_counter()
    for option, value in (("--samples", samples), ("--batch", batch)):
        if value is not None and value < 1:
            raise InputError(f"{option} is {value}; it must be at least 1")
    measure = get_metric(reference.quality.metric)
    dataset = dataset or open_with_truths(reference)
    task = make_task(reference, dataset)
    scored = dataset.scored
    count = min(samples or len(scored), len(scored))
    size = max_batch(executor) or batch or DEFAULT_BATCH
    if executor.execution == "emulated" and max_batch(executor) is None:
        size = fitting_batch(scored, size)
    what = f"{reference.name} {dtype}"
    predictions, truths, seconds = _infer(task, executor, scored, count, size, what)
    outcomes = measure(predictions, truths)
    return Score(
        reference=reference.name,
        dtype=dtype,
        metric=reference.quality.metric,
        score=outcomes.value,
        samples=count,
        seconds=seconds,
        samples_per_second=count / seconds,
        execution=executor.execution,
        total_seconds=time.perf_counter() - started,
        samples_sha256=sha256_lines(scored.ids[:count]),
        outcomes=outcomes,
    )


def _infer(
    task: Task, executor: Executor, samples: Samples, count: int, size: int, what: str
) -> tuple[list[Any], list[Any], float]:
    """Predictions and truths of the first `count` samples, and the seconds that inference took."""
    predictions: list[Any] = []
    truths: list[Any] = []
    spans: list[tuple[float, float]] = []
    batches = progress(_prepared(task, executor, samples, count, size), -(-count // size), what)
    first = next(batches)
    task.infer(executor, first[0])  # the first call of a session sets up its memory: not the variant's speed

    def run(batch: tuple[Any, Sequence[int]]) -> tuple[Any, Sequence[int]]:
        feeds, indices = batch
        begun = time.perf_counter()
        raw = task.infer(executor, feeds)
        spans.append((begun, time.perf_counter()))
        return raw, indices

    for raw, indices in in_order(run, itertools.chain([first], batches), executor.calls_at_once()):
        known = [samples.truth(index) for index in indices]
        _check_labels(task.classes(raw), known, [samples.ids[index] for index in indices])
        predictions += task.predictions(raw)
        truths += known
    return predictions, truths, _covered(spans)


def _covered(spans: Iterable[tuple[float, float]]) -> float:
    """How much time lies within one span or several: what inference took, however many calls ran side by side."""
    covered, until = 0.0, -math.inf
    for begun, ended in sorted(spans):
        covered += max(ended - max(begun, until), 0.0)
        until = max(until, ended)
    return covered


def _prepared(
    task: Task, executor: Executor, samples: Samples, count: int, size: int
) -> Iterator[tuple[Any, Sequence[int]]]:
    """Batches ready to run: prepared many at a time, so that preparing does not cool the caches for each, and held
    in bounded memory."""
    ready: list[tuple[Any, Sequence[int]]] = []
    held = 0
    for start in range(0, count, size):
        indices = range(start, min(start + size, count))
        inputs = [samples.input(index) for index in indices]
        ready.append((task.feeds(executor, inputs), indices))
        held += sum(sample.nbytes for sample in inputs)
        if held >= _PREPARED_BYTES:
            yield from ready
            ready, held = [], 0
    yield from ready


def _check_labels(classes: int | None, truths: Sequence[Any], ids: Sequence[str]) -> None:
    if classes is None:
        return
    for truth, name in zip(truths, ids, strict=True):
        if isinstance(truth, numbers.Integral) and not 0 <= int(truth) < classes:
            raise InputError(
                f"the label {truth} of sample {name} is outside the model's classes 0 to {classes - 1}; "
                "correct the list, or label_offset under [dataset]"
            )
