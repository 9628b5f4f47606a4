"""Round blocks of values that share a scale: OCP MX (a power of two a block) and NVFP4 (an E4M3 scale a block)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.formats import Format
from quantbench.numerics.kernel import (
    DIRECTED,
    EVEN,
    INFINITY,
    NAN,
    NEAREST,
    RANDOM,
    SATURATING,
    compiled,
    has_signed_zero,
    inlined,
    parameters,
    random_bits,
    round_bits,
    round_even,
    round_run,
    unpack,
    unpack_even,
)

__all__ = ["BlockRule", "block_rule", "largest_number", "largest_of_block_rows", "round_block_rows"]

KERNEL_SHA256 = "c331b611dbbb81af00d0833bbdc70590210d7451e48233dcc341985169e1fd7c"
"""Of kernel.py, which says why."""

u32 = np.uint32
i32 = np.int32
u64 = np.uint64

TILE = 256
"""Blocks that are worked on at a time."""
RUN = u64(16)
"""Values of a block that are rounded by a loop of known length: the compiler makes whole vectors of it."""
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


@compiled
def largest_of_block_rows(values: Any, length: int, size: int, largest: Any) -> None:
    """The pattern (uint32) of the largest magnitude of every block, into `largest`; rows as in `round_block_rows`."""
    scratch = np.empty(TILE * size, np.uint32)
    block = 0
    for row in range(0, values.size, length):
        row_end = min(row + length, values.size)
        for start in range(row, row_end, TILE * size):
            tile = values[start : min(start + TILE * size, row_end)]
            blocks = (tile.size + size - 1) // size
            _largest_of_blocks(tile, size, largest[block : block + blocks], scratch)
            block += blocks


@compiled
def largest_number(patterns: Any) -> Any:
    """The largest of the patterns (uint32) that are neither infinity nor NaN, as float32; 0 where there is none."""
    largest = u32(0)
    for i in range(patterns.size):
        largest = max(largest, patterns[i] if patterns[i] < u32(INFINITY) else u32(0))
    return u32(largest).view(np.float32)


@compiled
def round_block_rows(
    values: Any,
    length: int,
    element_row: Any,
    scale_row: Any,
    size: int,
    exponent: int,
    element_max: float,
    tensor_scale: float,
    largest: Any,
    random: Any,
) -> None:
    """Round the rows of `length` values that the flat float32 `values` consist of, each in blocks of `size`.

    The last block of a row, and the last row, may be shorter. `tensor_scale` 0 means scales that are powers of two
    (MX); else `largest` has what `largest_of_block_rows` found, and is overwritten. A block with a NaN or an infinity
    becomes NaN: only the shared scale can say so where the elements have no NaN. `random`: for stochastic rounding
    the number of the first value in the stream, and the stream's two keys.
    """
    # a tile at a time, so that every step is a loop over contiguous values that stay in the first cache
    tile_scales = np.empty(TILE, np.uint32)
    scratch = np.empty(TILE * size, np.uint32)
    block = 0
    for row in range(0, values.size, length):
        row_end = min(row + length, values.size)
        for start in range(row, row_end, TILE * size):
            tile = values[start : min(start + TILE * size, row_end)]
            blocks = (tile.size + size - 1) // size
            if tensor_scale == 0.0:
                scales = tile_scales[:blocks]
                _largest_of_blocks(tile, size, scales, scratch)
                _power_of_two_scales(scales, exponent)
            else:
                scales = largest[block : block + blocks]
                _two_level_scales(scales, scale_row, element_max, tensor_scale)
            block += blocks
            if element_row[0] == EVEN and has_signed_zero(element_row):
                _round_scaled_even(tile, scales, size, element_row, True)
            elif element_row[0] == EVEN:
                _round_scaled_even(tile, scales, size, element_row, False)
            elif element_row[0] == NEAREST:
                _round_scaled(tile, scales, size, element_row, NEAREST, scratch)
            elif element_row[0] == DIRECTED:
                _round_scaled(tile, scales, size, element_row, DIRECTED, scratch)
            else:
                _draw(scratch[: tile.size], u32(random[0] + u32(start)), random)
                _round_scaled(tile, scales, size, element_row, RANDOM, scratch)


@compiled
def _largest_of_blocks(values: Any, size: int, largest: Any, scratch: Any) -> None:
    """The pattern of the largest magnitude of each block, above INFINITY for a NaN. `scratch`: a uint32 a value."""
    patterns = values.view(np.uint32)
    whole = patterns.size // size
    # halve until one is left of each block: every pass runs along the tile, and a block alone is too short for that
    pairs, width, start = patterns[: whole * size], size, 0
    while width % 2 == 0:
        width //= 2
        halves = scratch[start : start + whole * width]
        _halve(pairs, halves)
        pairs, start = halves, start + whole * width
    if width == 1:
        largest[:whole] = pairs
    else:
        for block in range(whole):
            largest[block] = _largest(pairs[block * width : (block + 1) * width])
    if whole < largest.size:
        largest[whole] = _largest(patterns[whole * size :])


@compiled
def _halve(patterns: Any, halves: Any) -> None:
    """The larger magnitude of each pair of neighbours."""
    for i in range(halves.size):
        left, right = u64(2) * u64(i), u64(2) * u64(i) + u64(1)  # an unsigned index spares the test for a negative one
        halves[i] = max(u32(patterns[left] & u32(0x7FFFFFFF)), u32(patterns[right] & u32(0x7FFFFFFF)))


@compiled
def _largest(patterns: Any) -> Any:
    largest = u32(0)
    for i in range(patterns.size):
        largest = max(largest, u32(patterns[i] & u32(0x7FFFFFFF)))
    return largest


@compiled
def _power_of_two_scales(patterns: Any, exponent: int) -> None:
    """Turn largest magnitudes into 2^(floor(log2 largest) - emax), at least 2^-127 (OCP MX 1.0, section 6.3)."""
    for i in range(patterns.size):
        largest = patterns[i]
        power = i32(i32(largest >> u32(23)) - i32(exponent))
        scale = u32(u32(power) << u32(23)) if power > i32(0) else u32(0x00400000)
        patterns[i] = scale if largest < u32(INFINITY) else u32(NAN)


@compiled
def _two_level_scales(patterns: Any, scale_row: Any, element_max: float, tensor_scale: float) -> None:
    """Turn largest magnitudes into t · E4M3(largest / element_max / t) for the tensor's scale t (NVFP4)."""
    scales = patterns.view(np.float32)
    for i in range(scales.size):
        wanted = f32(f32(scales[i] / f32(element_max)) / f32(tensor_scale))
        scales[i] = wanted if patterns[i] < u32(INFINITY) else f32(np.nan)
    round_run(patterns, scale_row)
    for i in range(scales.size):
        scales[i] = f32(scales[i] * f32(tensor_scale))


