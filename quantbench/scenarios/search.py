"""The highest of what a system can bear: bracket it, then bisect."""

from __future__ import annotations

import math
from collections.abc import Callable

__all__ = ["highest"]

GROWTH = 1.5
"""From one bracketing step to the next."""
HOPELESS = 1e-2
"""Below this part of the first guess nothing is tried any more."""


def highest(
    fits: Callable[[float], bool], guess: float, *, tolerance: float, whole: bool = False, most: float = math.inf
) -> float | None:
    """The highest number that fits, as far as `tolerance`; None where none does.

    `fits` is taken to hold up to some number and not beyond. Starting from the guess, numbers grow or shrink until one
    fits and a larger one does not; then the interval between them is halved.

    Args:
        guess: above 0.
        tolerance: the interval is narrow enough when it is this part of its lower end.
        whole: only whole numbers count, from 1 on; they are told apart to the last.
        most: nothing above is tried.
    """
    low: float | None = None
    high: float | None = None
    number = min(max(1, round(guess)) if whole else guess, most)
    while low is None or high is None:
        if fits(number):
            low = number
            if number >= most:
                return low
            number = min(max(number + 1, round(number * GROWTH)) if whole else number * GROWTH, most)
        else:
            high = number
            number = int(number / GROWTH) if whole else number / GROWTH
            if low is None and number < (1 if whole else guess * HOPELESS):
                return None
    while high - low > max(tolerance * low, 1 if whole else 0):
        middle = (low + high) // 2 if whole else (low + high) / 2
        if fits(middle):
            low = middle
        else:
            high = middle
    return low
