"""Learn for each weight whether to round it up or down.

Source: Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", ICML 2020: each weight lies at the
lower of two codes plus h(v), a sigmoid stretched over both ends and cut to 0..1; v follows the gradient of the squared
output error, (w − q)·H·(w − q)ᵀ, and of a regularizer 1 − |2h − 1|^β, whose falling β makes up every mind in the end.
The gradient of the quadratic form is one product with H, so that no samples and no automatic gradients are needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.numerics.threads import cores, share
from quantbench.quantization.rounding.gptq import gptq
from quantbench.quantization.rounding.problem import Problem, Solution
from quantbench.quantization.rounding.threads import compiled, dot, eight_dots

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
_ELEMENTS, _LEAST_ROWS = 1 << 14, 16
"""Weights that are learned together: as many as stay in the cache, in at least so many rows."""


def adaround(problem: Problem) -> Solution:
    """GPTQ's codes and scales, and for each code the choice of a neighbour: the one that its own slope points to.

    A row is learned by itself, on an error measured in units of GPTQ's, so that one weight of the regularizer suits all
    rows; it stays GPTQ's where learning brings no lower error.
    """
    start = gptq(problem)
    _, rows, columns = problem.weight.shape
    codes = start.codes.reshape(-1, columns)
    scales = start.scales[:, :, problem.segments].reshape(codes.shape)
    weight = problem.weight.astype(np.float32).reshape(codes.shape)
    hessian = problem.hessian.astype(np.float32)
    generator = np.random.default_rng([problem.seed, *problem.weight.shape])
    noise = generator.normal(scale=_SPREAD, size=codes.shape).astype(np.float32)
    learned = np.empty_like(codes)

    def learn(first: int, last: int) -> None:
        for begin in range(first, last, together):
            some = slice(begin, min(begin + together, last))
            quadratic = _Quadratic(weight[some], scales[some], hessian, begin, rows)
            learned[some] = _learn(quadratic, codes[some], noise[some], problem.lowest, problem.highest)

    together = max(_ELEMENTS // columns, _LEAST_ROWS)
    share(len(codes), together, cores(), learn)
    return Solution(learned.reshape(start.codes.shape), start.scales)


@dataclass(frozen=True)
class _Quadratic:
    """The error of some rows of weights.

    Attributes:
        weight, scales: (rows, columns) float32.
        hessian: (groups, columns, columns) float32.
        first: the number of the first row, counted over all groups.
        group_rows: rows of a group.
    """

    weight: Array
    scales: Array
    hessian: Array
    first: int
    group_rows: int

    def slopes(self, codes: Array) -> tuple[Array, Array]:
        """(w − q, (w − q)·H) of float32 codes, both (rows, columns)."""
        error = self.weight - codes * self.scales
        product = np.empty_like(error)
        _multiply(error, self.hessian, self.first, self.group_rows, product)
        return error, product

    def error(self, codes: Array) -> Array:
        """(w − q)·H·(w − q)ᵀ of each row: (rows, 1) float32."""
        error, product = self.slopes(codes)
        return np.asarray((error * product).sum(axis=1, keepdims=True))

    def curvature(self) -> Array:
        """What a step of a code adds to its slope, over the scale: (rows, columns) float32."""
        groups = (self.first + np.arange(len(self.weight))) // self.group_rows
        return np.asarray(np.diagonal(self.hessian, axis1=1, axis2=2)[groups] * self.scales)


def _learn(quadratic: _Quadratic, start: Array, noise: Array, lowest: int, highest: int) -> Array:
    """The codes of some rows, int32."""
    codes = start.astype(np.float32)
    start_error = quadratic.error(codes)
    unit = np.maximum(start_error / codes.shape[1], np.float32(1e-30))
    wish = quadratic.slopes(codes)[1] / quadratic.curvature()
    floor = np.clip(codes - (wish < 0), lowest, highest - 1)
    height = (np.clip(codes + wish - floor + noise, 0.01, 0.99) - _LOW) / (_HIGH - _LOW)
    raw = -np.log(1 / height - 1)
    mean, square = np.zeros_like(raw), np.zeros_like(raw)
    pull = -2 * quadratic.scales / unit
    for step in range(_STEPS):
        sigmoid = 1 / (1 + np.exp(-raw))
        height = np.clip((_HIGH - _LOW) * sigmoid + _LOW, 0, 1)
        gradient = quadratic.slopes(floor + height)[1] * pull
        progress = (step / _STEPS - _WARM_UP) / (1 - _WARM_UP)
        if progress > 0:
            beta = _LOOSE + (_STRICT - _LOOSE) * 0.5 * (1 + math.cos(progress * math.pi))
            side = 2 * height - 1
            gradient -= _WEIGHT * 2 * beta * np.copysign(np.abs(side) ** (beta - 1), side)
        gradient *= (_HIGH - _LOW) * sigmoid * (1 - sigmoid) * ((height > 0) & (height < 1))
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        raw -= _RATE / (1 - 0.9 ** (step + 1)) * mean / (np.sqrt(square / (1 - 0.999 ** (step + 1))) + 1e-8)
    learned = floor + (raw > 0)  # where the stretched sigmoid is above a half
    return np.where(quadratic.error(learned) < start_error, learned, codes).astype(np.int32)


@compiled
def _multiply(rows: Any, hessian: Any, first: int, group_rows: int, product: Any) -> None:
    """rows·H of each row's group, float32, in tiles of four rows and two columns."""
    columns = rows.shape[1]
    begin = 0
    while begin < len(rows):
        group = (first + begin) // group_rows
        end = min((group + 1) * group_rows - first, len(rows))
        matrix = hessian[group]
        tiled_rows, tiled_columns = end - (end - begin) % 4, columns - columns % 2
        for k in range(0, tiled_columns, 2):
            for row in range(begin, tiled_rows, 4):
                sums = eight_dots(matrix[k], matrix[k + 1], rows[row], rows[row + 1], rows[row + 2], rows[row + 3])
                for each in range(4):
                    product[row + each, k] = sums[each]
                    product[row + each, k + 1] = sums[4 + each]
        for row in range(begin, end):
            for k in range(0 if row >= tiled_rows else tiled_columns, columns):
                product[row, k] = dot(matrix[k], rows[row])
        begin = end
