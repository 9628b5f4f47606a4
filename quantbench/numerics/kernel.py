"""The one integer kernel that rounds float32 patterns to any format, and the row of parameters it reads.

A value's pattern without its sign is split into a significand and an exponent; the exponent says how many low bits of
the significand lie below the format's step there (more of them among subnormals, and for integers, whose step is
fixed); an addend decides the rounding mode; what comes out above the largest value is replaced. No branch depends on
the data, so that the compiler turns the loop into vector instructions. Every operation is wrapped in `u32` because
numba would widen it to 64 bits and halve the speed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.formats import Format

__all__ = [
    "ALL",
    "INFINITY",
    "Rounding",
    "check_rounding",
    "parameters",
    "random_bits",
    "round_bits",
    "round_run",
    "round_run_stochastic",
    "unpack",
]

Rounding = Literal["nearest-even", "nearest-away", "toward-zero", "up", "down", "stochastic"]

ALL = 0xFFFFFFFF
INFINITY = 0x7F800000
NAN = 0x7FC00000

# (shift, keep, flip, tie bit): the addend is ((mask >> shift) & (keep ^ (flip where negative))) + tie, where the tie
# bit is the last kept bit ("even"), always one, or none
_MODES: dict[str, tuple[int, int, int, str]] = {
    "nearest-even": (1, ALL, 0, "even"),
    "nearest-away": (1, ALL, 0, "one"),
    "toward-zero": (0, 0, 0, "none"),
    "up": (0, ALL, ALL, "none"),
    "down": (0, 0, ALL, "none"),
    "stochastic": (0, ALL, 0, "none"),
}

u32 = np.uint32
i32 = np.int32


def check_rounding(rounding: str) -> None:
    """Raise InputError unless `rounding` is one of the modes."""
    if rounding not in _MODES:
        raise InputError(f"unknown rounding {rounding!r}; it is one of {', '.join(get_args(Rounding))}")


@lru_cache(maxsize=4096)
def parameters(entry: Format, rounding: str, saturate: bool) -> NDArray[np.uint32]:
    """The kernel's row for one format (float or int), rounding mode and overflow rule. Read-only."""
    shift, keep, flip, tie = _MODES[rounding]
    scale_only = not entry.has_zero
    one_bit = scale_only  # a format of powers of two alone: "even" is the parity of the code, which is the exponent
    # OCP MX gives formats without infinity and NaN no other overflow than the largest value; the same for integers
    overflow = 0 if saturate else INFINITY if entry.has_inf else NAN if entry.has_nan else 0
    row = np.array(
        [
            0 if scale_only else 150 + _exponent(entry.min_subnormal),
            0 if entry.kind == "int" else 23 - entry.mantissa_bits,
            1 if scale_only else 0,
            shift,
            keep,
            flip,
            int(tie == "even" and not one_bit),
            int(tie == "even" and one_bit),
            int(tie == "one"),
            _pattern(entry.min_subnormal),
            _pattern(entry.min_subnormal) if scale_only else 0,
            _pattern(entry.max),
            0 if scale_only else _pattern(-entry.min),
            overflow,
            0x80000000 if entry.has_negative_zero else 0,
            0x7FFFFFFE if scale_only else ALL,
        ],
        dtype=np.uint32,
    )
    row.flags.writeable = False
    return row


@numba.njit(inline="always")
def unpack(row: Any) -> Any:
    """The row as sixteen scalars, so that the loop keeps them in registers."""
    return (
        i32(row[0]),
        i32(row[1]),
        row[2],
        row[3],
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
        row[11],
        row[12],
        row[13],
        row[14],
        row[15],
    )


@numba.njit(inline="always")
def round_bits(pattern: Any, random: Any, stochastic: bool, scalars: Any) -> Any:
    """Round one float32 pattern (uint32). `random`: 32 random bits, or all ones for a deterministic mode."""
    (
        base,
        drop_least,
        low,
        shift,
        keep,
        flip,
        even,
        parity,
        away,
        smallest,
        least,
        most,
        most_neg,
        over,
        nzero,
        bad,
    ) = scalars
    sign = u32(pattern & u32(0x80000000))
    magnitude = u32(pattern ^ sign)
    negative = u32(u32(0) - u32(pattern >> u32(31)))
    exponent = u32(magnitude >> u32(23))
    step = max(exponent, u32(1))
    high = u32(u32(step - u32(1)) << u32(23))
    significand = u32(magnitude - high)

    wanted = max(i32(base - i32(step)), i32(drop_least - i32(exponent < low)))
    drop = u32(min(wanted, i32(31)))
    if stochastic:  # far below the smallest step: the chance to round up is kept to 31 bits
        significand = u32(significand >> u32(min(i32(wanted - i32(drop)), i32(31))))
    mask = u32(u32(u32(1) << drop) - u32(1))
    keep = u32(keep ^ u32(negative & flip))
    tie = u32(u32(u32(u32(significand >> drop) & even) | u32(exponent & parity)) | away)
    addend = u32(u32(u32(mask >> shift) & u32(keep & random)) + u32(tie & mask))
    kept = u32(u32(significand + addend) & u32(~mask))

    rounded = smallest if drop > u32(24) else u32(high + kept)
    rounded = rounded if kept != u32(0) else u32(0)
    rounded = max(rounded, least)

    limit = most_neg if sign != u32(0) else most
    keep = u32(ALL) if magnitude >= u32(INFINITY) else keep
    rounded = max(limit, u32(over & keep)) if rounded > limit else rounded
    rounded = magnitude if magnitude > u32(INFINITY) else rounded
    rounded = u32(NAN) if u32(pattern - u32(1)) > bad else rounded
    sign = sign if rounded != u32(0) else u32(sign & nzero)
    return u32(rounded | sign)


@numba.njit(cache=True, nogil=True)
def round_run(patterns: Any, row: Any) -> None:
    """Round a contiguous run of float32 patterns in place."""
    scalars = unpack(row)
    for i in range(patterns.size):
        patterns[i] = round_bits(patterns[i], u32(ALL), False, scalars)


@numba.njit(cache=True, nogil=True)
def round_run_stochastic(patterns: Any, row: Any, first: Any, key: Any, other_key: Any) -> None:
    """Round a contiguous run in place at random. Element i uses number `first + i` (32 bits) of the keys' stream."""
    scalars = unpack(row)
    for i in range(patterns.size):
        random = random_bits(u32(first + u32(i)), key, other_key)
        patterns[i] = round_bits(patterns[i], random, True, scalars)


@numba.njit(inline="always")
def random_bits(number: Any, key: Any, other_key: Any) -> Any:
    """32 random bits: the entry `number` of the stream that the two keys name. A function of its arguments alone."""
    return mixed(u32(mixed(u32(number ^ key)) + other_key))


@numba.njit(inline="always")
def mixed(bits: Any) -> Any:
    """A 32-bit mixing permutation in which each input bit flips each output bit half of the time.

    Constants: C. Wellons, Hash Prospector (2018, "lowbias32" family).
    """
    bits = u32(u32(bits ^ u32(bits >> u32(16))) * u32(0x21F0AAAD))
    bits = u32(u32(bits ^ u32(bits >> u32(15))) * u32(0xD35A2D97))
    return u32(bits ^ u32(bits >> u32(15)))


def _exponent(power: float) -> int:
    """The exponent of a power of two."""
    mantissa, exponent = np.frexp(power)
    assert mantissa == 0.5
    return int(exponent) - 1


def _pattern(value: float) -> int:
    """The float32 pattern of a value that float32 holds."""
    assert float(np.float32(value)) == value
    return int(np.array(value, np.float32).view(np.uint32))
