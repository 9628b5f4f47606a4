"""Counting values into bins that no range has to be guessed for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError

__all__ = ["BINS", "Histogram", "Observation"]

Array = NDArray[Any]

_SHIFT = 17  # keeps the sign, 8 exponent bits and 6 leading mantissa bits of a float32
BINS = 1 << (32 - _SHIFT)
_CAPACITY = 1 << 31  # values that 32-bit counters may take before they are emptied


@dataclass(frozen=True)
class Observation:
    """What is known of one tensor's values over the calibration samples.

    Attributes:
        minimum, maximum: the extremes, exact.
        counts: uint64, one for each of the `BINS` bins; bin k holds the values whose float32 pattern starts with
            the 15 bits of k, so a bin is 1/64 of its values wide.
    """

    minimum: float
    maximum: float
    counts: NDArray[np.uint64]

    def distribution(self) -> tuple[Array, Array, Array]:
        """The filled bins in ascending order: their centres, widths (float64) and counts (float64)."""
        filled = np.flatnonzero(self.counts).astype(np.uint32)
        low = (filled << np.uint32(_SHIFT)).view(np.float32).astype(np.float64)
        high = ((filled << np.uint32(_SHIFT)) | np.uint32((1 << _SHIFT) - 1)).view(np.float32).astype(np.float64)
        order = np.argsort(low, kind="stable")
        centres = (low + high) / 2
        centres[np.abs(high) < 2.0**-126] = 0.0  # the bin of zeros, with what is too small to tell from zero
        centres = np.clip(centres, self.minimum, self.maximum)
        widths = np.abs(high - low)
        return centres[order], widths[order], self.counts[filled].astype(np.float64)[order]


class Histogram:
    """Counts the values of one tensor, batch after batch, in constant memory.

    Args:
        name: the tensor, for the error message.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._counts = np.zeros((4, BINS), np.uint32)  # four rows, so that equal neighbours do not wait on each other
        self._total = np.zeros(BINS, np.uint64)
        self._pending = 0
        self._minimum = np.inf
        self._maximum = -np.inf

    def add(self, values: Array) -> None:
        """Count the values of a float32 array of any shape.

        Raises:
            InputError: a value is NaN or infinite.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        if self._pending + flat.size > _CAPACITY:
            self._flush()
        minimum, maximum = _count(flat.view(np.uint32), flat, self._counts)
        self._pending += flat.size
        if not (np.isfinite(minimum) and np.isfinite(maximum)) or self._counts[:, _NAN_BINS].any():
            raise InputError(f"tensor {self._name} becomes NaN or infinite on the calibration samples")
        self._minimum = min(self._minimum, minimum)
        self._maximum = max(self._maximum, maximum)

    def observation(self) -> Observation:
        """What has been counted so far.

        Raises:
            InputError: that is nothing.
        """
        if self._minimum > self._maximum:
            raise InputError(f"tensor {self._name} holds no value on the calibration samples")
        self._flush()
        return Observation(float(self._minimum), float(self._maximum), self._total.copy())

    def _flush(self) -> None:
        self._total += self._counts.sum(axis=0, dtype=np.uint64)
        self._counts[:] = 0
        self._pending = 0


_NAN_BINS = np.flatnonzero(((np.arange(BINS) << _SHIFT) >> 23) & 0xFF == 0xFF)


@numba.njit(nogil=True, cache=True)
def _count(bits: NDArray[np.uint32], values: NDArray[np.float32], counts: NDArray[np.uint32]) -> tuple[float, float]:
    """Count bit patterns into four interleaved rows; returns the extremes."""
    shift = np.uint32(_SHIFT)
    whole = bits.size // 4 * 4
    for i in range(0, whole, 4):
        counts[0, bits[i] >> shift] += np.uint32(1)
        counts[1, bits[i + 1] >> shift] += np.uint32(1)
        counts[2, bits[i + 2] >> shift] += np.uint32(1)
        counts[3, bits[i + 3] >> shift] += np.uint32(1)
    for i in range(whole, bits.size):
        counts[0, bits[i] >> shift] += np.uint32(1)
    minimum = values[0]
    maximum = values[0]
    for value in values:
        minimum = min(minimum, value)
        maximum = max(maximum, value)
    return minimum, maximum
