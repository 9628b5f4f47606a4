"""Choose the range whose rounding and clipping errors together are smallest."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.calibration.histogram import Observation

__all__ = ["mse"]

Array = NDArray[Any]

_FACTORS = np.concatenate([np.linspace(1.0, 0.3, 71), np.geomspace(0.29, 0.01, 30)])


def mse(observation: Observation, levels: int) -> tuple[float, float]:
    """The range (low, high), holding 0, of least expected squared error with `levels` evenly spaced codes.

    A value inside costs step²/12 (the error of rounding evenly spread values), one outside its squared distance to
    the range. Every pair of ends is tried, each end over fractions of its extreme.
    """
    centres, _, counts = observation.distribution()
    low, high = min(observation.minimum, 0.0), max(observation.maximum, 0.0)
    total = counts[centres != 0].sum()  # zero is a code of its own and costs nothing
    lows, highs = low * _FACTORS, high * _FACTORS
    clipped_low = _clipping(-centres[::-1], counts[::-1], -lows)
    clipped_high = _clipping(centres, counts, highs)
    steps = (highs - lows[:, np.newaxis]) / (levels - 1)
    errors = steps**2 / 12 * total + clipped_low[:, np.newaxis] + clipped_high
    best_low, best_high = np.unravel_index(np.argmin(errors), errors.shape)
    return float(lows[best_low]), float(highs[best_high])


def _clipping(centres: Array, counts: Array, bounds: Array) -> Array:
    """Σ count·(centre − bound)² over the centres above each bound; `centres` ascend, bounds are ≥ 0."""
    moments = [np.append(np.cumsum((counts * centres**power)[::-1])[::-1], 0.0) for power in range(3)]
    first = np.searchsorted(centres, bounds, side="right")
    zeroth, one, two = (moment[first] for moment in moments)
    return np.asarray(np.maximum(two - 2 * bounds * one + bounds**2 * zeroth, 0.0))
