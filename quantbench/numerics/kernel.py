"""The one integer kernel that rounds float32 patterns to any format, and the row of parameters it reads.

A value's pattern without its sign is split into a significand and an exponent; the exponent says how many low bits of
the significand lie below the format's step there (more of them among subnormals, and for integers, whose step is
fixed); an addend decides the rounding mode; what comes out above the largest value is replaced. No branch depends on
the data, so that the compiler turns the loop into vector instructions. Every operation is wrapped in `u32` because
numba would widen it to 64 bits and halve the speed.

Rounding to nearest even, which emulation does all the time, is a third of the work where float32 can do it: where the
format's numbers are far enough inside its range (`_rounds_by_adding`). Where the format has all of float32's exponents
(bfloat16, TF32), carrying into the kept bits is all there is to it (`_cuts`).

`blocks.py` and `accumulation.py` compile this kernel into their own functions. numba renews what it keeps on disk when
the file of the function has changed, and not when this one has, so each of them holds the sha256 of this file
(`KERNEL_SHA256`): a change here changes them too. A test says what it has to be.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, TypeVar, get_args

import numba
import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.formats import Format

__all__ = [
    "DIRECTED",
    "EVEN",
    "INFINITY",
    "NAN",
    "NEAREST",
    "RANDOM",
    "SATURATING",
    "Rounding",
    "check_rounding",
    "compiled",
    "has_signed_zero",
    "inlined",
    "parameters",
    "random_bits",
    "round_bits",
    "round_even",
    "round_run",
    "round_run_stochastic",
    "unpack",
    "unpack_even",
]

Rounding = Literal["nearest-even", "nearest-away", "toward-zero", "up", "down", "stochastic"]

ALL = 0xFFFFFFFF
INFINITY = 0x7F800000
NAN = 0x7FC00000

NEAREST, DIRECTED, RANDOM, EVEN, CUT = 0, 1, 2, 3, 4
SYMMETRIC, INTEGER, SCALE_ONLY, SATURATING = 0, 1, 2, 3

# how the addend comes about, and two patterns: for NEAREST what joins the last kept bit at a tie (mask, always), for
# DIRECTED which values grow in magnitude (all, flipped where negative)
_MODES: dict[str, tuple[int, int, int]] = {
    "nearest-even": (NEAREST, 1, 0),
    "nearest-away": (NEAREST, 0, 1),
    "toward-zero": (DIRECTED, 0, 0),
    "up": (DIRECTED, ALL, ALL),
    "down": (DIRECTED, 0, ALL),
    "stochastic": (RANDOM, 0, 0),
}

u32 = np.uint32
i32 = np.int32

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
compiled: Callable[[Kernel], Kernel] = numba.njit(cache=True, nogil=True)
inlined: Callable[[Kernel], Kernel] = numba.njit(inline="always")


def check_rounding(rounding: str) -> None:
    """Raise InputError unless `rounding` is one of the modes."""
    if rounding not in _MODES:
        raise InputError(f"unknown rounding {rounding!r}; it is one of {', '.join(get_args(Rounding))}")


@lru_cache(maxsize=4096)
def parameters(entry: Format, rounding: str, saturate: bool) -> NDArray[np.uint32]:
    """The kernel's row for one format (float or int), rounding mode and overflow rule. Read-only."""
    mode, one, other = _MODES[rounding]
    scale_only = not entry.has_zero
    # OCP MX gives formats without infinity and NaN no other overflow than the largest value; the same for integers
    most, most_negative = _pattern(entry.max), 0 if scale_only else _pattern(abs(entry.min))
    overflow = 0 if saturate else INFINITY if entry.has_inf else NAN if entry.has_nan else 0
    shape = SCALE_ONLY if scale_only else SYMMETRIC if entry.min == -entry.max else INTEGER
    if rounding == "nearest-even" and not saturate and _cuts(entry):
        return _row_of_cut(entry)
    if rounding == "nearest-even" and _rounds_by_adding(entry):
        return _row_by_adding(entry, most, overflow or most)
    return _row(
        [
            mode,
            shape,
            0 if scale_only else 150 + _exponent(entry.min_subnormal),
            0 if entry.kind == "int" else 23 - entry.mantissa_bits,
            one,
            other,
            _pattern(entry.min_subnormal),
            most,
            most_negative,
            overflow,
            0x80000000 if entry.has_negative_zero else 0,
        ]
    )


