"""Round blocks of values that share a scale: OCP MX (a power of two a block) and NVFP4 (an E4M3 scale a block)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.formats import Format
from quantbench.numerics.kernel import ALL, INFINITY, parameters, random_bits, round_bits, unpack

__all__ = ["BlockRule", "block_rule", "largest_finite", "round_block_rows", "round_block_rows_stochastic"]

u32 = np.uint32
i32 = np.int32
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
    rows: Any, element_row: Any, scale_row: Any, size: int, exponent: int, element_max: float, tensor_scale: float
) -> None:
    """Round float32 `rows` (n, length) in place, each row in blocks of `size` (the last one may be shorter).

    `tensor_scale` 0 means scales that are powers of two (MX). A block with a NaN or an infinity becomes NaN: only the
    shared scale of such a block can say so where the elements have no NaN.
    """
    element, scale_scalars = unpack(element_row), unpack(scale_row)
    for row in range(rows.shape[0]):
        for start in range(0, rows.shape[1], size):
            block = rows[row, start : min(start + size, rows.shape[1])]
            scale = _scale(block, scale_scalars, exponent, element_max, tensor_scale)
            divisor = scale if scale != f32(0) else f32(1)
            for i in range(block.size):
                rounded = round_bits(_scaled(block[i], divisor), u32(ALL), False, element)
                block[i] = f32(u32(rounded).view(np.float32) * scale)


@numba.njit(cache=True, nogil=True)
def round_block_rows_stochastic(
    rows: Any,
    element_row: Any,
    scale_row: Any,
    size: int,
    exponent: int,
    element_max: float,
    tensor_scale: float,
    first: Any,
    key: Any,
    other_key: Any,
) -> None:
    """`round_block_rows` with elements rounded at random; the first value has the number `first` in the stream."""
    element, scale_scalars = unpack(element_row), unpack(scale_row)
    for row in range(rows.shape[0]):
        for start in range(0, rows.shape[1], size):
            block = rows[row, start : min(start + size, rows.shape[1])]
            scale = _scale(block, scale_scalars, exponent, element_max, tensor_scale)
            divisor = scale if scale != f32(0) else f32(1)
            number = u32(first + u32(row * rows.shape[1] + start))
            for i in range(block.size):
                random = random_bits(u32(number + u32(i)), key, other_key)
                rounded = round_bits(_scaled(block[i], divisor), random, True, element)
                block[i] = f32(u32(rounded).view(np.float32) * scale)


@numba.njit(inline="always")
def _scaled(value: Any, divisor: Any) -> Any:
    """The pattern of value / divisor; a nonzero value keeps at least the smallest magnitude, for up and down."""
    quotient = u32(f32(value / divisor).view(np.uint32))
    vanished = u32(quotient << u32(1)) == u32(0) and value != f32(0)
    return u32(quotient | u32(1)) if vanished else quotient


@numba.njit(inline="always")
def _scale(block: Any, scale_scalars: Any, exponent: int, element_max: float, tensor_scale: float) -> Any:
    """The scale of one block: float32, NaN when a value is NaN or infinite."""
    largest = u32(0)
    for i in range(block.size):
        largest = max(largest, u32(f32(block[i]).view(np.uint32) & u32(0x7FFFFFFF)))
    if largest >= u32(INFINITY):
        return f32(np.nan)
    if tensor_scale == 0.0:  # 2^(floor(log2 largest) - emax), at least 2^-127 (OCP MX 1.0, section 6.3)
        power = i32(i32(largest >> u32(23)) - i32(exponent))
        pattern = u32(u32(power) << u32(23)) if power > 0 else u32(0x00400000)
        return u32(pattern).view(np.float32)
    wanted = f32(f32(u32(largest).view(np.float32) / f32(element_max)) / f32(tensor_scale))
    stored = round_bits(f32(wanted).view(np.uint32), u32(ALL), False, scale_scalars)
    return f32(u32(stored).view(np.float32) * f32(tensor_scale))
