"""Calibration: observe the tensors of a graph on samples, and turn what was seen into ranges."""

from quantbench.calibration.calibrators import CALIBRATORS, get_calibrator
from quantbench.calibration.histogram import Histogram, Observation
from quantbench.calibration.observe import Feeds, Observations, observe, record_feeds
from quantbench.calibration.saved import load_observations, save_observations

__all__ = [
    "CALIBRATORS",
    "Feeds",
    "Histogram",
    "Observation",
    "Observations",
    "get_calibrator",
    "load_observations",
    "observe",
    "record_feeds",
    "save_observations",
]
