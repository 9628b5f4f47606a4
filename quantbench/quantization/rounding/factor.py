"""The triangular factor that says how later columns make up for the rounding of earlier ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.threads import compiled, dot, eight_dots, over_rows

__all__ = ["factorize", "multiply", "reordered", "solve"]

Array = NDArray[Any]

_PANEL = 64


def factorize(hessian: Array, order: Array | None = None) -> tuple[Array, Array]:
    """(F, d) with H = N·diag(d)·Nᵀ for the unit upper triangular N = Fᵀ.

    For an error e of a row of weights, e·H·eᵀ = Σ d[k]·(e[k] + Σ_{i<k} F[k, i]·e[i])².

    Computed from the Cholesky factor of the matrix read backwards, in kernels of our own: every sum is taken in the
    same order however many threads there are, which LAPACK does not promise. What is returned is the only matrix that
    is made on the way.

    Args:
        hessian: (columns, columns), symmetric and positive definite, float64.
        order: H is the matrix with its rows and columns in this order; as they are without.

    Returns:
        F: (columns, columns) float64, strictly lower triangular; d: (columns,) float64.
    """
    size = len(hessian)
    lower = reordered(hessian, np.arange(size)[::-1] if order is None else order[::-1])
    for start in range(0, size, _PANEL):
        end = min(start + _PANEL, size)
        over_rows(_subtract_known, size - start, lower[start:], lower[start:end].copy(), start, end)
        _factor_panel(lower, start, end)
        over_rows(_solve_panel, size - end, lower[end:], lower[start:end].copy(), start, end)
    diagonal = np.diagonal(lower)[::-1].copy()
    over_rows(_turn, size, lower, diagonal)
    return lower, diagonal**2


def reordered(matrix: Array, order: Array, dtype: type = np.float64) -> Array:
    """A copy with rows and columns in another order, in another precision perhaps."""
    copy: Array = np.empty(matrix.shape, dtype)
    for start in range(0, len(order), _PANEL):
        copy[start : start + _PANEL] = matrix[np.ix_(order[start : start + _PANEL], order)]
    return copy


def solve(rows: Array, feedback: Array, diagonal: Array) -> Array:
    """rows·H⁻¹ for the factors of `factorize`; rows are (rows, columns) float64."""
    solved = np.array(rows, np.float64, order="C")
    over_rows(_solve_rows, len(solved), solved, feedback, diagonal)
    return solved


def multiply(rows: Array, matrix: Array) -> Array:
    """rows·matrix in float64; the order of each sum is fixed."""
    product = np.zeros((len(rows), matrix.shape[1]))
    over_rows(_multiply_rows, len(rows), np.ascontiguousarray(rows), np.ascontiguousarray(matrix), product)
    return product


@compiled
def _multiply_rows(first: int, last: int, rows: Any, matrix: Any, product: Any) -> None:
    """Four lines of the matrix at a time, each read once for all the rows."""
    fours = len(matrix) // 4 * 4
    for k in range(0, fours, 4):
        a, b, c, d = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        for row in range(first, last):
            of_a, of_b, of_c, of_d = rows[row, k], rows[row, k + 1], rows[row, k + 2], rows[row, k + 3]
            out = product[row]
            for i in range(len(out)):
                out[i] += (of_a * a[i] + of_b * b[i]) + (of_c * c[i] + of_d * d[i])
    for k in range(fours, len(matrix)):
        line = matrix[k]
        for row in range(first, last):
            factor, out = rows[row, k], product[row]
            for i in range(len(out)):
                out[i] += factor * line[i]


@compiled
def _subtract_known(first: int, last: int, rows: Any, panel: Any, start: int, end: int) -> None:
    """Take from the panel's columns what the columns before it explain: of two rows, four columns at a time, so that
    each number that is read serves several products. `first` is even, so that who takes which rows does not matter."""
    fours = (end - start) // 4 * 4
    for row in range(first, last - 1, 2):
        one, other = rows[row, :start], rows[row + 1, :start]
        for column in range(0, fours, 4):
            sums = eight_dots(
                one, other, panel[column, :start], panel[column + 1, :start], panel[column + 2, :start],
                panel[column + 3, :start],
            )  # fmt: skip
            for each in range(4):
                rows[row, start + column + each] -= sums[each]
                rows[row + 1, start + column + each] -= sums[4 + each]
        for column in range(fours, end - start):
            rows[row, start + column] -= dot(one, panel[column, :start])
            rows[row + 1, start + column] -= dot(other, panel[column, :start])
    if (last - first) % 2:
        for column in range(end - start):
            rows[last - 1, start + column] -= dot(rows[last - 1, :start], panel[column, :start])


@compiled
def _factor_panel(lower: Any, start: int, end: int) -> None:
    """The Cholesky factor of the block on the diagonal."""
    for column in range(start, end):
        for row in range(column, end):
            total = lower[row, column] - dot(lower[row, start:column], lower[column, start:column])
            lower[row, column] = np.sqrt(total) if row == column else total / lower[column, column]


@compiled
def _solve_panel(first: int, last: int, rows: Any, panel: Any, start: int, end: int) -> None:
    """The panel's columns of the rows below the diagonal."""
    for row in range(first, last):
        for column in range(start, end):
            known = dot(rows[row, start:column], panel[column - start, start:column])
            rows[row, column] = (rows[row, column] - known) / panel[column - start, column]


@compiled
def _turn(first: int, last: int, lower: Any, diagonal: Any) -> None:
    """Mirror what is below the diagonal at the other diagonal, over the new row's `diagonal`; the rest becomes 0.

    Of two numbers that change places, the row that is further up takes care.
    """
    size = len(lower)
    for row in range(first, last):
        for column in range(row):
            from_row, from_column = size - 1 - column, size - 1 - row
            if row < from_row:
                value = lower[row, column]
                lower[row, column] = lower[from_row, from_column] / diagonal[row]
                lower[from_row, from_column] = value / diagonal[from_row]
            elif row == from_row:
                lower[row, column] /= diagonal[row]
        lower[row, row:] = 0.0


@compiled
def _solve_rows(first: int, last: int, rows: Any, feedback: Any, diagonal: Any) -> None:
    """x·N·diag(d)·Nᵀ = b: back through Nᵀ, over d, forth through N."""
    size = len(diagonal)
    for k in range(size - 1, 0, -2):  # two lines of the factor are read once for all the rows
        one, other = feedback[k], feedback[k - 1]
        for row in range(first, last):
            x = rows[row]
            x[k - 1] -= one[k - 1] * x[k]
            of_one, of_other = x[k], x[k - 1]
            for i in range(k - 1):
                x[i] -= one[i] * of_one + other[i] * of_other
    for row in range(first, last):
        rows[row] /= diagonal
    for k in range(size):
        line = feedback[k, :k]
        for row in range(first, last):
            rows[row, k] -= dot(rows[row, :k], line)
