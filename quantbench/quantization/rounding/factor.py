"""The triangular factor that says how later columns make up for the rounding of earlier ones."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.threads import compiled, dot, over_rows

__all__ = ["factorize", "multiply", "solve"]

Array = NDArray[Any]

_PANEL = 64


def factorize(hessian: Array) -> tuple[Array, Array]:
    """(F, d) with H = N·diag(d)·Nᵀ for the unit upper triangular N = Fᵀ.

    For an error e of a row of weights, e·H·eᵀ = Σ d[k]·(e[k] + Σ_{i<k} F[k, i]·e[i])².

    Computed from the Cholesky factor of the matrix read backwards, in kernels of our own: every sum is taken in the
    same order however many threads there are, which LAPACK does not promise.

    Args:
        hessian: (columns, columns), symmetric and positive definite, float64.

    Returns:
        F: (columns, columns) float64, strictly lower triangular; d: (columns,) float64.
    """
    lower = np.ascontiguousarray(hessian[::-1, ::-1])
    size = len(lower)
    for start in range(0, size, _PANEL):
        end = min(start + _PANEL, size)
        over_rows(_subtract_known, size - start, lower[start:], lower[start:end].copy(), start, end)
        _factor_panel(lower, start, end)
        over_rows(_solve_panel, size - end, lower[end:], lower[start:end].copy(), start, end)
    diagonal = np.diagonal(lower)[::-1]
    unit = np.tril(lower, -1)[::-1, ::-1].T / diagonal[:, np.newaxis]
    return np.ascontiguousarray(unit), diagonal**2


def solve(rows: Array, feedback: Array, diagonal: Array) -> Array:
    """rows·H⁻¹ for the factors of `factorize`; rows are (rows, columns) float64."""
    solved = np.array(rows, np.float64, order="C")
    over_rows(_solve_rows, len(solved), solved, feedback, diagonal)
    return solved


def multiply(rows: Array, matrix: Array) -> Array:
    """rows·matrix in float64, each sum in the order of the rows' columns."""
    product = np.zeros((len(rows), matrix.shape[1]))
    over_rows(_multiply_rows, len(rows), np.ascontiguousarray(rows), np.ascontiguousarray(matrix), product)
    return product


@compiled
def _multiply_rows(first: int, last: int, rows: Any, matrix: Any, product: Any) -> None:
    for k in range(len(matrix)):  # a line of the matrix is read once for all the rows
        line = matrix[k]
        for row in range(first, last):
            factor, out = rows[row, k], product[row]
            for i in range(len(out)):
                out[i] += factor * line[i]


@compiled
def _subtract_known(first: int, last: int, rows: Any, panel: Any, start: int, end: int) -> None:
    """Take from the panel's columns what the columns before it explain."""
    for row in range(first, last):
        for column in range(end - start):
            rows[row, start + column] -= dot(rows[row, :start], panel[column, :start])


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
def _solve_rows(first: int, last: int, rows: Any, feedback: Any, diagonal: Any) -> None:
    """x·N·diag(d)·Nᵀ = b: back through Nᵀ, over d, forth through N."""
    size = len(diagonal)
    for k in range(size - 1, -1, -1):  # a line of the factor is read once for all the rows
        line = feedback[k]
        for row in range(first, last):
            x = rows[row]
            factor = x[k]
            for i in range(k):
                x[i] -= line[i] * factor
    for row in range(first, last):
        rows[row] /= diagonal
    for k in range(size):
        line = feedback[k, :k]
        for row in range(first, last):
            rows[row, k] -= dot(rows[row, :k], line)
