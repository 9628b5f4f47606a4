"""The paired bootstrap: how far the ratio of two scores on the same samples could be off."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.metrics import MeanOutcomes, Outcomes

__all__ = ["RESAMPLES", "SEED", "resampled_ratios"]

Array = NDArray[Any]

RESAMPLES = 10_000
SEED = 0

_BUDGET = 1 << 25  # bytes of counts in memory at once


def resampled_ratios(reference: Outcomes, variant: Outcomes, resamples: int = RESAMPLES, seed: int = SEED) -> Array:
    """Ratios variant / reference over resamples of the samples, drawn with replacement, both on the same draw.

    Efron and Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13. Quantiles of the ratios are the
    ends of percentile intervals.

    Returns:
        (resamples,) float64, less those where the reference scores nothing and the ratio is undefined.

    Raises:
        InputError: the two have not the same number of samples.
    """
    if len(reference) != len(variant):
        raise InputError(f"the scores are of {len(reference)} and {len(variant)} samples; score both on the same ones")
    generator = np.random.default_rng(seed)
    if isinstance(reference, MeanOutcomes) and isinstance(variant, MeanOutcomes):
        reference, variant, sizes = _merge_alike(reference, variant)
    else:
        sizes = np.ones(len(reference), np.int64)
    ratios = []
    for counts in _draws(generator, sizes, resamples):
        below, above = reference.resampled(counts), variant.resampled(counts)
        defined = below > 0  # NaN is not
        ratios.append(above[defined] / below[defined])
    return np.concatenate(ratios)


def _merge_alike(reference: MeanOutcomes, variant: MeanOutcomes) -> tuple[MeanOutcomes, MeanOutcomes, Array]:
    """One sample for all that have the same two outcomes, and how many those are.

    Of right and wrong answers there are four kinds at most, so a resample is four counts instead of n.
    """
    pairs = np.stack([reference.per_sample, variant.per_sample], axis=1)
    kinds, sizes = np.unique(pairs, axis=0, return_counts=True)
    return MeanOutcomes(kinds[:, 0]), MeanOutcomes(kinds[:, 1]), sizes


def _draws(generator: np.random.Generator, sizes: Array, resamples: int) -> Iterator[Array]:
    """(some resamples, kinds) int64: how often each kind is drawn in as many draws as there are samples."""
    samples = int(sizes.sum())
    step = max(1, _BUDGET // (8 * len(sizes)))
    for start in range(0, resamples, step):
        yield generator.multinomial(samples, sizes / samples, size=min(step, resamples - start))
