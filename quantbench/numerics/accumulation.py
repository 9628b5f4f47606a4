"""Running sums rounded at every step: what an accumulator narrower than float32 does to partial sums."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics.formats import Format, check_accumulator
from quantbench.numerics.kernel import compiled, parameters, round_run
from quantbench.numerics.threads import PARALLEL_FROM, cores, share

__all__ = ["running_sum"]

KERNEL_SHA256 = "c331b611dbbb81af00d0833bbdc70590210d7451e48233dcc341985169e1fd7c"
"""Of kernel.py, which says why."""

_COLUMNS = 1 << 10
"""Threads share the columns in multiples of so many; a row of as many stays in the cache from adding to rounding."""


def running_sum(partials: NDArray[np.float32], format: str | Format, *, threads: int | None = None) -> None:  # noqa: A002
    """Replace partial sums by what an accumulator in `format` holds after each of them, in place.

    partials[:, k] becomes round(accumulator + partials[:, k]), from an accumulator of +0: one float32 addition, then
    rounded to nearest even, overflow as in `round_to`. Releases the GIL.

    Args:
        partials: C-contiguous float32 of shape (n, steps, …).
        format: a float format with a zero.
        threads: at most so many; default: the cores this process may use, for arrays that are worth it.

    Raises:
        InputError: another kind of format or array.
    """
    entry = check_accumulator(format)
    if partials.dtype != np.float32 or not partials.flags.carray or partials.ndim < 2:
        raise InputError("running_sum takes a writable, C-contiguous float32 array of two dimensions or more")
    if partials.size == 0:
        return
    rows, steps = partials.shape[:2]
    sums = partials.reshape(rows, steps, -1)
    patterns = sums.view(np.uint32)
    row = parameters(entry, "nearest-even", False)

    def piece(first: int, last: int) -> None:
        for start in range(first, last, _COLUMNS):
            _accumulate(sums, patterns, start, min(start + _COLUMNS, last), row)

    if partials.size < PARALLEL_FROM:
        threads = 1
    share(sums.shape[2], _COLUMNS, cores() if threads is None else threads, piece)


@compiled
def _accumulate(sums: Any, patterns: Any, first: Any, last: Any, row: Any) -> None:
    """The columns first to last of all rows; `patterns` are the bits of `sums`."""
    for r in range(sums.shape[0]):
        for step in range(sums.shape[1]):
            current = sums[r, step, first:last]
            if step == 0:
                for i in range(current.size):
                    current[i] += np.float32(0)  # +0 is what the accumulator begins with: -0 becomes +0
            else:
                before = sums[r, step - 1, first:last]
                for i in range(current.size):
                    current[i] += before[i]
            round_run(patterns[r, step, first:last], row)
