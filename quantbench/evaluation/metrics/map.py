"""map: COCO mean average precision, over IoU 0.50 to 0.95 and classes, at most 100 boxes an image and class.

The definition is that of pycocotools' `COCOeval` for boxes of any area, without crowd regions; the numbers agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.evaluation.average_precision import average_precision, match

__all__ = ["DetectionOutcomes", "measure"]

Array = NDArray[Any]

_MAX_BOXES = 100


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> DetectionOutcomes:
    """Match the boxes of each image once.

    Args:
        predictions: an image's (k, 6) rows x1, y1, x2, y2, score, class.
        truths: an image's (k, 4) rows x1, y1, x2, y2, all of class 1, or (k, 5) with the class last.

    Raises:
        InputError: truths are no boxes, or no image has any.
    """
    detections = [np.asarray(boxes, np.float64).reshape(-1, 6) for boxes in predictions]
    labelled = [_with_class(boxes) for boxes in truths]
    classes = np.unique(np.concatenate([boxes[:, 4] for boxes in labelled])) if labelled else np.zeros(0)
    if not len(classes):
        raise InputError("the metric map needs boxes to find, but no scored image has any; score more samples")
    # A class that is labelled nowhere has no recall, so COCO leaves it out of the mean.
    return DetectionOutcomes(len(labelled), tuple(_match_class(detections, labelled, k) for k in classes))


@dataclass(frozen=True, eq=False)
class ClassMatches:
    """The detections of one class in all images, the best score first."""

    image: Array  # (d,) int64: the image of each detection
    hit: Array  # (10, d) bool: at each IoU threshold, whether it found a labelled box
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
            [average_precision(counts.astype(np.int64), k.image, k.hit, k.labelled) for k in self.classes]
        )
        defined = ~np.isnan(precisions)
        with np.errstate(invalid="ignore"):  # a resample may hold no labelled box at all: NaN
            means: Array = np.where(defined, precisions, 0).sum(axis=0) / defined.sum(axis=0)
        return means


def _with_class(boxes: Any) -> Array:
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 5))
    if array.ndim != 2 or array.shape[1] not in (4, 5):
        raise InputError(f"the metric map needs boxes of shape (k, 4), but a truth has {array.shape}; use its metric")
    return array if array.shape[1] == 5 else np.pad(array, ((0, 0), (0, 1)), constant_values=1)


def _match_class(detections: Sequence[Array], labelled: Sequence[Array], category: float) -> ClassMatches:
    images, scores, hits = [], [], []
    for image, (found, boxes) in enumerate(zip(detections, labelled, strict=True)):
        found = found[found[:, 5] == category]
        found = found[np.argsort(-found[:, 4], kind="stable")[:_MAX_BOXES]]
        hits.append(match(np.ascontiguousarray(found[:, :4]), np.ascontiguousarray(boxes[boxes[:, 4] == category, :4])))
        scores.append(found[:, 4])
        images.append(np.full(len(found), image))
    order = np.argsort(-np.concatenate(scores), kind="stable")  # ties: in the order of the images, as COCOeval
    return ClassMatches(
        image=np.concatenate(images)[order],
        hit=np.ascontiguousarray(np.concatenate(hits, axis=1)[:, order]),
        labelled=np.array([int((boxes[:, 4] == category).sum()) for boxes in labelled], np.int64),
    )
