"""word-accuracy: the share of words whose prediction is any one of the accepted answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quantbench.errors import InputError
from quantbench.metrics.outcomes import MeanOutcomes

__all__ = ["measure"]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> MeanOutcomes:
    """Each truth is a tuple of the accepted answers, such as the pronunciations that a dictionary lists.

    Raises:
        InputError: a truth is no tuple.
    """
    for truth in truths:
        if not isinstance(truth, tuple):
            raise InputError(f"the metric word-accuracy needs the accepted answers, but has {truth!r}; use exact-match")
    return MeanOutcomes.of([prediction in accepted for prediction, accepted in zip(predictions, truths, strict=True)])
