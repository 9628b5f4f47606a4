"""How many of a task's answers change when its graphs are rounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any

import onnx_ir as ir

from quantbench.datasets.base import Samples
from quantbench.graphs import SessionExecutor
from quantbench.graphs.widen import widen_weights
from quantbench.numerics.threads import cores
from quantbench.tasks import Task

__all__ = ["Agreement"]

_BATCH = 8


class Agreement:
    """Compares answers with those of the exact graphs, which are asked once, when they are needed and not known.

    Args:
        models: the exact graphs.
        task: what is done with them.
        samples: calibration samples.
        count: the first so many of them are asked.
        known: the answers of the exact graphs to these samples, or none.
    """

    def __init__(
        self, models: Mapping[str, ir.Model], task: Task, samples: Samples, count: int, known: Sequence[Any] = ()
    ) -> None:
        self._models = models
        self._task = task
        self._samples = samples
        self._count = count
        self._known = known

    @cached_property
    def _exact(self) -> Sequence[Any]:
        return self._known or self._answers(self._models, self._count)

    @cached_property
    def discrete(self) -> bool:
        """Whether answers are the same or not: classes and texts are, boxes are not. One answer tells."""
        few = self._known[:1] or self._answers(self._models, min(self._count, 1))
        return all(isinstance(answer, (int, str, tuple)) for answer in few)

    def changed(self, models: Mapping[str, ir.Model]) -> float:
        """The share of the samples whose answer is another one with these graphs, whose narrow weights are widened."""
        for model in models.values():
            widen_weights(model)
        answers = self._answers(models, self._count)
        return sum(bool(old != new) for old, new in zip(self._exact, answers, strict=True)) / self._count

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
