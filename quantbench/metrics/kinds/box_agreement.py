"""box-agreement: COCO mean average precision with the FP32 model's boxes for labels. No accuracy: nothing is
labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.boxes import LabelledBoxes
from quantbench.metrics.kinds import map as average_precision
from quantbench.metrics.kinds.map import DetectionOutcomes

__all__ = ["measure"]

Array = NDArray[Any]

_SURE = 0.5


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> DetectionOutcomes:
    """Boxes that FP32 scores at least 0.5 are to be found; the others count as COCO's crowds, neither wanted nor wrong.

    A box that FP32 puts out just above its threshold is no label that anybody would give, and one just below would be
    as good: to ask for the one and to forbid the other would measure chance.

    Args:
        predictions, truths: an image's (k, 6) rows x1, y1, x2, y2, score, class.

    Raises:
        InputError: FP32 is sure of no box in any image.
    """
    labels = [_labels(np.asarray(rows, np.float64).reshape(-1, 6), number) for number, rows in enumerate(truths)]
    return average_precision.measure(predictions, labels)


def _labels(rows: Array, number: int) -> LabelledBoxes:
    boxes = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
    return LabelledBoxes(number, 1, 1, boxes, rows[:, 5].astype(np.int64), rows[:, 4] < _SURE)
