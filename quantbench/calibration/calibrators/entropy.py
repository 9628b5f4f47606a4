"""Choose the range that keeps the shape of the distribution."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.calibration.histogram import Observation

__all__ = ["entropy"]

Array = NDArray[Any]

_FINE = 2048
_CANDIDATES = 120
"""Thresholds tried, about: with 8 bits, steps of 0.8% of the largest magnitude."""
_MISSING = 50.0
"""Nats for each value of the tail that ends in a bin which the quantized distribution leaves empty."""
_EQUAL = 1e-9
"""Nats by which divergences may differ and still count as equal."""
_SMALLEST = np.finfo(np.float64).tiny


def entropy(observation: Observation, levels: int) -> tuple[float, float]:
    """The range, holding 0, of magnitudes up to T, whose quantized distribution diverges least from the one observed.

    Zeros are left out: every range holds 0 as a code, and where half of the values are 0, as behind Relu, their bin
    would decide alone. T runs over some of the upper edges of 2,048 even bins of |x|; for each, the observed bins up to
    T (with the tail added to the last one) are compared, by Kullback–Leibler divergence, with the same bins merged into
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
    candidates, edges = _candidates(groups)
    divergences = _divergences(fine, candidates, edges)
    best = np.argmax(divergences <= divergences.min() + _EQUAL)  # of equals the first, the widest
    threshold = largest * int(candidates[best]) / _FINE
    return max(min(observation.minimum, 0.0), -threshold), min(max(observation.maximum, 0.0), threshold)


@lru_cache(maxsize=16)
def _candidates(groups: int) -> tuple[Array, Array]:
    """How many fine bins are kept, for each candidate, and the edges of the groups into which they are merged."""
    bounds = np.arange(_FINE, groups - 1, -max(1, (_FINE - groups) // _CANDIDATES))
    return bounds, -(-np.arange(groups + 1) * bounds[:, np.newaxis] // groups)  # bin i is in group i·groups // bound


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


def _divergences(fine: Array, bounds: Array, edges: Array) -> Array:
    """What is lost, in nats, by keeping the first `bound` bins in groups with such edges, for each of the bounds.

    With n values of which the bins below the bound hold kᵢ and the rest t, group g of mᵍ filled bins sᵍ, and S = Σ kᵢ,
    the observed share of a bin is kᵢ/n, of the last one (kₗ + t)/n, and the quantized one sᵍ/(mᵍ·S). Sums over bins and
    groups come from running sums, so that a bound costs as much as it has groups.
    """
    count, filled, entropy = (np.append(0.0, np.cumsum(each)) for each in (fine, fine > 0, _x_log_x(fine)))
    sums, members = np.diff(count[edges]), np.diff(filled[edges])
    kept, last, total = count[bounds], fine[bounds - 1], count[-1]
    tail = np.maximum(total - kept, 0.0)
    members *= kept[:, np.newaxis]
    with np.errstate(divide="ignore", invalid="ignore"):
        quantized = np.log(np.maximum(sums, _SMALLEST) / np.maximum(members, _SMALLEST))  # of no values, any number
        below = entropy[bounds] - kept * np.log(total) - np.einsum("ij,ij->i", sums, quantized)
        on_last = _x_log_x(last + tail) - _x_log_x(last) - tail * (np.log(total) + quantized[:, -1])
        lost = below + np.where(last > 0, on_last, tail * _MISSING)
        return np.where(kept > 0, lost / total, np.inf)


def _x_log_x(x: Array) -> Array:
    return np.where(x > 0, x * np.log(np.where(x > 0, x, 1.0)), 0.0)
