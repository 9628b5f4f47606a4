"""Calibration: observe the tensors of a graph on samples, and turn what was seen into ranges."""

from quantbench.calibration.calibrators import CALIBRATORS, get_calibrator
from quantbench.calibration.histogram import Histogram, Observation
from quantbench.calibration.observe import Observations, observe, record_feeds

__all__ = ["CALIBRATORS", "Histogram", "Observation", "Observations", "get_calibrator", "observe", "record_feeds"]
