"""Text detection: a probability map out of one graph, boxes around its connected parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor
from quantbench.references import Reference
from quantbench.tasks.batching import Group, Output, run_groups, scatter, stack

__all__ = ["DetectionTask", "boxes_of_map"]

Array = NDArray[Any]

# The threshold is that of Liao et al. 2020, "Real-time scene text detection with differentiable binarization". The rest
# gives the best mAP on the 100 calibration pages of ppocr-det: the ratio is below the paper's 1.5 because the model was
# trained on boxes with a margin, while a page's truths end where the ink does; lower scores add next to no mAP.
_THRESHOLD = 0.3
_MIN_SCORE = 0.4
_MIN_SIDE = 3  # pixels
_UNCLIP_RATIO = 0.7

_TEXT_CLASS = 1  # COCO counts categories from 1


@dataclass(frozen=True)
class DetectionTask:
    """The scored output is (n, 1, height, width): for each pixel of the input, how likely it lies inside a text."""

    output: str | None = None
    name: str = "object-detection"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> DetectionTask:
        return cls(reference.model.output)

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> list[Group]:
        return stack(executor, inputs)

    def infer(self, executor: Executor, feeds: list[Group]) -> list[Output]:
        return run_groups(executor, feeds, self.output)

    def predictions(self, raw: list[Output]) -> list[Array]:
        """(k, 6) float32 rows x1, y1, x2, y2, score, class; pixels of the input; the best score first.

        Raises:
            InputError: the output is no probability map.
        """
        return scatter(raw, _decode)

    def classes(self, raw: list[Output]) -> int | None:
        return None

    def to_bytes(self, prediction: Array, index: int) -> bytes:
        """Rows of image id, y1, x1, y2, x2, score, class as float32, as the v0.5 reference implementation logs them."""
        x1, y1, x2, y2, score, category = prediction.astype("<f4").T
        return np.stack([np.full_like(x1, index), y1, x1, y2, x2, score, category], axis=1).tobytes()

    def from_bytes(self, data: bytes) -> Array:
        _, y1, x1, y2, x2, score, category = np.frombuffer(data, "<f4").reshape(-1, 7).T
        return np.stack([x1, y1, x2, y2, score, category], axis=1).astype(np.float32)


def boxes_of_map(probability: Array) -> Array:
    """Upright boxes around the texts of one probability map.

    The model was trained to mark texts shrunk on every side, so each part is grown by area · ratio / perimeter on every
    side (Liao et al. 2020, section 3.5, with an upright box for the polygon).

    Args:
        probability: (height, width) float32 in 0..1.

    Returns:
        (k, 6) float32 as `DetectionTask.predictions`; the score is the mean probability inside the part's box.
    """
    height, width = probability.shape
    mask = (probability > _THRESHOLD).astype(np.uint8)
    parts = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]  # the first is the background
    x, y, w, h = parts[:, :4].astype(np.int64).T
    sums = cv2.integral(probability, sdepth=cv2.CV_64F)
    score = (sums[y + h, x + w] - sums[y, x + w] - sums[y + h, x] + sums[y, x]) / (w * h)
    grow = w * h * _UNCLIP_RATIO / (2 * (w + h))
    x1, y1 = np.maximum(x - grow, 0), np.maximum(y - grow, 0)
    x2, y2 = np.minimum(x + w + grow, width), np.minimum(y + h + grow, height)
    boxes = np.stack([x1, y1, x2, y2, score, np.full(len(x), float(_TEXT_CLASS))], axis=1).astype(np.float32)
    kept: Array = boxes[(score >= _MIN_SCORE) & (np.minimum(w, h) >= _MIN_SIDE)]
    order = np.argsort(-kept[:, 4], kind="stable")
    return np.take(kept, order, axis=0)


def _decode(values: Array) -> list[Array]:
    if values.ndim != 4 or values.shape[1] != 1:
        raise InputError(
            f"the scored output has shape {values.shape}; object-detection reads probability maps "
            "(n, 1, height, width): name another output under [model]"
        )
    return [boxes_of_map(np.ascontiguousarray(plane, np.float32)) for plane in values[:, 0]]
