"""Leave out the rarest values on either side."""

from __future__ import annotations

import numpy as np

from quantbench.calibration.histogram import Observation

__all__ = ["percentile"]

_KEPT = 0.99999


def percentile(observation: Observation, levels: int) -> tuple[float, float]:
    """The range that keeps 99.999% of the values, the rest split evenly between the two tails."""
    centres, _, counts = observation.distribution()
    below = np.cumsum(counts) / counts.sum()
    tail = (1.0 - _KEPT) / 2.0
    low = centres[np.searchsorted(below, tail, side="right")]
    high = centres[min(int(np.searchsorted(below, 1.0 - tail)), len(centres) - 1)]
    return float(max(low, observation.minimum)), float(min(high, observation.maximum))
