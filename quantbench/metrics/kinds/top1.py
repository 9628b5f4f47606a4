"""top1: the share of samples whose class is the labelled one."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from quantbench.errors import InputError
from quantbench.metrics.outcomes import MeanOutcomes

__all__ = ["measure"]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> MeanOutcomes:
    """Compare class numbers.

    Raises:
        InputError: a truth is no class number.
    """
    for truth in truths:
        if not isinstance(truth, numbers.Integral):
            raise InputError(f"the metric top1 compares class numbers, but a label is {truth!r}; use exact-match")
    return MeanOutcomes.of([prediction == truth for prediction, truth in zip(predictions, truths, strict=True)])
