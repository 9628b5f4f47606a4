"""Compiled loops over rows, shared out among threads so that the result does not depend on how many there are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

from quantbench.numerics.threads import cores, share

__all__ = ["compiled", "dot", "eight_dots", "over_rows"]

compiled: Callable[[Callable[..., Any]], Callable[..., Any]] = numba.njit(
    cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}
)
"""A kernel whose sums may be taken in vectors; the compiler fixes their order once and for all."""

_CHUNK = 16
_FEW = 64
"""Rows that are not worth a second thread."""


@compiled
def dot(one: Any, other: Any) -> Any:
    """Σ one·other, in their own precision. Slices that start at 0 keep the loop free of checks, so it is vectorised."""
    total = one.dtype.type(0)
    for index in range(len(one)):
        total += one[index] * other[index]
    return total


@compiled
def eight_dots(one: Any, other: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """one·a … one·d, other·a … other·d, in their own precision: each number that is read serves several sums."""
    zero = one.dtype.type(0)
    one_a = one_b = one_c = one_d = other_a = other_b = other_c = other_d = zero
    for index in range(len(one)):
        left, right = one[index], other[index]
        one_a += left * a[index]
        one_b += left * b[index]
        one_c += left * c[index]
        one_d += left * d[index]
        other_a += right * a[index]
        other_b += right * b[index]
        other_c += right * c[index]
        other_d += right * d[index]
    return one_a, one_b, one_c, one_d, other_a, other_b, other_c, other_d


def over_rows(kernel: Callable[..., None], rows: int, *arguments: Any) -> None:
    """Call `kernel(first, last, *arguments)` for all rows, in threads.

    The kernel works on each row by itself, so that it does not matter who takes which.
    """
    share(rows, _CHUNK, 1 if rows <= _FEW else cores(), lambda first, last: kernel(first, last, *arguments))