@inlined
def _round_scaled_even(values: Any, scales: Any, size: int, element_row: Any, signed_zero: bool) -> None:
    """`_round_scaled` for elements of mode EVEN."""
    scalars = unpack_even(element_row)
    for block in range(scales.size):
        scale, divisor = _scale(scales[block])
        start, stop = u64(block * size), u64(min((block + 1) * size, values.size))
        while start + RUN <= stop:
            for i in range(RUN):
                at = start + u64(i)
                values[at] = _scaled_even(values[at], scale, divisor, scalars, signed_zero)
            start += RUN
        for last in range(start, stop):
            values[last] = _scaled_even(values[last], scale, divisor, scalars, signed_zero)


@inlined
def _scaled_even(value: Any, scale: Any, divisor: Any, scalars: Any, signed_zero: bool) -> Any:
    quotient = u32(f32(value / divisor).view(np.uint32))
    return f32(u32(round_even(quotient, scalars, signed_zero)).view(np.float32) * scale)


@inlined
def _round_scaled(values: Any, scales: Any, size: int, element_row: Any, mode: int, bits: Any) -> None:
    """Round each value over the scale of its block to the element format, and scale it back.

    `bits`: a random uint32 a value, for mode RANDOM.
    """
    scalars = unpack(element_row)
    for block in range(scales.size):
        scale, divisor = _scale(scales[block])
        start, stop = u64(block * size), u64(min((block + 1) * size, values.size))
        while start + RUN <= stop:
            for i in range(RUN):
                at = start + u64(i)
                values[at] = _scaled(values[at], scale, divisor, mode, scalars, bits[at])
            start += RUN
        for last in range(start, stop):
            values[last] = _scaled(values[last], scale, divisor, mode, scalars, bits[last])


@inlined
def _scaled(value: Any, scale: Any, divisor: Any, mode: int, scalars: Any, bits: Any) -> Any:
    quotient = u32(f32(value / divisor).view(np.uint32))
    if mode == DIRECTED:  # up and down must still see a nonzero value
        vanished = u32(quotient << u32(1)) == u32(0) and value != f32(0)
        quotient = u32(quotient | u32(1)) if vanished else quotient
    return f32(u32(round_bits(quotient, bits, mode, SATURATING, scalars)).view(np.float32) * scale)


@compiled
def _draw(bits: Any, number: Any, random: Any) -> None:
    """Numbers `number` and following of the random stream."""
    number = u32(number)
    for i in range(bits.size):
        bits[i] = random_bits(number, random[1], random[2])
        number = u32(number + u32(1))


@inlined
def _scale(pattern: Any) -> Any:
    """(the scale of a block, what its values are divided by): 1 for a scale of zero, whose values become zero."""
    scale = u32(pattern).view(np.float32)
    return scale, (scale if scale != f32(0) else f32(1))