def _cuts(entry: Format) -> bool:
    """Whether `round_cut` rounds to the format: float32's exponents and top codes, with fewer bits after the point."""
    return (
        entry.kind == "float"
        and 0 < entry.mantissa_bits < 23
        and (entry.min_normal, entry.min_subnormal) == (2.0**-126, 2.0 ** (-126 - entry.mantissa_bits))
        and entry.max == 2.0**128 - 2.0 ** (127 - entry.mantissa_bits)
        and entry.has_inf
        and entry.has_nan
        and entry.has_negative_zero
    )


def _row_of_cut(entry: Format) -> NDArray[np.uint32]:
    """The row of `round_cut`: how many bits go."""
    return _row([CUT, SYMMETRIC, 23 - entry.mantissa_bits])


def _rounds_by_adding(entry: Format) -> bool:
    """Whether `round_even` rounds to the format: its steps are normal float32 numbers, and 2^23 steps are one too."""
    largest_step = 2.0 ** (np.frexp(entry.max)[1] - 1 - _fraction_bits(entry))
    return (
        entry.has_zero
        and entry.min == -entry.max
        and entry.min_subnormal >= 2.0**-126
        and largest_step * 2.0**23 <= 2.0**127
    )


def _row_by_adding(entry: Format, most: int, beyond: int) -> NDArray[np.uint32]:
    """The row of `round_even`: what `unpack_even` reads."""
    bits = _fraction_bits(entry)
    top = 2.0 ** (np.frexp(entry.max)[1] - 1)
    least, greatest = (entry.min_subnormal,) * 2 if entry.kind == "int" else (entry.min_normal, top)
    sign = 0x80000000 if entry.has_negative_zero else 0
    return _row([EVEN, SYMMETRIC, _pattern(least), _pattern(greatest), (23 - bits) << 23, most, beyond, sign])


def _row(numbers: list[int]) -> NDArray[np.uint32]:
    row = np.array(numbers, dtype=np.uint32)
    row.flags.writeable = False
    return row


def _fraction_bits(entry: Format) -> int:
    """Fraction bits below a value's power of two; none where the step is the same everywhere."""
    return 0 if entry.kind == "int" else entry.mantissa_bits


@inlined
def unpack_even(row: Any) -> Any:
    """`unpack` of a row for mode EVEN."""
    return (
        row[2],  # the power of two whose step the smallest values have
        row[3],  # and the largest
        row[4],  # what makes 2^23 steps of a power of two: an addition to its exponent
        u32(row[5]).view(np.float32),  # the largest value
        row[6],  # the pattern of what is larger
    )


@inlined
def has_signed_zero(row: Any) -> Any:
    """Whether the format of a row for mode EVEN has a negative zero."""
    return row[7] != u32(0)


@inlined
def round_even(pattern: Any, scalars: Any, signed_zero: bool) -> Any:
    """Round one float32 pattern (uint32) to nearest even by float32 itself, for a row of mode EVEN.

    To |x| is added 2^23 times the step that the format has at |x|. float32 has that step there, so the addition rounds
    to it, half to even, and the subtraction is exact (Dekker 1971; the step follows x, so that binades and subnormals
    come out right, unlike with one constant for all). NaN passes through. `signed_zero`, a constant where this is
    inlined: whether the format has a negative zero.
    """
    least, greatest, lift, most, beyond = scalars
    magnitude = u32(pattern & u32(0x7FFFFFFF))
    power = min(max(u32(pattern & u32(INFINITY)), least), greatest)
    steps = u32(power + lift).view(np.float32)
    rounded = np.float32(np.float32(magnitude.view(np.float32) + steps) - steps)
    bits = beyond if rounded > most else rounded.view(np.uint32)
    sign = u32(pattern if signed_zero else u32(u32(0) - bits) & pattern)
    return u32(bits | u32(sign & u32(0x80000000)))


