"""Image classification: scores or a class number out of one graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor
from quantbench.references import Reference
from quantbench.tasks.batching import Group, Output, run_groups, scatter, stack

__all__ = ["ClassificationTask"]

Array = NDArray[Any]

_EXACT_IN_FLOAT32 = 1 << 24


@dataclass(frozen=True)
class ClassificationTask:
    """The scored output is (n, classes) scores, of which the largest wins, or (n,) or (n, 1) integer classes."""

    output: str | None = None
    label_offset: int = 0
    """What the data set's labels are shifted by to be the model's classes: 1 where class 0 is the background."""
    name: str = "image-classification"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> ClassificationTask:
        return cls(reference.model.output, reference.dataset.label_offset)

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> list[Group]:
        return stack(executor, inputs)

    def infer(self, executor: Executor, feeds: list[Group]) -> list[Output]:
        return run_groups(executor, feeds, self.output)

    def predictions(self, raw: list[Output]) -> list[int]:
        """One class a sample; of equal scores the first wins.

        Raises:
            InputError: the output is neither scores nor integer classes.
        """
        return scatter(raw, _decode)

    def classes(self, raw: list[Output]) -> int | None:
        rows = _rows(raw[0].values)
        return None if rows.dtype.kind in "iu" and rows.shape[1] == 1 else rows.shape[1]

    def to_bytes(self, prediction: int, index: int) -> bytes:
        """The data set's label as one float32, as the v0.5 reference implementation logs it.

        It is int64 where float32 is not exact.
        """
        label = prediction - self.label_offset
        exact = abs(label) <= _EXACT_IN_FLOAT32
        return np.array(label, "<f4" if exact else "<i8").tobytes()

    def from_bytes(self, data: bytes) -> int:
        return int(np.frombuffer(data, "<f4" if len(data) == 4 else "<i8")[0]) + self.label_offset


def _decode(values: Array) -> list[int]:
    rows = _rows(values)
    if rows.dtype.kind in "iu" and rows.shape[1] == 1:
        return [int(number) for number in rows[:, 0]]
    return [int(number) for number in rows.argmax(axis=1)]


def _rows(values: Array) -> Array:
    """(n, classes) from (n, classes, 1, 1) and the like, (n, 1) from (n,)."""
    sizes = [size for size in values.shape[1:] if size != 1]
    if values.ndim == 0 or len(sizes) > 1 or (not sizes and values.dtype.kind not in "iu"):
        raise InputError(
            f"the scored output has shape {values.shape} and dtype {values.dtype}; image-classification needs "
            "(n, classes) scores or (n) integer classes: name another output under [model]"
        )
    return values.reshape(len(values), sizes[0] if sizes else 1)
