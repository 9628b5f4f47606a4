"""Round blocks of values that share a scale: OCP MX (a power of two a block) and NVFP4 (an E4M3 scale a block)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.formats import Format
from quantbench.numerics.kernel import (
    DIRECTED,
    INFINITY,
    NEAREST,
    RANDOM,
    SYMMETRIC,
    parameters,
    random_bits,
    round_bits,
    unpack,
)

__all__ = ["BlockRule", "block_rule", "largest_finite", "round_block_rows"]

u32 = np.uint32
i32 = np.int32
u64 = np.uint64
f32 = np.float32


@dataclass(frozen=True)
class BlockRule:
    """What the block kernels read of a block format."""

    element_row: NDArray[np.uint32]
    scale_row: NDArray[np.uint32]
    block_size: int
    element_exponent: int
    """Exponent of the largest power of two among the element's values (emax in OCP MX)."""
    element_max: float


def block_rule(entry: Format, rounding: str) -> BlockRule:
    """The rule of one block format and one rounding mode for the elements.

    Scales follow their standard whatever the mode: floor(log2) for MX, nearest-even for NVFP4. Elements saturate.
    """
    assert entry.element is not None and entry.scale is not None
    return BlockRule(
        parameters(entry.element, rounding, True),
        parameters(entry.scale, "nearest-even", True),
        entry.block_size,
        int(np.frexp(entry.element.max)[1]) - 1,
        entry.element.max,
    )


@numba.njit(cache=True, nogil=True)
def largest_finite(values: Any) -> Any:
    """The largest magnitude among the finite values of a flat float32 array, 0 where there is none."""
    largest = u32(0)
    patterns = values.view(np.uint32)
    for i in range(patterns.size):
        magnitude = u32(patterns[i] & u32(0x7FFFFFFF))
        largest = max(largest, magnitude if magnitude < u32(INFINITY) else u32(0))
    return u32(largest).view(np.float32)


@numba.njit(cache=True, nogil=True)
def round_block_rows(
    values: Any,
    length: int,
    element_row: Any,
    scale_row: Any,
    size: int,
    exponent: int,
    element_max: float,
    tensor_scale: float,
    random: Any,
) -> None:
    """Round the rows of `length` values that the flat float32 `values` consist of, each in blocks of `size`.

    The last block of a row may be shorter. `tensor_scale` 0 means scales that are powers of two (MX). A block with a
    NaN or an infinity becomes NaN: only the shared scale can say so where the elements have no NaN. `random`: for
    stochastic rounding the number of the first value in the stream, and the stream's two keys (uint32).
    """
    rule = (unpack(element_row), unpack(scale_row), exponent, f32(element_max), f32(tensor_scale), random)
    # a size that the compiler knows makes one block a handful of vector instructions without a loop
    for start in range(0, values.size, length):
        length = min(length, values.size - start)
        whole = length - length % size
        if element_row[0] == NEAREST and size == 32:
            for block in range(start, start + whole, 32):
                _round_block(values, block, 32, NEAREST, rule)
        elif element_row[0] == NEAREST and size == 16:
            for block in range(start, start + whole, 16):
                _round_block(values, block, 16, NEAREST, rule)
        elif element_row[0] == DIRECTED:
            for block in range(start, start + whole, size):
                _round_block(values, block, size, DIRECTED, rule)
        elif element_row[0] == RANDOM and size == 32:
            for block in range(start, start + whole, 32):
                _round_block(values, block, 32, RANDOM, rule)
        elif element_row[0] == RANDOM and size == 16:
            for block in range(start, start + whole, 16):
                _round_block(values, block, 16, RANDOM, rule)
        if whole < length:
            _round_block(values, start + whole, length - whole, int(element_row[0]), rule)


@numba.njit(inline="always")
def _round_block(values: Any, start: int, size: int, mode: int, rule: Any) -> None:
    """Round the `size` values from `start` under one scale."""
    element, scale_scalars, exponent, element_max, tensor_scale, random = rule
    # unsigned indices: numba spares the test for negative ones
    first = u64(start)
    largest = u32(0)
    for i in range(size):
        largest = max(largest, u32(f32(values[first + u64(i)]).view(np.uint32) & u32(0x7FFFFFFF)))
    scale = _scale(largest, scale_scalars, exponent, element_max, tensor_scale)
    divisor = scale if scale != f32(0) else f32(1)
    for i in range(size):
        value = f32(values[first + u64(i)])
        quotient = u32(f32(value / divisor).view(np.uint32))
        bits = u32(0)
        if mode == RANDOM:
            bits = random_bits(u32(u32(random[0] + u32(start)) + u32(i)), random[1], random[2])
        elif mode == DIRECTED:  # up and down must still see a nonzero value
            vanished = u32(quotient << u32(1)) == u32(0) and value != f32(0)
            quotient = u32(quotient | u32(1)) if vanished else quotient
        rounded = round_bits(quotient, bits, mode, SYMMETRIC, element)
        values[first + u64(i)] = f32(u32(rounded).view(np.float32) * scale)


@numba.njit(inline="always")
def _scale(largest: Any, scale_scalars: Any, exponent: int, element_max: Any, tensor_scale: Any) -> Any:
    """The scale of a block whose largest magnitude has the pattern `largest`: float32, NaN for NaN and infinity."""
    if largest >= u32(INFINITY):
        return f32(np.nan)
    if tensor_scale == f32(0):  # 2^(floor(log2 largest) - emax), at least 2^-127 (OCP MX 1.0, section 6.3)
        power = i32(i32(largest >> u32(23)) - i32(exponent))
        pattern = u32(u32(power) << u32(23)) if power > 0 else u32(0x00400000)
        return u32(pattern).view(np.float32)
    wanted = f32(f32(u32(largest).view(np.float32) / element_max) / tensor_scale)
    stored = round_bits(f32(wanted).view(np.uint32), u32(0), NEAREST, SYMMETRIC, scale_scalars)
    return f32(u32(stored).view(np.float32) * tensor_scale)
