"""What a rounding method is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Problem", "Rounder", "Solution", "segment_amplitudes"]

Array = NDArray[Any]

_ROWS = 1024
"""Rows that are looked at at once, which bounds the memory that this takes."""


@dataclass(frozen=True)
class Solution:
    """Attributes:
    codes: (groups, rows, columns) int32, counted from the zero point.
    scales: (groups, rows, segments) float32.
    """

    codes: Array
    scales: Array


@dataclass(frozen=True)
class Problem:
    """A weight to be rounded: find codes q and scales s for which Σ (w − s·q)·H·(w − s·q)ᵀ over the rows is small.

    Attributes:
        weight: (groups, rows, columns) float64, what the rounded weight should come near to.
        hessian: (groups, columns, columns) float64, positive semidefinite: the second moments of the inputs; of shape
            (groups, columns, 0) for methods that do not read it.
        segments: (columns,) int64: which scale of its row a column has, counted from 0.
        lowest, highest: the ends of the codes, counted from the zero point.
        least_scale: (groups, rows) float64, below which no scale may go.
        one_scale: whether all rows share one scale.
        multiples: where above 0, the scales of a row are whole multiples, 1 to `multiples`, of a step of the row with
            at most 16 significant bits, and the largest of them is that many times the step.
        nearest: the codes and scales of rounding to nearest.
        seed: of random choices.
    """

    weight: Array
    hessian: Array
    segments: Array
    lowest: int
    highest: int
    least_scale: Array
    nearest: Solution
    one_scale: bool = False
    multiples: int = 0
    seed: int = 0


Rounder = Callable[[Problem], Solution]


def segment_amplitudes(problem: Problem) -> Array:
    """max|w| of each segment of each row: (groups, rows, segments) float64."""
    count = int(problem.segments.max(initial=0)) + 1
    amplitudes = np.zeros((*problem.weight.shape[:2], count))
    order = np.argsort(problem.segments, kind="stable")
    starts = np.searchsorted(problem.segments[order], np.arange(count))
    for group, weight in enumerate(problem.weight):
        for start in range(0, len(weight) if weight.size else 0, _ROWS):
            rows = slice(start, start + _ROWS)
            np.maximum.reduceat(np.abs(weight[rows])[:, order], starts, axis=1, out=amplitudes[group, rows])
    return amplitudes
