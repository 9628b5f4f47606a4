"""Choose the range that keeps the shape of the distribution."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.calibration.histogram import Observation

__all__ = ["entropy"]

Array = NDArray[Any]

_FINE = 2048


def entropy(observation: Observation, levels: int) -> tuple[float, float]:
    """The range, holding 0, of magnitudes up to T, whose quantized distribution diverges least from the one observed.

    Zeros are left out: every range holds 0 as a code, and where half of the values are 0, as behind Relu, their bin
    would decide alone. T runs over the upper edges of 2,048 even bins of |x|; for each, the observed bins up to T (with
    the tail added to the last one) are compared, by Kullback–Leibler divergence, with the same bins merged into
    levels/2 even groups and spread back over the filled ones. Source: S. Migacz, "8-bit Inference with TensorRT", GTC
    2017.
    """
    largest = max(abs(observation.minimum), abs(observation.maximum))
    if largest == 0.0:
        return observation.minimum, observation.maximum
    groups = max(levels // 2, 2)
    if groups >= _FINE:
        return observation.minimum, observation.maximum
    fine = _even_bins(observation, largest)
    candidates = range(_FINE, groups - 1, -max(1, (_FINE - groups) // 240))  # of equals the first, the widest, is best
    divergences = [_divergence(fine, bound, groups) for bound in candidates]
    threshold = largest * candidates[int(np.argmin(divergences))] / _FINE
    return max(min(observation.minimum, 0.0), -threshold), min(max(observation.maximum, 0.0), threshold)


def _even_bins(observation: Observation, largest: float) -> Array:
    """Counts of |x| > 0 in `_FINE` even bins over [0, largest]; a wide bin's count is spread over those it covers."""
    centres, widths, counts = observation.distribution()
    counts = np.where(centres == 0.0, 0.0, counts)
    magnitude = np.abs(centres)
    scale = _FINE / largest
    low = np.clip((magnitude - widths / 2) * scale, 0.0, _FINE)
    high = np.clip((magnitude + widths / 2) * scale, 0.0, _FINE)
    narrow = high - low < 1e-9
    high = np.where(narrow, np.minimum(low + 1e-9, _FINE), high)
    low = np.where(narrow, high - 1e-9, low)
    edges = np.arange(_FINE + 1)
    density = counts / (high - low)
    # Cumulative count below each edge: Σ density·clip(edge − low, 0, high − low), by sorted prefix sums.
    below = _ramp(low, density, edges) - _ramp(high, density, edges)
    return np.maximum(np.diff(below), 0.0)


def _ramp(starts: Array, slopes: Array, points: Array) -> Array:
    """Σ slope·max(point − start, 0) for each point."""
    order = np.argsort(starts)
    starts, slopes = starts[order], slopes[order]
    slope_sum = np.append(0.0, np.cumsum(slopes))
    offset_sum = np.append(0.0, np.cumsum(slopes * starts))
    index = np.searchsorted(starts, points, side="right")
    return np.asarray(slope_sum[index] * points - offset_sum[index])


def _divergence(fine: Array, bound: int, groups: int) -> float:
    observed = fine[:bound].copy()
    kept = observed.copy()
    observed[-1] += fine[bound:].sum()
    group = np.arange(bound) * groups // bound
    filled = kept > 0
    sums = np.bincount(group, kept, groups)
    members = np.bincount(group, filled, groups)
    spread = np.where(filled, sums[group] / np.maximum(members[group], 1), 0.0)
    if spread.sum() == 0:
        return np.inf
    p, q = observed / observed.sum(), spread / spread.sum()
    both = (p > 0) & (q > 0)
    missing = p[(p > 0) & (q == 0)].sum()  # only the last bin can be filled by the tail alone
    return float((p[both] * np.log(p[both] / q[both])).sum() + missing * 50.0)