@inlined
def round_cut(pattern: Any, drop: Any) -> Any:
    """Round one float32 pattern (uint32) to nearest even by cutting off `drop` bits, for a row of mode CUT.

    What carries out of the fraction raises the exponent, the largest one to infinity. NaN passes through.
    """
    last = u32(u32(pattern >> drop) & u32(1))
    below_half = u32(u32(u32(1) << u32(drop - u32(1))) - u32(1))
    bits = u32(u32(pattern + u32(below_half + last)) & u32(u32(ALL) << drop))
    return pattern if u32(pattern & u32(0x7FFFFFFF)) > u32(INFINITY) else bits


@inlined
def unpack(row: Any) -> Any:
    """The numbers of a row as scalars, so that a loop keeps them in registers."""
    return (
        i32(row[2]),  # base: bits to drop are base - exponent where the step is fixed
        i32(row[3] & u32(31)),  # least number of bits to drop; the compiler uses that it is below 32
        row[4],
        row[5],
        row[6],
        row[7],
        row[8],
        row[9],
        row[10],
    )


@inlined
def round_bits(pattern: Any, random: Any, mode: int, shape: int, scalars: Any) -> Any:
    """Round one float32 pattern (uint32).

    `mode` and `shape` are constants where this is inlined, so that no format pays for the oddities of another:
    SYMMETRIC about zero, INTEGER (the most negative value differs from the largest), SCALE_ONLY (powers of two without
    sign and zero), or SATURATING (symmetric, and whatever the row says, nothing goes above the largest value).
    `random`: 32 random bits for mode RANDOM.
    """
    base, drop_least, one, other, smallest, most, most_negative, overflow, kept_sign = scalars
    magnitude = u32(pattern & u32(0x7FFFFFFF))
    negative = u32(i32(pattern) >> i32(31))
    exponent = u32(magnitude >> u32(23))
    step = max(exponent, u32(1))
    high = u32(u32(step << u32(23)) - u32(0x00800000))
    significand = u32(magnitude - high)

    # below the step by 25 bits and more, nearest is zero; by 24 and more, the other modes choose zero or the smallest
    if shape == SCALE_ONLY:  # down to 2^-127, which float32 holds as a subnormal
        wanted = i32(i32(23) - i32(exponent == u32(0)))
        drop = u32(wanted)
    else:
        wanted = max(i32(base - i32(step)), drop_least)
        drop = u32(min(wanted, i32(25 if mode == NEAREST else 24 if mode == DIRECTED else 31)))
    mask = u32(u32(u32(1) << drop) - u32(1))
    growing = u32(ALL)
    if mode == NEAREST:
        # where all values are powers of two, "even" is the parity of the code, that is of the exponent
        last = exponent if shape == SCALE_ONLY else u32(significand >> drop)
        tie = u32(u32(last & one) | other)
        addend = u32(u32(mask >> u32(1)) + u32(tie & mask))
    elif mode == DIRECTED:
        growing = u32(one ^ u32(negative & other))
        addend = u32(mask & growing)
    else:  # far below the smallest step, the chance to become it is kept to 31 bits
        significand = u32(significand >> min(u32(u32(wanted) - drop), u32(31)))
        addend = u32(mask & random)
    kept = u32(u32(significand + addend) & u32(~mask))
    rounded = u32(high + kept)
    if shape == SCALE_ONLY:
        rounded = max(rounded, smallest)
    elif mode == DIRECTED:
        rounded = max(rounded, smallest) if kept != u32(0) else u32(0)
    elif mode == RANDOM:
        rounded = smallest if drop > u32(24) else rounded
        rounded = rounded if kept != u32(0) else u32(0)
    else:
        rounded = rounded if kept != u32(0) else u32(0)

    if shape == SATURATING:
        rounded = min(rounded, most)
    else:
        limit = most
        if shape == INTEGER:
            limit = most_negative if negative != u32(0) else most
        if mode == DIRECTED:
            growing = u32(ALL) if magnitude >= u32(INFINITY) else growing
        rounded = max(limit, u32(overflow & growing)) if rounded > limit else rounded
    rounded = magnitude if magnitude > u32(INFINITY) else rounded
    if shape == SCALE_ONLY:  # neither zero nor sign
        return u32(NAN) if i32(pattern) <= i32(0) else rounded
    # a nonzero value keeps its sign, zero where there is a negative zero
    sign = u32(u32(u32(u32(0) - rounded) | kept_sign) & pattern)
    return u32(rounded | u32(sign & u32(0x80000000)))


