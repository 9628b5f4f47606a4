"""Cut the few largest weights where that rounds all the others more finely."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["smallest_error_amplitude"]

Array = NDArray[Any]

_FRACTIONS = np.linspace(1.0, 0.4, 25)
"""Candidates, as parts of the largest magnitude; of equals the first is taken."""


def smallest_error_amplitude(weight: Array, largest_code: int, axis: int | None, block_size: int = 0) -> Array:
    """The amplitude, in the shape of the scales, whose codes from −n to n have the least squared error.

    Args:
        weight: float32, any shape.
        largest_code: n.
        axis: the axis that the scales run along; None per tensor.
        block_size: elements of the axis under one scale; 0 for one scale each position.

    Returns:
        float32; never above max|w| of what shares a scale.
    """
    magnitude = np.abs(weight)
    largest = _gather(np.maximum, magnitude, axis, block_size)
    best, least = largest, np.full(largest.shape, np.inf)
    for fraction in _FRACTIONS:
        amplitude = (largest * np.float32(fraction)).astype(np.float32)
        step = np.maximum(amplitude / np.float32(largest_code), np.float32(1e-30))
        spread = _spread(step, weight.shape, axis, block_size)
        rounded = np.minimum(np.rint(magnitude / spread), largest_code) * spread
        error = _gather(np.add, np.square((magnitude - rounded).astype(np.float64)), axis, block_size)
        better = error < least
        best, least = np.where(better, amplitude, best), np.where(better, error, least)
    return np.asarray(best, np.float32)


def _gather(function: np.ufunc, values: Array, axis: int | None, block_size: int) -> Array:
    """Reduce what shares a scale."""
    if axis is None:
        return np.asarray(function.reduce(values, axis=None))
    if block_size:
        starts = np.arange(0, values.shape[axis], block_size)
        return np.asarray(function.reduceat(values, starts, axis=axis))
    others = tuple(other for other in range(values.ndim) if other != axis % values.ndim)
    return np.asarray(function.reduce(values, axis=others))


def _spread(parameter: Array, shape: tuple[int, ...], axis: int | None, block_size: int) -> Array:
    """A parameter of what shares a scale, shaped so that it broadcasts over the weight."""
    if axis is None:
        return parameter
    if block_size:
        return np.take(np.repeat(parameter, block_size, axis=axis), np.arange(shape[axis]), axis=axis)
    along = [1] * len(shape)
    along[axis] = -1
    return parameter.reshape(along)
