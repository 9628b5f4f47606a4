"""The amplitude of least squared error, against trying every amplitude by the rounding that conversion uses."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import normal

from quantbench.quantization.affine import dequantize, quantize, symmetric_affine
from quantbench.quantization.transforms import smallest_error_amplitude

HEAVY = np.float32(normal(6, 32, seed=1) ** 3)
"""Few values far out."""


def error(weight: np.ndarray, amplitude: np.ndarray, dtype: str, axis: int | None, block_size: int = 0) -> np.ndarray:
    """Squared error of the real rounding; summed along the last axis unless there is one scale for all."""
    from quantbench.graphs.qdq import QuantizedTensor

    affine = symmetric_affine(amplitude, dtype, axis, block_size)
    squared = np.square(dequantize(QuantizedTensor(quantize(weight, affine), affine)) - weight)
    return squared.sum() if axis is None else squared.sum(axis=1)


@pytest.mark.parametrize("codes", [7, 127])
def test_no_amplitude_is_much_better(codes: int):
    dtype = {7: "int4", 127: "int8"}[codes]
    amplitude = smallest_error_amplitude(HEAVY, codes, None)
    largest = np.abs(HEAVY).max()
    assert amplitude.shape == () and 0 < amplitude <= largest
    tried = [error(HEAVY, np.asarray(largest * part), dtype, None) for part in np.linspace(0.4, 1, 121)]
    assert error(HEAVY, amplitude, dtype, None) <= 1.05 * min(tried)


def test_four_bits_gain_by_cutting_and_even_values_do_not():
    bell = normal(5000)
    cut = smallest_error_amplitude(bell, 7, None)
    assert error(bell, cut, "int4", None) < 0.7 * error(bell, np.abs(bell).max(), "int4", None)
    grid = np.arange(-7, 8, dtype=np.float32)
    assert smallest_error_amplitude(grid, 7, None) == 7  # exact as it is


def test_each_channel_by_itself():
    together = smallest_error_amplitude(HEAVY, 7, 0)
    alone = [smallest_error_amplitude(row, 7, None) for row in HEAVY]
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(smallest_error_amplitude(HEAVY.T, 7, 1), alone)


def test_each_block_by_itself():
    amplitude = smallest_error_amplitude(HEAVY[:, :30], 7, 1, 8)
    assert amplitude.shape == (6, 4)
    for row in range(6):
        for block in range(4):
            part = HEAVY[row, 8 * block : min(8 * block + 8, 30)]
            assert amplitude[row, block] == smallest_error_amplitude(part, 7, None)


def test_zeros():
    assert smallest_error_amplitude(np.zeros((2, 3), np.float32), 127, 0).tolist() == [0, 0]
