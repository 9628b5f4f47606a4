"""Counting values into bins that no range has to be guessed for."""

from __future__ import annotations

import math
import struct
import threading
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError

__all__ = ["BINS", "Histogram", "Observation", "load_kernels"]

Array = NDArray[Any]
u32, i32 = np.uint32, np.int32

_SHIFT = 17  # keeps the sign, 8 exponent bits and 6 leading mantissa bits of a float32
BINS = 1 << (32 - _SHIFT)
_ROWS = 4
_PADDING = 272  # rows that are a power of two apart would look alike to the processor's store buffer
_BLOCK = 1 << 10  # values that are counted before their extremes are looked for
_CAPACITY = 1 << 31  # values that 32-bit counters, and their sums, may take before they are emptied


@dataclass(frozen=True, eq=False)
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
    """Counts the values of one tensor, batch after batch, in constant memory. Safe to call from several threads.

    Args:
        name: the tensor, for the error message.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._total = np.zeros(BINS, np.uint64)
        self._minimum = np.inf
        self._maximum = -np.inf
        self._lock = threading.Lock()

    def add(self, values: Array) -> None:
        """Count the values of a float32 array of any shape.

        Raises:
            InputError: a value is NaN or infinite.
        """
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        for start in range(0, flat.size, _CAPACITY):
            part = flat[start : start + _CAPACITY]
            counters = _counters()
            *keys, least = _count(part.view(np.int32), part.view(np.uint32), counters)
            minimum, maximum = _of_keys(*keys)
            with self._lock:
                _empty_into(counters, *keys, least, self._total)
                self._minimum = min(self._minimum, minimum)
                self._maximum = max(self._maximum, maximum)
                if not (math.isfinite(minimum) and math.isfinite(maximum)):  # a NaN is an extreme, as keys order it
                    raise InputError(f"tensor {self._name} becomes NaN or infinite on the calibration samples")

    def observation(self) -> Observation:
        """What has been counted so far.

        Raises:
            InputError: that is nothing.
        """
        if self._minimum > self._maximum:
            raise InputError(f"tensor {self._name} holds no value on the calibration samples")
        return Observation(float(self._minimum), float(self._maximum), self._total.copy())


def load_kernels() -> None:
    """Load what counts, which takes a quarter of a second at first. In a thread, that passes while others wait."""
    Histogram("").add(np.zeros(1, np.float32))


_thread = threading.local()


def _counters() -> NDArray[np.uint32]:
    """This thread's counters, all 0: rows, so that equal neighbours do not wait on each other."""
    if not hasattr(_thread, "counters"):
        _thread.counters = np.zeros((_ROWS, BINS + _PADDING), np.uint32)
    counters: NDArray[np.uint32] = _thread.counters
    return counters


@numba.njit(nogil=True, cache=True)
def _count(patterns: NDArray[np.int32], bits: NDArray[np.uint32], counts: NDArray[np.uint32]) -> tuple[int, int, int]:
    """Count bit patterns into interleaved rows.

    Returns the keys of the smallest and the largest value, and the pattern of the least magnitude but 0, less one. A
    key is an int32 that orders as the value does: the pattern, with the magnitude of negative values flipped.

    Unsigned indices spare the test for negative ones. Plain loops over the part are vectorized, and every operation is
    wrapped in `i32` or `u32` because numba would widen it to 64 bits and take three times as long.
    """
    row0, row1, row2, row3 = counts[0], counts[1], counts[2], counts[3]
    smallest, largest, least = i32(2**31 - 1), i32(-(2**31)), u32(2**32 - 1)
    for start in range(0, patterns.size, _BLOCK):  # short enough to be in the cache when it is read again
        end = min(start + _BLOCK, patterns.size)
        first, fours = np.uint64(start), np.uint64((end - start) // 4)
        for four in range(fours):
            i = first + np.uint64(four) * np.uint64(4)
            row0[bits[i] >> u32(_SHIFT)] += u32(1)
            row1[bits[i + np.uint64(1)] >> u32(_SHIFT)] += u32(1)
            row2[bits[i + np.uint64(2)] >> u32(_SHIFT)] += u32(1)
            row3[bits[i + np.uint64(3)] >> u32(_SHIFT)] += u32(1)
        for j in range(start + (end - start) // 4 * 4, end):
            row0[bits[j] >> u32(_SHIFT)] += u32(1)
        part = patterns[start:end]
        for j in range(part.size):
            key = i32(part[j] ^ i32(i32(part[j] >> i32(31)) & i32(0x7FFFFFFF)))
            smallest, largest = min(smallest, key), max(largest, key)
            least = min(least, u32(u32(i32(part[j] & i32(0x7FFFFFFF))) - u32(1)))
    return int(smallest), int(largest), int(least)


@numba.njit(nogil=True, cache=True)
def _empty_into(counts: NDArray[np.uint32], smallest: int, largest: int, least: int, total: NDArray[np.uint64]) -> None:
    """Add the rows to the total and set them to 0, where `_count` says that bins can have been filled: walking all of
    them takes as long as counting tens of thousands of values."""
    half = total.size // 2
    for zeros, keys in ((0, largest), (half, -1 - smallest)):
        first = zeros + min(least >> _SHIFT, half)
        last = max(zeros + (keys >> _SHIFT) + 1, first)  # the key is negative where no value has this sign
        for i in range(first, last):
            total[i] += np.uint64(counts[0, i] + counts[1, i] + counts[2, i] + counts[3, i])
        for row in range(_ROWS):
            counts[row, first:last] = 0
            total[zeros] += np.uint64(counts[row, zeros])
            counts[row, zeros] = 0


def _of_keys(*keys: int) -> tuple[float, ...]:
    """The values that have these keys."""
    patterns = (key if key >= 0 else key ^ 0x7FFFFFFF for key in keys)
    return struct.unpack(f"{len(keys)}f", struct.pack(f"{len(keys)}i", *patterns))
