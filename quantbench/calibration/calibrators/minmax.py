"""Keep everything that was seen."""

from __future__ import annotations

from quantbench.calibration.histogram import Observation

__all__ = ["minmax"]


def minmax(observation: Observation, levels: int) -> tuple[float, float]:
    """The smallest and the largest value seen."""
    return observation.minimum, observation.maximum
