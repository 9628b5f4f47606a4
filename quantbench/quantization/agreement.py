"""What the answers of a task say of its graphs once they are rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import onnx_ir as ir

from quantbench.datasets.base import Samples
from quantbench.errors import InputError
from quantbench.graphs import SessionExecutor
from quantbench.graphs.widen import widen_weights
from quantbench.metrics import Metric
from quantbench.numerics.threads import cores
from quantbench.tasks import Task

__all__ = ["Agreement"]

_BATCH = 8
_CHANGED = 3.0
"""Answers that change for each that is lost, where somebody has labelled what is right: one changes to the better, or
from wrong to wrong, about as often as to the worse."""


class Agreement:
    """Compares answers with those of the exact graphs, which are asked once, when they are needed and not known.

    Args:
        models: the exact graphs.
        task: what is done with them.
        samples: calibration samples.
        count: the first so many of them are asked.
        known: the answers of the exact graphs to these samples, or none.
        metric: where nothing is labelled, so that the score is agreement with the exact graphs: how that is measured.
            Their answers are its truths.
    """

    def __init__(
        self,
        models: Mapping[str, ir.Model],
        task: Task,
        samples: Samples,
        count: int,
        known: Sequence[Any] = (),
        metric: Metric | None = None,
    ) -> None:
        self._models = models
        self._task = task
        self._samples = samples
        self._count = count
        self._known = known
        self._metric = metric

    @property
    def is_score(self) -> bool:
        """Whether agreement is what the score will be."""
        return self._metric is not None

    @cached_property
    def tells(self) -> bool:
        """Whether answers say what is lost. Without a metric they do where they are the same or not, as classes and
        texts are, and boxes are not; one answer tells. A metric may have nothing to go by on so few samples."""
        if not self._count:
            return False
        if self._metric is None:
            few = self._known[:1] or self._answers(self._models, 1)
            return all(isinstance(answer, (int, str, tuple)) for answer in few)
        try:
            return self._whole > 0
        except InputError:
            return False

    def changed(self, models: Mapping[str, ir.Model]) -> float:
        """The share of the samples whose answer is another one with these graphs, whose narrow weights are widened."""
        answers = self._rounded(models)
        return sum(bool(old != new) for old, new in zip(self._exact, answers, strict=True)) / self._count

    def lost(self, models: Mapping[str, ir.Model]) -> float:
        """The share of the score that these graphs, whose narrow weights are widened, are expected to lose.

        Requires: `tells`.
        """
        if self._metric is None:
            return self.changed(models) / _CHANGED
        return 1 - self._metric(self._rounded(models), self._exact).value / self._whole

    @cached_property
    def _exact(self) -> Sequence[Any]:
        return self._known or self._answers(self._models, self._count)

    @cached_property
    def _whole(self) -> float:
        """What the exact answers score by the metric."""
        assert self._metric is not None
        return self._metric(self._exact, self._exact).value

    def _rounded(self, models: Mapping[str, ir.Model]) -> list[Any]:
        for model in models.values():
            widen_weights(model)
        return self._answers(models, self._count)

    def _answers(self, models: Mapping[str, ir.Model], count: int) -> list[Any]:
        executor = SessionExecutor(
            {name: ir.to_proto(model).SerializeToString() for name, model in models.items()}, threads=1
        )

        def ask(start: int) -> list[Any]:
            indices = range(start, min(start + _BATCH, count))
            feeds = self._task.feeds(executor, [self._samples.input(index) for index in indices])
            return self._task.predictions(self._task.infer(executor, feeds))

        with ThreadPoolExecutor(cores()) as pool:
            parts = pool.map(ask, range(0, count, _BATCH))
            return [answer for part in parts for answer in part]
