"""map: COCO mean average precision, over IoU 0.50 to 0.95 and classes, at most 100 boxes an image and class.

The definition is that of pycocotools' `COCOeval` for boxes of any area, with crowds; the numbers agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.boxes import LabelledBoxes
from quantbench.errors import InputError
from quantbench.metrics.average_precision import average_precision, match

__all__ = ["DetectionOutcomes", "measure"]

Array = NDArray[Any]

_MAX_BOXES = 100


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> DetectionOutcomes:
    """Match the boxes of each image once.

    Args:
        predictions: an image's (k, 6) rows x1, y1, x2, y2, score, class; in the units of its truth.
        truths: an image's (k, 4) rows x1, y1, x2, y2, all of class 1, or (k, 5) with the class last; or its
            `LabelledBoxes`, where a prediction is in fractions of the image.

    Raises:
        InputError: truths are no boxes, or no image has any.
    """
    labelled = [
        truth if isinstance(truth, LabelledBoxes) else _labelled(truth, number) for number, truth in enumerate(truths)
    ]
    # A class that is labelled nowhere has no recall, so COCO leaves it out of the mean.
    classes = sorted({int(k) for truth in labelled for k in truth.classes[~truth.crowd]})
    if not classes:
        raise InputError("the metric map needs boxes to find, but no scored image has any; score more samples")
    detections: dict[int, list[_Found]] = {k: [] for k in classes}
    # COCOeval goes through the images by their ids, which decides between equal scores.
    for image in sorted(range(len(labelled)), key=lambda image: labelled[image].image_id):
        rows = np.asarray(predictions[image], np.float64).reshape(-1, 6)
        for k in np.intersect1d(rows[:, 5], classes).astype(int):
            detections[k].append(_match_image(image, rows[rows[:, 5] == k], labelled[image], k))
    return DetectionOutcomes(len(labelled), tuple(_of_class(detections[k], labelled, k) for k in classes))


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class in all images, the best score first."""

    image: Array  # (d,) int64: the image of each detection
    hit: Array  # (10, d) bool: at each IoU threshold, whether it found a labelled box
    ignored: Array  # (10, d) bool: likewise, whether it fell into a crowd and does not count
    labelled: Array  # (n,) int64: boxes to find in each image


@dataclass(frozen=True, eq=False)
class DetectionOutcomes:
    """Matches of n images; an image drawn twice is two images with the same boxes."""

    images: int
    classes: tuple[ClassMatches, ...]

    def __len__(self) -> int:
        return self.images

    @property
    def value(self) -> float:
        return float(self.resampled(np.ones((1, self.images), np.int64))[0])

    def resampled(self, counts: Array) -> Array:
        precisions = np.stack(
            [average_precision(counts.astype(np.int64), k.image, k.hit, k.ignored, k.labelled) for k in self.classes]
        )
        defined = ~np.isnan(precisions)
        with np.errstate(invalid="ignore"):  # a resample may hold no labelled box at all: NaN
            means: Array = np.where(defined, precisions, 0).sum(axis=0) / defined.sum(axis=0)
        return means


@dataclass(frozen=True, eq=False)
class _Found:
    """The detections of one class in one image, the best score first."""

    image: int
    scores: Array  # (d,)
    hit: Array  # (10, d) bool
    ignored: Array  # (10, d) bool


def _labelled(boxes: Any, number: int) -> LabelledBoxes:
    """Rows of corners as labelled boxes of an image of one by one, so that predictions keep their units."""
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        array = np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise InputError(f"the metric map needs boxes of shape (k, 4), but a truth has {array.shape}; use its metric")
    classes = array[:, 4] if array.shape[1] == 5 else np.ones(len(array))
    return LabelledBoxes(number, 1, 1, _corners_to_sizes(array), classes.astype(np.int64), np.zeros(len(array), bool))


def _match_image(image: int, rows: Array, truth: LabelledBoxes, category: int) -> _Found:
    rows = rows[np.argsort(-rows[:, 4], kind="stable")[:_MAX_BOXES]]
    pixels = rows[:, :4] * np.array([truth.width, truth.height, truth.width, truth.height], np.float64)
    mine = truth.classes == category
    hit, ignored = match(_corners_to_sizes(pixels), truth.boxes[mine], truth.crowd[mine])
    return _Found(image, rows[:, 4], hit, ignored)


def _of_class(found: Sequence[_Found], labelled: Sequence[LabelledBoxes], category: int) -> ClassMatches:
    none = np.zeros((10, 0), bool)
    scores = np.concatenate([each.scores for each in found] or [np.zeros(0)])
    order = np.argsort(-scores, kind="stable")
    return ClassMatches(
        image=np.concatenate([np.full(len(each.scores), each.image) for each in found] or [np.zeros(0, np.int64)])[
            order
        ],
        hit=np.ascontiguousarray(np.concatenate([each.hit for each in found] or [none], axis=1)[:, order]),
        ignored=np.ascontiguousarray(np.concatenate([each.ignored for each in found] or [none], axis=1)[:, order]),
        labelled=np.array([int((~truth.crowd & (truth.classes == category)).sum()) for truth in labelled], np.int64),
    )


def _corners_to_sizes(boxes: Array) -> Array:
    """(k, 4) x, y, width, height from rows that begin with x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:4] - boxes[:, :2]], axis=1)