@compiled
def round_run(patterns: Any, row: Any) -> None:
    """Round a contiguous run of float32 patterns in place, by any mode but stochastic."""
    if row[0] == EVEN and has_signed_zero(row):
        _run_even(patterns, row, True)
    elif row[0] == EVEN:
        _run_even(patterns, row, False)
    elif row[0] == CUT:
        _run_cut(patterns, row)
    elif row[0] == NEAREST and row[1] == SYMMETRIC:
        _run(patterns, row, NEAREST, SYMMETRIC)
    elif row[0] == NEAREST and row[1] == INTEGER:
        _run(patterns, row, NEAREST, INTEGER)
    elif row[0] == NEAREST:
        _run(patterns, row, NEAREST, SCALE_ONLY)
    elif row[1] == SYMMETRIC:
        _run(patterns, row, DIRECTED, SYMMETRIC)
    elif row[1] == INTEGER:
        _run(patterns, row, DIRECTED, INTEGER)
    else:
        _run(patterns, row, DIRECTED, SCALE_ONLY)


@inlined
def _run(patterns: Any, row: Any, mode: int, shape: int) -> None:
    scalars = unpack(row)
    for i in range(patterns.size):
        patterns[i] = round_bits(patterns[i], u32(0), mode, shape, scalars)


@inlined
def _run_even(patterns: Any, row: Any, signed_zero: bool) -> None:
    scalars = unpack_even(row)
    for i in range(patterns.size):
        patterns[i] = round_even(patterns[i], scalars, signed_zero)


@inlined
def _run_cut(patterns: Any, row: Any) -> None:
    drop = u32(row[2] & u32(31))  # the compiler uses that it is below 32
    for i in range(patterns.size):
        patterns[i] = round_cut(patterns[i], drop)


@compiled
def round_run_stochastic(patterns: Any, row: Any, first: Any, key: Any, other_key: Any) -> None:
    """Round a contiguous run in place at random. Element i uses number `first + i` (32 bits) of the keys' stream."""
    if row[1] == SYMMETRIC:
        _run_stochastic(patterns, row, first, key, other_key, SYMMETRIC)
    elif row[1] == INTEGER:
        _run_stochastic(patterns, row, first, key, other_key, INTEGER)
    else:
        _run_stochastic(patterns, row, first, key, other_key, SCALE_ONLY)


@inlined
def _run_stochastic(patterns: Any, row: Any, first: Any, key: Any, other_key: Any, shape: int) -> None:
    scalars = unpack(row)
    number = u32(first)  # counted in 32 bits: made from i, it would take vectors of 64
    for i in range(patterns.size):
        random = random_bits(number, key, other_key)
        patterns[i] = round_bits(patterns[i], random, RANDOM, shape, scalars)
        number = u32(number + u32(1))


@inlined
def random_bits(number: Any, key: Any, other_key: Any) -> Any:
    """32 random bits: the entry `number` of the stream that the two keys name. A function of its arguments alone.

    A permutation of 32 bits in which each input bit flips each output bit half of the time, with the second key mixed
    in on the way, so that no stream is another one in another order. Constants: those of the least bias known for two
    multiplications (0.11; C. Wellons, Hash Prospector, 2018, found by "TheIronBorn").
    """
    bits = u32(number ^ key)
    bits = u32(u32(bits ^ u32(bits >> u32(16))) * u32(0x21F0AAAD))
    bits = u32(u32(bits ^ u32(bits >> u32(15))) + other_key)
    bits = u32(bits * u32(0xD35A2D97))
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
