"""Beam search over a decoder that scores the next token: which continuations stay, batch-wise.

The definition is that of TensorFlow's BeamSearchDecoder. Hypotheses are ranked by the sum of their log-probabilities
over ((5 + length) / 6) ^ penalty (Wu et al. 2016, equation 14); the length does not count the end token. One that has
ended stays a candidate as it is. All beams are treated alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Beams"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Beams:
    """The hypotheses of n sentences after some steps, the best first.

    Attributes:
        tokens: (n, beams, steps) int64; behind a hypothesis's end stand end tokens.
        log_probabilities: (n, beams) float64.
        lengths: (n, beams) int64.
        ended: (n, beams) bool.
        parents: (n, beams) int64: where each hypothesis stood before the last step.
    """

    tokens: Array
    log_probabilities: Array
    lengths: Array
    ended: Array
    parents: Array

    @classmethod
    def start(cls, sentences: int, beams: int) -> Beams:
        """Nothing said yet; only the first beam counts, or all would go on alike."""
        log_probabilities = np.full((sentences, beams), -np.inf)
        log_probabilities[:, 0] = 0.0
        return cls(
            tokens=np.zeros((sentences, beams, 0), np.int64),
            log_probabilities=log_probabilities,
            lengths=np.zeros((sentences, beams), np.int64),
            ended=np.zeros((sentences, beams), bool),
            parents=np.tile(np.arange(beams), (sentences, 1)),
        )

    def step(self, logits: Array, end: int, penalty: float) -> Beams:
        """Go on with the best continuations of all hypotheses.

        Args:
            logits: (n, beams, words) float32.
            end: id of the end token.
            penalty: exponent of the length penalty; 0 ranks by log-probability alone.
        """
        beams = self.ended.shape[1]
        words, gains = _best_words(logits, beams)
        # What has ended goes on with the end token, for sure, and with nothing else.
        words = np.where(self.ended[..., None], end, words)
        only_first = np.where(np.arange(words.shape[2]) == 0, 0.0, -np.inf)
        gains = np.where(self.ended[..., None], only_first, gains)
        totals = self.log_probabilities[..., None] + gains
        lengths = self.lengths[..., None] + (~self.ended[..., None] & (words != end))
        scores = (totals / ((5.0 + lengths) / 6.0) ** penalty).reshape(len(words), -1)
        best = np.argsort(-scores, axis=1, kind="stable")[:, :beams]
        parents = best // words.shape[2]

        def chosen(values: Array) -> Array:
            return np.take_along_axis(values.reshape(len(words), -1), best, axis=1)

        word = chosen(words)
        history = np.take_along_axis(self.tokens, parents[..., None], axis=1)
        return Beams(
            tokens=np.concatenate([history, word[..., None]], axis=2),
            log_probabilities=chosen(totals),
            lengths=chosen(lengths),
            ended=np.take_along_axis(self.ended, parents, axis=1) | (word == end),
            parents=parents,
        )

    def rows(self, which: Array) -> Beams:
        """Only the sentences `which` (indices or bool)."""
        return Beams(
            self.tokens[which],
            self.log_probabilities[which],
            self.lengths[which],
            self.ended[which],
            self.parents[which],
        )


def _best_words(logits: Array, count: int) -> tuple[Array, Array]:
    """The `count` best words of each hypothesis, the best first, and their log-probabilities (float64).

    More are never needed: a word outside is no longer than these `count`, and less likely.
    """
    count = min(count, logits.shape[2])
    words = np.argpartition(logits, -count, axis=2)[..., -count:]
    words.sort(axis=2)  # of equal words the first wins
    values = np.take_along_axis(logits, words, axis=2)
    order = np.argsort(-values, axis=2, kind="stable")
    words, values = np.take_along_axis(words, order, axis=2), np.take_along_axis(values, order, axis=2)
    largest = values[..., :1]
    normaliser = np.log(np.exp(logits - largest).sum(axis=2, keepdims=True, dtype=np.float64))
    return words, (values - largest) - normaliser
