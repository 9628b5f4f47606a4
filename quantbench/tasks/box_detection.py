"""Object detection with a graph that ends in boxes, scores and classes, as the SSD models do.

Source: the reference implementation of MLPerf Inference v0.5 for both SSDs (which outputs mean what, the least score,
the classes' numbers, the rows of the accuracy log). Nothing is suppressed here: that is part of the graph.
"""

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
from quantbench.references.schema import DetectionOutputs
from quantbench.tasks.batching import Group, output_index, stack

__all__ = ["BoxDetectionTask"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Detections:
    """The outputs of a group, without padding: row i belongs to the sample at positions[i]."""

    positions: tuple[int, ...]
    boxes: Array  # (n, k, 4)
    scores: Array  # (n, k)
    classes: Array  # (n, k)
    counts: Array | None  # (n,): how many of the k rows are detections


@dataclass(frozen=True)
class BoxDetectionTask:
    """`outputs` says which output is what. `categories` are the ids of the classes 1, 2, …; None: classes are ids."""

    outputs: DetectionOutputs
    categories: tuple[int, ...] | None = None
    name: str = "object-detection"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> BoxDetectionTask:
        assert reference.detection is not None
        return cls(reference.detection, dataset.prediction_space)

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> list[Group]:
        return stack(executor, inputs)

    def infer(self, executor: Executor, feeds: list[Group]) -> list[Detections]:
        return [self._run(executor, group) for group in feeds]

    def predictions(self, raw: list[Detections]) -> list[Array]:
        """(k, 6) float32 rows x1, y1, x2, y2, score, category id; fractions of the image, in the graph's order.

        Raises:
            InputError: the outputs are no boxes, scores and classes, or a class has no category.
        """
        found: list[Array] = [np.zeros((0, 6), np.float32)] * sum(len(group.positions) for group in raw)
        for group in raw:
            _check(self.outputs, group)
            for row, position in enumerate(group.positions):
                found[position] = self._rows(group, row)
        return found

    def classes(self, raw: list[Detections]) -> int | None:
        return None

    def to_bytes(self, prediction: Array, index: int) -> bytes:
        """Rows of image index, y1, x1, y2, x2, score, class as float32; the class is the model's own number."""
        x1, y1, x2, y2, score, category = prediction.astype("<f4").T
        if self.categories is not None:
            numbers = {category: number for number, category in enumerate(self.categories, 1)}
            category = np.array([numbers[int(each)] for each in category], "<f4")
        return np.stack([np.full_like(x1, index), y1, x1, y2, x2, score, category], axis=1).tobytes()

    def from_bytes(self, data: bytes) -> Array:
        _, y1, x1, y2, x2, score, number = np.frombuffer(data, "<f4").reshape(-1, 7).T
        return np.stack([x1, y1, x2, y2, score, self._category(number)], axis=1).astype(np.float32)

    def _run(self, executor: Executor, group: Group) -> Detections:
        values = executor.run(group.feeds)

        def output(name: str) -> Array:
            return values[output_index(executor, name)][: len(group.positions)]

        wanted = self.outputs
        return Detections(
            group.positions,
            output(wanted.boxes),
            output(wanted.scores),
            output(wanted.classes),
            None if wanted.count is None else output(wanted.count),
        )

    def _rows(self, group: Detections, row: int) -> Array:
        scores = group.scores[row].astype(np.float32)
        count = len(scores) if group.counts is None else int(group.counts.reshape(-1)[row])
        kept = np.flatnonzero(scores[:count] >= self.outputs.min_score)
        boxes = group.boxes[row].astype(np.float32)[kept]
        if self.outputs.order == "y1x1y2x2":
            boxes = boxes[:, [1, 0, 3, 2]]
        category = self._category(group.classes[row][kept])
        return np.concatenate([boxes, scores[kept, None], category[:, None]], axis=1).astype(np.float32)

    def _category(self, numbers: Array) -> Array:
        """Category ids of the model's classes.

        Raises:
            InputError: the data set has no category for a class.
        """
        positions = numbers.astype(np.int64)
        if self.categories is None:
            return positions
        outside = positions[(positions < 1) | (positions > len(self.categories))]
        if len(outside):
            raise InputError(
                f"the model found the class {outside[0]}, but the annotations list {len(self.categories)} categories; "
                "give the annotation file of the data set that the model was trained for"
            )
        return np.array(self.categories, np.int64)[positions - 1]


def _check(outputs: DetectionOutputs, group: Detections) -> None:
    boxes, scores, classes = group.boxes.shape, group.scores.shape, group.classes.shape
    if len(boxes) != 3 or boxes[2] != 4 or scores != boxes[:2] or classes != boxes[:2]:
        raise InputError(
            f"the outputs {outputs.boxes}, {outputs.scores} and {outputs.classes} have the shapes {boxes}, {scores} "
            f"and {classes}; object-detection needs (n, k, 4), (n, k) and (n, k): name others under [detection]"
        )
