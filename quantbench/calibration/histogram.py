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
_STRETCH = 256  # values that are counted, or stood for, together
_STANDS_FOR = 8
_SAMPLED_FROM = 1 << 16  # values of an array from which on a part stands for the rest
_TAIL_PLACES, _TAIL_NEIGHBOURS = 1 << 9, 4  # what is read at one place costs as much as its first value
_CAPACITY = 1 << 31  # values that 32-bit counters, and their sums, may take before they are emptied


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known of one tensor's values over the calibration samples.

    Attributes:
        minimum, maximum: the extremes, exact.
        counts: uint64, one for each of the `BINS` bins; bin k holds the values whose float32 pattern starts with
            the 15 bits of k, so a bin is 1/64 of its values wide. Their sum is the number of values. Of arrays of
            65,536 values and more, the rarest, some 0.1% on either side, are counted one by one, and of what lies
            between one value may stand for eight.
    """

    minimum: float
    maximum: float
    counts: NDArray[np.uint64]

    def distribution(self) -> tuple[Array, Array, Array]:
        """The filled bins in ascending order: their centres, widths (float64) and counts (float64)."""
        filled = np.flatnonzero(self.counts != 0).astype(np.uint32)  # of booleans, five times as fast
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

    What is counted depends on the arrays alone, not on their order or on threads.

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
            tails = _tails(part.view(np.int32)) if part.size >= _SAMPLED_FROM else _ALL_TAIL
            smallest, largest = keys = _count(part.view(np.int32), part.view(np.uint32), counters, *tails)
            minimum, maximum = _of_keys(*keys)
            with self._lock:
                _empty_into(counters, smallest, largest, part.size, self._total)
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
def _key(pattern: np.int32) -> np.int32:
    """An int32 that orders as the value does: the pattern, with the magnitude of negative values flipped.

    Every operation is wrapped in `i32` because numba would widen it to 64 bits, and loops take three times as long.
    """
    return i32(pattern ^ i32(i32(pattern >> i32(31)) & i32(0x7FFFFFFF)))


_ALL_TAIL = (i32(2**31 - 1), i32(-(2**31)))


@numba.njit(nogil=True, cache=True)
def _tails(patterns: NDArray[np.int32]) -> tuple[np.int32, np.int32]:
    """The keys below and above which values are rare: the inner ones of the extremes of two samples. They are taken at
    places that are spread by the golden ratio, which is in step with no axis of the array."""
    lower, upper = i32(-(2**31)), i32(2**31 - 1)
    groups = np.uint64(patterns.size // _TAIL_NEIGHBOURS)
    for first in (0, _TAIL_PLACES):
        low, high = i32(2**31 - 1), i32(-(2**31))
        for k in range(first, first + _TAIL_PLACES):
            group = np.uint64(u32(u32(k) * u32(0x9E3779B1))) * groups >> np.uint64(32)
            for j in range(_TAIL_NEIGHBOURS):
                key = _key(patterns[group * np.uint64(_TAIL_NEIGHBOURS) + np.uint64(j)])
                low, high = min(low, key), max(high, key)
        lower, upper = max(lower, low), min(upper, high)
    return lower, upper


@numba.njit(nogil=True, cache=True)
def _count(
    patterns: NDArray[np.int32], bits: NDArray[np.uint32], counts: NDArray[np.uint32], lower: np.int32, upper: np.int32
) -> tuple[int, int]:
    """Count bit patterns into interleaved rows.

    A stretch with a value whose key is below `lower` or above `upper` is counted whole; of another, one value in
    `_STANDS_FOR` is, from a place that changes from stretch to stretch.

    Returns the keys of the smallest and the largest value.
    """
    smallest, largest = i32(2**31 - 1), i32(-(2**31))
    for start in range(0, patterns.size, _STRETCH):
        part = patterns[start : start + _STRETCH]
        low, high = i32(2**31 - 1), i32(-(2**31))
        for j in range(part.size):  # vectorized
            key = _key(part[j])
            low, high = min(low, key), max(high, key)
        smallest, largest = min(smallest, low), max(largest, high)
        if part.size == _STRETCH and low >= lower and high <= upper:
            place = u32(u32(start) * u32(0x9E3779B1)) >> u32(8)
            _add(counts, bits[start + np.int64(place) % _STANDS_FOR : start + _STRETCH], _STANDS_FOR)
        else:
            _add(counts, bits[start : start + _STRETCH], 1)
    return int(smallest), int(largest)


@numba.njit(nogil=True, cache=True)
def _add(counts: NDArray[np.uint32], bits: NDArray[np.uint32], step: int) -> None:
    """Count every so manieth pattern, for as many, into rows in turn. Unsigned indices spare the test for negative
    ones."""
    row0, row1, row2, row3 = counts[0], counts[1], counts[2], counts[3]
    one, weight = np.uint64(step), u32(step)
    i, size = np.uint64(0), np.uint64(bits.size)
    while i + np.uint64(3) * one < size:
        row0[bits[i] >> u32(_SHIFT)] += weight
        row1[bits[i + one] >> u32(_SHIFT)] += weight
        row2[bits[i + np.uint64(2) * one] >> u32(_SHIFT)] += weight
        row3[bits[i + np.uint64(3) * one] >> u32(_SHIFT)] += weight
        i += np.uint64(4) * one
    while i < size:
        row0[bits[i] >> u32(_SHIFT)] += weight
        i += one


@numba.njit(nogil=True, cache=True)
def _empty_into(counts: NDArray[np.uint32], smallest: int, largest: int, size: int, total: NDArray[np.uint64]) -> None:
    """Add the rows, which hold `size` counts, to the total and set them to 0.

    The zeros first, then from either extreme inwards until all have been found: walking through all bins takes as long
    as counting tens of thousands of values.
    """
    half = total.size // 2
    positive, negative = largest >> _SHIFT, half + (-1 - smallest >> _SHIFT)  # below 0 and half: no value has this sign
    left = size - _moved(counts, 0, total) - _moved(counts, half, total)
    while left > 0:
        if positive > 0:
            left -= _moved(counts, positive, total)
            positive -= 1
        if negative > half:
            left -= _moved(counts, negative, total)
            negative -= 1


@numba.njit(nogil=True, cache=True)
def _moved(counts: NDArray[np.uint32], column: int, total: NDArray[np.uint64]) -> int:
    """What was in a column, which is now in the total."""
    found = 0
    for row in range(_ROWS):
        found += counts[row, column]
        counts[row, column] = 0
    total[column] += np.uint64(found)
    return found


def _of_keys(*keys: int) -> tuple[float, ...]:
    """The values that have these keys."""
    patterns = (key if key >= 0 else key ^ 0x7FFFFFFF for key in keys)
    return struct.unpack(f"{len(keys)}f", struct.pack(f"{len(keys)}i", *patterns))
