"""token-agreement: how much of each text is the FP32 model's, word by word. No accuracy: nothing is labelled.

One minus the Levenshtein distance in words over the longer text's length, in the mean over the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from quantbench.errors import InputError
from quantbench.metrics.outcomes import MeanOutcomes

__all__ = ["measure"]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> MeanOutcomes:
    """Compare texts, words between spaces.

    Raises:
        InputError: a truth is no text.
    """
    for truth in truths:
        if not isinstance(truth, str):
            raise InputError(f"the metric token-agreement compares texts, but a truth is {truth!r}; use its own metric")
    shares = [_agreement(found.split(), wanted.split()) for found, wanted in zip(predictions, truths, strict=True)]
    return MeanOutcomes(np.array(shares, np.float64))


def _agreement(found: Sequence[str], wanted: Sequence[str]) -> float:
    longer = max(len(found), len(wanted))
    return 1.0 - _distance(found, wanted) / longer if longer else 1.0


def _distance(one: Sequence[str], other: Sequence[str]) -> int:
    """Insertions, deletions and substitutions that make `other` of `one` (Levenshtein 1966)."""
    row = list(range(len(other) + 1))
    for number, word in enumerate(one, 1):
        diagonal, row[0] = row[0], number
        for column, wanted in enumerate(other, 1):
            diagonal, row[column] = row[column], min(row[column] + 1, row[column - 1] + 1, diagonal + (word != wanted))
    return row[-1]
