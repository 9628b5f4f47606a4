"""The bit codes of a format: from values to codes and back."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.formats import Format, get_format
from quantbench.numerics.rounding import Rounding, round_to

__all__ = ["code_dtype", "decode", "encode"]


def encode(
    x: NDArray[np.float32],
    format: str | Format,  # noqa: A002 (named as in round_to)
    *,
    rounding: Rounding = "nearest-even",
    saturate: bool = False,
    seed: int | None = None,
) -> NDArray[Any]:
    """The codes of `round_to(x, ...)`, of the shape of `x`: uint8, uint16 or uint32, whichever holds them.

    A code has the sign bit on top, then the exponent, then the fraction; integers are two's complement. NaN has its
    sign and the quiet bit, its payload is lost.

    Raises:
        InputError: as `round_to`; a NaN where the format has none; a block format.
    """
    entry = _with_codes(format)
    values = round_to(x, entry, rounding=rounding, saturate=saturate, seed=seed)
    nan = np.isnan(values)
    if not entry.has_nan and nan.any():
        raise InputError(f"{entry.name} has no code for NaN, and {int(nan.sum())} of the values are NaN")
    if entry.kind == "int":
        codes = values.astype(np.int32).view(np.uint32) & np.uint32(2**entry.bits - 1)
    else:
        codes = _float_codes(np.atleast_1d(values), entry).reshape(values.shape)
    return np.asarray(codes, code_dtype(entry))


def decode(codes: NDArray[Any], format: str | Format) -> NDArray[np.float32]:  # noqa: A002 (named as in round_to)
    """The float32 values of unsigned `codes` (any unsigned integer dtype and shape).

    Raises:
        InputError: `codes` are not unsigned integers or exceed the format's bits; a block format.
    """
    entry = _with_codes(format)
    codes = np.asarray(codes)
    if codes.dtype.kind != "u":
        raise InputError(f"codes of {entry.name} are unsigned integers, not {codes.dtype}")
    if codes.size and int(codes.max()) >= 2**entry.bits:
        raise InputError(f"code {int(codes.max())} does not fit the {entry.bits} bits of {entry.name}")
    if entry.bits <= 16:
        return np.asarray(_table(entry)[codes])
    return _values(codes.astype(np.uint32), entry)


def code_dtype(format: str | Format) -> np.dtype[Any]:  # noqa: A002 (named as in round_to)
    """The numpy dtype that `encode` returns for a format."""
    bits = get_format(format).bits
    return np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)


def _with_codes(name: str | Format) -> Format:
    entry = get_format(name)
    if entry.kind == "block":
        raise InputError(f"{entry.name} is a block format: encode its elements ({entry.element}) and its scales apart")
    return entry


def _float_codes(values: NDArray[np.float32], entry: Format) -> NDArray[np.uint32]:
    """The codes of values that the format has."""
    patterns = values.view(np.uint32)
    magnitudes = patterns & np.uint32(0x7FFFFFFF)
    # the exponent field in float32 of a value whose own exponent field is 0; E8M0 counts exponents as float32 does
    offset = 127 - entry.bias
    codes = (magnitudes >> np.uint32(23 - entry.mantissa_bits)) - np.uint32(offset << entry.mantissa_bits)
    if entry.has_subnormals and offset > 0:
        small = np.abs(values) < np.float32(entry.min_normal)
        steps = np.abs(values[small]).astype(np.float64) / entry.min_subnormal
        codes[small] = steps.astype(np.uint32)
    top = np.uint32(2**entry.exponent_bits - 1 << entry.mantissa_bits)
    if entry.has_inf:
        codes[magnitudes == 0x7F800000] = top
    if entry.has_nan:
        codes[magnitudes > 0x7F800000] = _nan_code(entry)
    if entry.signed:
        codes |= (patterns >> np.uint32(31)) << np.uint32(entry.bits - 1)
        if entry.top_codes == "nan-is-negative-zero":
            codes[magnitudes > 0x7F800000] = _nan_code(entry)
    return codes


def _nan_code(entry: Format) -> int:
    """The code of a positive quiet NaN."""
    if entry.top_codes == "nan-is-negative-zero":
        return 1 << (entry.bits - 1)
    ones = (1 << entry.exponent_bits + entry.mantissa_bits) - 1
    return ones if entry.top_codes == "nan" else ones - ((1 << entry.mantissa_bits - 1) - 1)


@lru_cache(maxsize=128)
def _table(entry: Format) -> NDArray[np.float32]:
    """The value of every code of a format of at most 16 bits. Read-only."""
    table = _values(np.arange(2**entry.bits, dtype=np.uint32), entry)
    table.flags.writeable = False
    return table


def _values(codes: NDArray[np.uint32], entry: Format) -> NDArray[np.float32]:
    """The values of codes, by the definition of the format."""
    wide = codes.astype(np.int64)
    if entry.kind == "int":
        signed = np.where(wide >> (entry.bits - 1) & int(entry.signed), wide - 2**entry.bits, wide)
        return (signed * entry.min_subnormal).astype(np.float32)
    fraction = wide & (2**entry.mantissa_bits - 1)
    field = wide >> entry.mantissa_bits & (2**entry.exponent_bits - 1)
    normal = (field > 0) | (not entry.has_zero)
    significand = np.where(normal, fraction + 2**entry.mantissa_bits, fraction)
    exponent = np.where(normal, field, 1) - entry.bias - entry.mantissa_bits
    values = np.ldexp(significand.astype(np.float64), exponent)
    top = 2**entry.exponent_bits - 1
    if entry.top_codes == "inf-nan":
        values[field == top] = np.nan
        values[(field == top) & (fraction == 0)] = np.inf
    elif entry.top_codes == "nan":
        values[(field == top) & (fraction == 2**entry.mantissa_bits - 1)] = np.nan
    if entry.signed:
        values = np.where(wide >> (entry.bits - 1) & 1, -values, values)
    if entry.top_codes == "nan-is-negative-zero":
        values[wide == _nan_code(entry)] = np.nan
    return np.asarray(values, np.float32)
