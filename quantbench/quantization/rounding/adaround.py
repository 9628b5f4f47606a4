"""Learn for each weight whether to round it up or down.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020: each weight lies at the
lower of two codes plus h(v), a sigmoid stretched over both ends and cut to 0..1; v follows the gradient of the squared
output error, (w − q)·H·(w − q)ᵀ, and of a regularizer 1 − |2h − 1|^β, whose falling β makes up every mind in the end.
The gradient of the quadratic form is one product with H, so that no samples and no automatic gradients are needed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.gptq import gptq
from quantbench.quantization.rounding.problem import Problem, Solution
from quantbench.quantization.rounding.threads import compiled, dot, over_rows

__all__ = ["adaround"]

Array = NDArray[Any]

_STEPS = 1000
_WARM_UP = 0.2
"""Share of the steps before the regularizer sets in."""
_RATE = 0.03
"""Of Adam (Kingma and Ba, 2015), whose other constants are the usual ones."""
_LOW, _HIGH = -0.1, 1.1
"""Ends of the stretched sigmoid (the paper's γ and ζ)."""
_STRICT = 20.0
_LOOSE = 2.0
"""β at the regularizer's start and at the end."""
_WEIGHT = 5.0
"""Of the regularizer, whose share is 1 for each undecided weight; GPTQ's error counts 1 for each weight."""
_SPREAD = 0.02
"""Standard deviation of the noise on the first h, by the seed, which lets equal weights part."""


def adaround(problem: Problem) -> Solution:
    """GPTQ's codes and scales, and for each code the choice of a neighbour: the one that its own slope points to.

    A row is learned by itself, on an error measured in units of GPTQ's, so that one weight of the regularizer suits all
    rows; it stays GPTQ's where learning brings no lower error.
    """
    start = gptq(problem)
    codes = start.codes.copy()
    generator = np.random.default_rng([problem.seed, *problem.weight.shape])
    noise = generator.normal(scale=_SPREAD, size=problem.weight.shape).astype(np.float32)
    for group, hessian in enumerate(problem.hessian):
        scales = np.ascontiguousarray(start.scales[group][:, problem.segments])
        weight = problem.weight[group].astype(np.float32)
        over_rows(
            _learn_rows, len(weight), weight, hessian.astype(np.float32), scales, problem.lowest, problem.highest,
            noise[group], codes[group],
        )  # fmt: skip
    return Solution(codes, start.scales)


@compiled
def _learn_rows(
    first: int, last: int, weight: Any, hessian: Any, scales: Any, lowest: int, highest: int, noise: Any, codes: Any
) -> None:
    columns = weight.shape[1]
    error = np.zeros(columns, np.float32)
    raw = np.zeros(columns, np.float32)
    floor = np.zeros(columns, np.float32)
    mean, square = np.zeros(columns, np.float32), np.zeros(columns, np.float32)
    slope = np.zeros(columns, np.float32)
    for row in range(first, last):
        start_error = _error_of(weight[row], scales[row], codes[row], hessian, error)
        unit = max(start_error / columns, np.float32(1e-30))
        mean[:] = 0
        square[:] = 0
        for k in range(columns):
            wish = dot(hessian[k], error) / (hessian[k, k] * scales[row, k])
            floor[k] = min(max(codes[row, k] - (1 if wish < 0 else 0), lowest), highest - 1)
            height = min(max(codes[row, k] + wish - floor[k] + noise[row, k], np.float32(0.01)), np.float32(0.99))
            height = (height - _LOW) / (_HIGH - _LOW)
            raw[k] = -np.log(1 / height - 1)
        for step in range(_STEPS):
            progress = (step / _STEPS - _WARM_UP) / (1 - _WARM_UP)
            beta = _LOOSE + (_STRICT - _LOOSE) * 0.5 * (1 + np.cos(max(progress, 0.0) * np.pi))
            for k in range(columns):
                code = floor[k] + _height(raw[k])
                error[k] = weight[row, k] - code * scales[row, k]
            for k in range(columns):
                slope[k] = dot(hessian[k], error)
            for k in range(columns):
                sigmoid = 1 / (1 + np.exp(-raw[k]))
                rise = (_HIGH - _LOW) * sigmoid * (1 - sigmoid)
                height = _height(raw[k])
                if height <= 0 or height >= 1:
                    rise = np.float32(0.0)
                gradient = -2 * slope[k] * scales[row, k] / unit
                if progress > 0:
                    side = 2 * height - 1
                    gradient -= _WEIGHT * 2 * beta * np.abs(side) ** (beta - 1) * np.sign(side)
                gradient *= rise
                mean[k] = 0.9 * mean[k] + 0.1 * gradient
                square[k] = 0.999 * square[k] + 0.001 * gradient * gradient
                first_moment = mean[k] / (1 - 0.9 ** (step + 1))
                second_moment = square[k] / (1 - 0.999 ** (step + 1))
                raw[k] -= _RATE * first_moment / (np.sqrt(second_moment) + 1e-8)
        for k in range(columns):
            slope[k] = floor[k] + np.rint(_height(raw[k]))
        if _error_of(weight[row], scales[row], slope, hessian, error) < start_error:
            for k in range(columns):
                codes[row, k] = np.int32(slope[k])


@compiled
def _height(raw: Any) -> Any:
    """The stretched and cut sigmoid."""
    return np.float32(min(max((_HIGH - _LOW) / (1 + np.exp(-raw)) + _LOW, 0.0), 1.0))


@compiled
def _error_of(weight: Any, scales: Any, codes: Any, hessian: Any, error: Any) -> Any:
    """(w − q)·H·(w − q)ᵀ; leaves w − q in `error`."""
    for k in range(len(weight)):
        error[k] = weight[k] - codes[k] * scales[k]
    total = np.float32(0.0)
    for k in range(len(weight)):
        total += error[k] * dot(hessian[k], error)
    return total
