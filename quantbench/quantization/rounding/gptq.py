"""Round column by column, letting the later columns of a row make up for the errors of the earlier ones.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR 2023,
in the form of Chee et al., "QuIP", NeurIPS 2023, section 3: with H = N·D·Nᵀ, N unit upper triangular, rounding column k
of w + (w − q)·(N − I) minimizes Σ D[k]·(its rounding error)² greedily, and the sum is the error itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.factor import factorize, reordered
from quantbench.quantization.rounding.problem import Problem, Solution
from quantbench.quantization.rounding.scales import candidate_scales
from quantbench.quantization.rounding.threads import compiled, dot, over_rows

__all__ = ["gptq"]

Array = NDArray[Any]
Factors = tuple[Array, Array]
"""(F, d) of `factorize` in float32."""

_FRACTIONS = np.array([1.0, 0.93, 0.87, 0.81, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5])
"""Of the largest weight of a segment, for the largest code to stand for."""
_SWEEPS = 8
"""How often at most single codes are looked over again."""
_TOGETHER = 16
"""Rows that are gone through side by side, so that a line of a matrix is read from memory once for all of them."""


def gptq(problem: Problem) -> Solution:
    """Codes and scales of small output error. Columns that matter most come first; blocks keep their columns together.

    Each scale is the one of `candidate_scales` whose rounded columns cost least. Afterwards single codes move to where
    the error of their row, with all others as they are, is least.
    """
    candidates = candidate_scales(problem, _FRACTIONS)
    codes = np.zeros(problem.weight.shape, np.int32)
    scales = np.zeros(candidates.shape[:3], np.float32)
    orders = [_order(np.diagonal(hessian), problem.segments) for hessian in problem.hessian]
    factors = [_factors(hessian, order) for hessian, order in zip(problem.hessian, orders, strict=True)]
    if problem.one_scale:
        candidates = _best_shared(problem, orders, factors, candidates)
    for group, order in enumerate(orders):
        weight = _ordered(problem.weight[group], order)
        solved, chosen, _ = _round(problem, weight, order, factors.pop(0), candidates[group])
        over_rows(
            _improve_rows, len(solved), weight, reordered(problem.hessian[group], order, np.float32), chosen,
            problem.segments[order], problem.lowest, problem.highest, _SWEEPS, solved,
        )  # fmt: skip
        codes[group][:, order] = solved
        scales[group] = chosen
    return Solution(codes, scales)


def _factors(hessian: Array, order: Array) -> Factors:
    feedback, importance = factorize(hessian, order)
    return feedback.astype(np.float32), importance.astype(np.float32)


def _best_shared(problem: Problem, orders: list[Array], factors: list[Factors], candidates: Array) -> Array:
    """The one candidate that costs least over all rows of all groups."""
    losses = np.zeros(candidates.shape[3])
    for group, (order, each) in enumerate(zip(orders, factors, strict=True)):
        weight = _ordered(problem.weight[group], order)
        losses += _round(problem, weight, order, each, candidates[group])[2].sum(axis=0)
    best = int(np.argmin(losses))
    return candidates[..., best : best + 1]


def _order(importance: Array, segments: Array) -> Array:
    """Columns by descending importance; those of a segment stay together, the segment of the greatest sum first."""
    sums = np.bincount(segments, weights=importance)
    rank = np.argsort(np.argsort(-sums, kind="stable"), kind="stable")
    return np.lexsort((-importance, rank[segments]))


def _ordered(weight: Array, order: Array) -> Array:
    """Columns in another order, in float32."""
    return np.take(weight.astype(np.float32), order, axis=1)


def _round(
    problem: Problem, weight: Array, order: Array, factors: Factors, candidates: Array
) -> tuple[Array, Array, Array]:
    """(codes, the scales chosen, what each candidate of the last segment cost) for columns in `order`."""
    rows, columns = weight.shape
    segments = problem.segments[order]
    starts = np.flatnonzero(np.diff(segments, prepend=-1))
    codes = np.zeros((rows, columns), np.int32)
    chosen = np.zeros(candidates.shape[:2], np.float32)
    losses = np.zeros((rows, candidates.shape[2]))
    over_rows(
        _round_rows, rows, weight, *factors, np.append(starts, columns), segments[starts], candidates,
        problem.lowest, problem.highest, codes, chosen, losses,
    )  # fmt: skip
    return codes, chosen, losses


@compiled
def _round_rows(
    first: int, last: int, weight: Any, feedback: Any, importance: Any, starts: Any, segments: Any, candidates: Any,
    lowest: int, highest: int, codes: Any, chosen: Any, losses: Any,
) -> None:  # fmt: skip
    columns = weight.shape[1]
    tries = candidates.shape[2]
    errors = np.zeros((tries, columns), np.float32)
    tried = np.zeros((tries, columns), np.int32)
    for row in range(first, last):
        for segment in range(len(segments)):
            start, end = starts[segment], starts[segment + 1]
            for each in range(tries):
                losses[row, each] = 0.0
            for k in range(start, end):
                known = weight[row, k] + dot(feedback[k, :start], errors[0, :start])
                for each in range(tries):
                    value = known + dot(feedback[k, start:k], errors[each, start:k])
                    scale = candidates[row, segments[segment], each]
                    code = min(max(np.rint(value / scale), lowest), highest)
                    rounded = np.float32(code * scale)
                    tried[each, k] = code
                    errors[each, k] = weight[row, k] - rounded
                    miss = value - rounded
                    losses[row, each] += importance[k] * miss * miss
            best = 0
            for each in range(1, tries):
                if losses[row, each] < losses[row, best]:
                    best = each
            chosen[row, segments[segment]] = candidates[row, segments[segment], best]
            for k in range(start, end):
                codes[row, k] = tried[best, k]
                errors[0, k] = errors[best, k]


@compiled
def _improve_rows(
    first: int, last: int, weight: Any, hessian: Any, scales: Any, segments: Any, lowest: int, highest: int,
    sweeps: int, codes: Any,
) -> None:  # fmt: skip
    """Move single codes, in place, while that lowers the error of their row."""
    columns = weight.shape[1]
    errors = np.zeros((_TOGETHER, columns), np.float32)
    slopes = np.zeros((_TOGETHER, columns), np.float32)
    moved = np.zeros(_TOGETHER, np.int64)
    for begin in range(first, last, _TOGETHER):
        count = min(_TOGETHER, last - begin)
        for each in range(count):
            row = begin + each
            for k in range(columns):
                errors[each, k] = weight[row, k] - codes[row, k] * scales[row, segments[k]]
            moved[each] = 1
        for k in range(columns):
            line = hessian[k]
            for each in range(count):
                slopes[each, k] = dot(line, errors[each])
        for _ in range(sweeps):
            going = moved.copy()
            moved[:] = 0
            for k in range(columns):
                line = hessian[k]
                for each in range(count):
                    row, slope = begin + each, slopes[each]
                    step = scales[row, segments[k]]
                    code = min(max(codes[row, k] + np.rint(slope[k] / (line[k] * step)), lowest), highest)
                    change = np.int32(code) - codes[row, k]
                    if change != 0 and going[each] != 0:
                        moved[each] += 1
                        codes[row, k] += change
                        distance = np.float32(change * step)
                        for i in range(columns):
                            slope[i] -= distance * line[i]
            if not moved.any():
                break
