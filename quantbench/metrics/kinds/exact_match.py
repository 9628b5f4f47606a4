"""exact-match: the share of samples whose prediction is the truth, to the last character."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantbench.metrics.outcomes import MeanOutcomes

__all__ = ["measure"]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> MeanOutcomes:
    """Compare texts, or whatever else has an equality."""
    return MeanOutcomes.of([bool(prediction == truth) for prediction, truth in zip(predictions, truths, strict=True)])
