"""box-agreement: COCO mean average precision with the FP32 model's boxes for labels. No accuracy: nothing is
labelled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantbench.evaluation.metrics import map as average_precision
from quantbench.evaluation.metrics.map import DetectionOutcomes

__all__ = ["measure"]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> DetectionOutcomes:
    """Every box that FP32 puts out counts as a labelled one, whatever its score.

    Args:
        predictions, truths: an image's (k, 6) rows x1, y1, x2, y2, score, class; the truths' scores are not read.

    Raises:
        InputError: FP32 finds no box in any image.
    """
    labels = [np.asarray(rows, np.float64).reshape(-1, 6)[:, [0, 1, 2, 3, 5]] for rows in truths]
    return average_precision.measure(predictions, labels)
