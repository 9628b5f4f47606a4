"""Data sets: the samples that calibrate and those that are scored, prepared as a reference asks."""

from quantbench.datasets.base import Dataset, Samples
from quantbench.datasets.opening import open_dataset

__all__ = ["Dataset", "Samples", "open_dataset"]
