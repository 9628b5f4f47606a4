"""bleu: corpus BLEU of tokenised texts (Papineni et al. 2002), a fraction of 1.

Texts are split at spaces and nowhere else, four orders of n-grams, no smoothing: what the reference implementation of
GNMT computes, and sacrebleu's `BLEU(tokenize="none", smooth_method="none")`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sacrebleu.metrics.bleu import BLEU

from quantbench.errors import InputError

__all__ = ["BleuOutcomes", "measure"]

Array = NDArray[Any]


def measure(predictions: Sequence[Any], truths: Sequence[Any]) -> BleuOutcomes:
    """Count the n-grams of each sentence once.

    Raises:
        InputError: a truth is no text.
    """
    for truth in truths:
        if not isinstance(truth, str):
            raise InputError(f"the metric bleu compares texts, but a truth is {truth!r}; use its own metric")
    counter = BLEU(tokenize="none", smooth_method="none", effective_order=True)  # so that sentences raise no warning
    scores = [counter.sentence_score(found, [wanted]) for found, wanted in zip(predictions, truths, strict=True)]
    return BleuOutcomes(
        matches=np.array([score.counts for score in scores], np.int64),
        ngrams=np.array([score.totals for score in scores], np.int64),
        lengths=np.array([(score.sys_len, score.ref_len) for score in scores], np.int64),
    )


@dataclass(frozen=True, eq=False)
class BleuOutcomes:
    """Counts of n sentences; a corpus is their sum.

    Attributes:
        matches, ngrams: (n, 4): n-grams of each order that the reference has too, and all of them.
        lengths: (n, 2): words of the translation and of the reference.
    """

    matches: Array
    ngrams: Array
    lengths: Array

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def value(self) -> float:
        return float(self.resampled(np.ones((1, len(self)), np.int64))[0])

    def resampled(self, counts: Array) -> Array:
        matches, ngrams, lengths = (counts @ each for each in (self.matches, self.ngrams, self.lengths))
        with np.errstate(divide="ignore", invalid="ignore"):  # no match of some order: BLEU is 0
            log_precision = np.log(matches / ngrams).mean(axis=1)
            log_brevity = np.minimum(0.0, 1.0 - lengths[:, 1] / lengths[:, 0])
        scores: Array = np.where((matches > 0).all(axis=1), np.exp(log_precision + log_brevity), 0.0)
        return scores
