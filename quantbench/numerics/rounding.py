"""Round float32 arrays to a number format: any shape, in place or not, in as many threads as the size is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.blocks import block_rule, largest_number, largest_of_block_rows, round_block_rows
from quantbench.numerics.formats import Format, get_format
from quantbench.numerics.kernel import Rounding, check_rounding, parameters, round_run, round_run_stochastic
from quantbench.numerics.threads import PARALLEL_FROM, share

__all__ = ["Rounding", "round_inplace", "round_to", "rounder"]

Values = NDArray[np.float32]
Stream = tuple[np.uint32, np.uint32, np.uint32]

CHUNK = 1 << 16
"""Threads share the work in multiples of about this many values."""
_FLOAT32 = np.dtype(np.float32)
_NO_ROW = np.zeros(0, np.uint32)
_NO_STREAM: Stream = (np.uint32(0), np.uint32(0), np.uint32(0))


def round_to(
    x: Values,
    format: str | Format,  # noqa: A002 (the contract's name)
    *,
    rounding: Rounding = "nearest-even",
    saturate: bool = False,
    seed: int | None = None,
    out: Values | None = None,
    axis: int = -1,
    threads: int | None = None,
) -> Values:
    """Round every value of `x` to a value of `format`.

    Subnormals are kept. NaN stays NaN, in formats without NaN too. The sign of zero stays where the format has −0.
    Above the largest value: infinity where the format has one, else NaN where it has that, else (integers, OCP FP6
    and FP4) the largest value; with `saturate` always the largest value, for infinities too. As IEEE 754 has it, a
    mode that rounds the magnitude down (toward-zero; up for negative values) takes a finite value to the largest one.
    Integers are rounded to whole numbers and clamped. E8M0 has neither zero nor sign: such values become NaN.

    A block format scales consecutive blocks along `axis` (a last one may be shorter); `rounding` is that of the
    elements, which always saturate. MX scales are 2^(floor(log2 max) − emax) (OCP MX 1.0, section 6.3). NVFP4's are
    E4M3(max / 6 / t) under the tensor's t = max / (6 · 448), in float32. NaN or infinity makes its whole block NaN.

    Args:
        x: float32, any shape, contiguous or not.
        format: a name, as of `get_format`, or a Format.
        rounding: nearest-even, nearest-away (ties away from zero), toward-zero, up, down, or stochastic (up with the
            probability of the remainder, to 31 bits). E8M0 calls a code even.
        saturate: overflow goes to the largest value.
        seed: for stochastic; the same seed gives the same result for any number of threads.
        out: where the result goes; may be `x`. Default: a new array.
        axis: of the blocks.
        threads: at most so many; default: the cores this process may use, for arrays that are worth it.

    Raises:
        InputError: unknown format or rounding, `x` or `out` of a wrong dtype or shape, no seed for stochastic.
    """
    if not isinstance(x, np.ndarray | np.float32) or x.dtype != np.float32:
        given = getattr(x, "dtype", type(x).__name__)
        raise InputError(f"round_to takes a float32 array, not {given}; convert it with x.astype(numpy.float32)")
    entry = get_format(format)
    if out is None:
        out = np.array(x, np.float32, order="C")
        round_inplace(out, entry, rounding=rounding, saturate=saturate, seed=seed, axis=axis, threads=threads)
        return out
    if (
        not isinstance(out, np.ndarray)
        or out.dtype != np.float32
        or out.shape != np.shape(x)
        or not out.flags.writeable
    ):
        given = f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}"
        given += " that is read-only" if isinstance(out, np.ndarray) and not out.flags.writeable else ""
        raise InputError(f"out must be a writable float32 array of shape {np.shape(x)}, not {given}")
    if out.flags.carray:
        if out is not x:
            np.copyto(out, x)
        round_inplace(out, entry, rounding=rounding, saturate=saturate, seed=seed, axis=axis, threads=threads)
    else:
        work = np.array(x, np.float32, order="C")
        round_inplace(work, entry, rounding=rounding, saturate=saturate, seed=seed, axis=axis, threads=threads)
        np.copyto(out, work)
    return out


def round_inplace(
    values: Values,
    format: str | Format,  # noqa: A002 (the contract's name)
    *,
    rounding: Rounding = "nearest-even",
    saturate: bool = False,
    seed: int | None = None,
    axis: int = -1,
    threads: int | None = None,
) -> None:
    """`round_to` of a C-contiguous float32 array into itself, with little to pay for a small one. Releases the GIL.

    Raises:
        InputError: as `round_to`, and `values` that are not contiguous, aligned and writable.
    """
    rounder(format, rounding=rounding, saturate=saturate, seed=seed, axis=axis, threads=threads)(values)


def rounder(
    format: str | Format,  # noqa: A002 (the contract's name)
    *,
    rounding: Rounding = "nearest-even",
    saturate: bool = False,
    seed: int | None = None,
    axis: int = -1,
    threads: int | None = None,
) -> Callable[[Values], None]:
    """`round_inplace` with everything settled but the array: what is called again and again on small arrays.

    Raises:
        InputError: as `round_inplace`; what is wrong with an array when it comes.
    """
    entry = get_format(format)
    check_rounding(rounding)
    if rounding == "stochastic" and seed is None:
        raise InputError("stochastic rounding needs a seed: give seed=")
    keys = _keys(seed) if rounding == "stochastic" and seed is not None else None
    row = _NO_ROW if entry.kind == "block" else parameters(entry, rounding, saturate)

    def visit(values: Values) -> None:
        if values.dtype != _FLOAT32 or not values.flags.carray:
            raise InputError("round_inplace takes a writable, aligned, C-contiguous float32 array")
        if values.size == 0:
            return
        if row is _NO_ROW:
            _round_blocks(values, entry, rounding, keys, axis, threads)
            return
        patterns: NDArray[np.uint32] = np.frombuffer(values, np.uint32)  # flat, and sooner there than by reshape, view
        if keys is not None:
            _stochastic(patterns, row, keys, threads)
        elif patterns.size < PARALLEL_FROM:
            round_run(patterns, row)
        else:
            share(patterns.size, CHUNK, threads, lambda first, last: round_run(patterns[first:last], row))

    return visit


def _stochastic(
    patterns: NDArray[np.uint32], row: NDArray[np.uint32], keys: tuple[int, int], threads: int | None
) -> None:
    """The flat array at random; element i uses number i of the stream."""

    def piece(first: int, last: int) -> None:
        for start, stop, stream in _streams(first, last, keys, CHUNK):
            round_run_stochastic(patterns[start:stop], row, *stream)

    share(patterns.size, CHUNK, threads, piece)


def _round_blocks(
    values: Values, entry: Format, rounding: str, keys: tuple[int, int] | None, axis: int, threads: int | None
) -> None:
    """A block format along `axis`; another axis than the last is moved there and back."""
    if values.ndim == 0:
        raise InputError(f"{entry.name} rounds blocks along an axis; a single number has none")
    if not -values.ndim <= axis < values.ndim:
        raise InputError(f"axis {axis} is out of range for an array of {values.ndim} dimensions")
    moved = np.ascontiguousarray(np.moveaxis(values, axis, -1))
    length = moved.shape[-1]
    rule = block_rule(entry, rounding)
    # rows of whole blocks follow each other without a seam, so that rows of any length may be made of them
    width = CHUNK if length % rule.block_size == 0 and CHUNK % rule.block_size == 0 else length
    blocks = math.ceil(width / rule.block_size)
    chunk = width * max(1, CHUNK // width)
    flat = moved.reshape(-1)
    largest = np.empty(math.ceil(flat.size / width) * blocks if entry.tensor_scale else 0, np.uint32)

    def find(first: int, last: int) -> None:
        found = largest[first // width * blocks : math.ceil(last / width) * blocks]
        found[-blocks:] = 0  # the last row may have fewer
        largest_of_block_rows(flat[first:last], width, rule.block_size, found)

    tensor_scale = 0.0
    if entry.tensor_scale:
        share(flat.size, chunk, threads, find)
        assert entry.scale is not None
        # where there is nothing but zeros, any scale does
        tensor_scale = float(largest_number(largest) / np.float32(rule.element_max * entry.scale.max)) or 1.0
    common = (rule.element_row, rule.scale_row, rule.block_size, rule.element_exponent, rule.element_max, tensor_scale)

    def piece(first: int, last: int) -> None:
        runs = _streams(first, last, keys, chunk) if keys is not None else ((first, last, _NO_STREAM),)
        for start, stop, stream in runs:
            found = largest[start // width * blocks : math.ceil(stop / width) * blocks]
            round_block_rows(flat[start:stop], min(width, stop - start), *common, found, stream)

    share(flat.size, chunk, threads, piece)
    if not np.may_share_memory(moved, values):
        np.copyto(np.moveaxis(values, axis, -1), moved)


@lru_cache(maxsize=64)
def _keys(seed: int) -> tuple[int, int]:
    """The two 32-bit keys of a seed's stream."""
    key, other = np.random.SeedSequence(seed).generate_state(2)
    return int(key), int(other)


def _streams(first: int, last: int, keys: tuple[int, int], chunk: int) -> Iterator[tuple[int, int, Stream]]:
    """Cut first..last where the 32-bit number of a value starts anew, with other keys: at whole chunks below 2^32.

    Yields the ends of each run and its stream: the number of its first value, and the two keys.
    """
    segment = max(1, 2**32 // chunk) * chunk
    while first < last:
        turn, number = divmod(first, segment)
        stop = min(last, (turn + 1) * segment)
        other = (keys[1] + turn * 0x9E3779B9) & 0xFFFFFFFF
        yield first, stop, (np.uint32(number), np.uint32(keys[0]), np.uint32(other))
        first = stop
