"""Calibration: observe the tensors of a graph on samples, and turn what was seen into ranges."""

from quantbench.calibration.calibrators import CALIBRATORS, get_calibrator
from quantbench.calibration.histogram import Histogram, Observation, load_kernels
from quantbench.calibration.observe import Feeds, Observations, Observer, Sizes, record_feeds
from quantbench.calibration.saved import load_observations, save_observations

__all__ = [
    "CALIBRATORS",
    "Feeds",
    "Histogram",
    "Observation",
    "Observations",
    "Observer",
    "Sizes",
    "get_calibrator",
    "load_kernels",
    "load_observations",
    "record_feeds",
    "save_observations",
]
