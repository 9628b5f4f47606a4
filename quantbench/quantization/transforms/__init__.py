"""Transforms: changes to a prepared graph, or to how ranges are chosen, that make rounding cost less; one a file."""

from quantbench.quantization.transforms.equalization import Equalized, equalize
from quantbench.quantization.transforms.fold_tables import fold_tables
from quantbench.quantization.transforms.weight_range import smallest_error_amplitude

__all__ = ["Equalized", "equalize", "fold_tables", "smallest_error_amplitude"]
