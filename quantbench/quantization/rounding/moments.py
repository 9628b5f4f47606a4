"""Means and second moments of what an operation's weights are multiplied by, in the exact and in the rounded graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.patches import Patches
from quantbench.quantization.rounding.triangle import Triangle

__all__ = ["Batch", "Moments", "MomentsSum"]

Array = NDArray[Any]

_MOST_SHRINKAGE = 0.95
_PARTS = 12
"""Into how many parts the batches are divided: enough to see how second moments vary, and few enough that the work on
whole matrices of them is small beside the products."""


@dataclass(frozen=True)
class Moments:
    """Per output position, over the samples; x stands for the columns in the exact graph, r for the rounded graph's.

    Attributes:
        mean_exact, mean_rounded: (groups, columns) float64, over all positions.
        hessian: E[r·rᵀ], (groups, columns, columns) float64, over the chosen positions; of r − E[r] where a bias takes
            up the means.
        cross: E[(x − r)·rᵀ], the same way; (groups, 0, 0) where the two graphs always had the same input.
        shrinkage: (groups,) float64, from 0 to 0.95: the share of `hessian` that is better replaced by its mean on the
            diagonal, by how much it varies from part to part of the samples.
    """

    mean_exact: Array
    mean_rounded: Array
    hessian: Array
    cross: Array
    shrinkage: Array


@dataclass(frozen=True)
class Batch:
    """What is added up of one batch.

    Attributes:
        positions: of the output.
        sums: of the columns in the exact and the rounded graph over all positions, (groups, columns) float64.
        columns: at the chosen positions, (groups, positions, columns) float32; None where products are not wanted.
    """

    positions: int
    sums: tuple[Array, Array]
    columns: tuple[Array, Array] | None


class MomentsSum:
    """Adds up moments, a few batches at a time.

    Inputs are rounded to a grid so fine that all products and sums of a part are whole numbers below 2^53. Floats
    hold those exactly, so the order of summation, and with it the number of threads, makes no difference.

    Args:
        patches: how the operation reads its input.
        products: whether second moments are wanted; without, `hessian`, `cross` and `shrinkage` are empty.
        batches: how many will come.
    """

    def __init__(self, patches: Patches, products: bool, batches: int) -> None:
        self._patches = patches
        self._wanted = products
        self._together = -(-batches // _PARTS)
        self._waiting: list[tuple[Array, Array]] = []
        self._positions = 0
        self._counts: list[int] = []
        self._means: list[Array] = []
        self._totals: list[Array] = []
        self._products: Triangle | None = None
        self._covariances: Triangle | None = None
        self._cross: Array | None = None

    def look(self, exact: Array, rounded: Array, chosen: Array) -> Batch:
        """What to add of one batch of the operation's input in both graphs; may be called from threads.

        One array for both is looked at once.

        Args:
            exact, rounded: the input.
            chosen: as of `Patches.gather`.
        """
        pair = [self._patches.images(each) for each in ([exact] if exact is rounded else [exact, rounded])]
        height, width = self._patches.positions(pair[0])
        sums = [self._patches.sums(each) for each in pair]
        columns = [self._patches.gather(each, chosen) for each in pair] if self._wanted else []
        return Batch(len(pair[0]) * height * width, (sums[0], sums[-1]), (columns[0], columns[-1]) if columns else None)

    def add(self, batch: Batch) -> None:
        """Take in one batch."""
        self._positions += batch.positions
        _add_to(self._means, batch.sums)
        if batch.columns is not None:
            self._waiting.append(batch.columns)
            if len(self._waiting) == self._together:
                self._add_products()

    def _add_products(self) -> None:
        """Take in the columns of the batches that wait, some rows of the matrices at a time."""
        waiting, self._waiting = self._waiting, []
        r = np.concatenate([rounded for _, rounded in waiting], axis=1)
        same = all(exact is rounded for exact, rounded in waiting)
        x = r if same else np.concatenate([exact for exact, _ in waiting], axis=1)
        del waiting
        groups, count, columns = r.shape
        step = _grid(max(_largest(x), _largest(r)), count)
        r = _on_grid(r, step)
        total = r.sum(axis=1) * step
        self._counts.append(count)
        if self._products is None or self._covariances is None:
            self._products, self._covariances = Triangle(groups, columns), Triangle(groups, columns)
        square = np.zeros(groups)
        for rows, products, covariances in zip(
            self._products.rows, self._products.blocks, self._covariances.blocks, strict=True
        ):
            part = np.matmul(r[:, :, rows].transpose(0, 2, 1), r[:, :, : rows.stop]) * step**2
            products += part
            part -= _outer(total[:, rows], total[:, : rows.stop]) / count
            part /= max(count - 1, 1)
            covariances += part
            square += Triangle.squared_block(rows, part)
        difference = np.zeros_like(total)
        if not same:
            x = _on_grid(x, step)
            x -= r
            difference += x.sum(axis=1) * step
            self._cross = np.zeros((groups, columns, columns)) if self._cross is None else self._cross
            for rows in self._products.rows:
                self._cross[:, rows] += np.matmul(x[:, :, rows].transpose(0, 2, 1), r) * step**2
        _add_to(self._totals, [total, difference, square])

    def result(self, centred: bool) -> Moments:
        """The moments of all batches, once: the sums turn into them. `centred` where a bias takes up the means."""
        mean_exact, mean_rounded = (each / max(self._positions, 1) for each in self._means)
        if self._waiting:
            self._add_products()
        if self._products is None:
            none = np.zeros((len(mean_exact), 0, 0))
            return Moments(mean_exact, mean_rounded, none, none, none)
        count = sum(self._counts)
        shrinkage = self._shrinkage()
        rounded, difference = (each / count for each in self._totals[:2])
        for rows, block in zip(self._products.rows, self._products.blocks, strict=True):
            block /= count
            if centred:
                block -= _outer(rounded[:, rows], rounded[:, : rows.stop])
            if self._cross is not None:
                self._cross[:, rows] /= count
                if centred:
                    self._cross[:, rows] -= _outer(difference[:, rows], rounded)
        hessian, self._products = self._products.unfold(), None
        cross, self._cross = self._cross, None
        if cross is None:
            cross = np.zeros((len(hessian), 0, 0))
        return Moments(mean_exact, mean_rounded, hessian, cross, shrinkage)

    def _shrinkage(self) -> Array:
        """Ledoit and Wolf's share: the expected squared distance of the estimate from the truth over that from a
        sphere. The estimate is the mean of the parts' covariances, which are let go."""
        assert self._covariances is not None
        covariances, parts = self._covariances, len(self._counts)
        self._covariances = None
        squared = covariances.squared() / parts**2
        noise = (self._totals[2] / parts - squared) / max(parts - 1, 1)
        variances = covariances.diagonal() / parts
        distance = squared - variances.shape[1] * variances.mean(axis=1) ** 2
        return np.asarray(np.clip(noise / np.maximum(distance, 1e-300), 0.0, _MOST_SHRINKAGE))


def _outer(one: Array, other: Array) -> Array:
    return one[:, :, np.newaxis] * other[:, np.newaxis, :]


def _add_to(sums: list[Array], parts: Sequence[Array]) -> None:
    if not sums:
        sums += [part.copy() for part in parts]
        return
    for total, part in zip(sums, parts, strict=True):
        total += part


def _largest(values: Array) -> float:
    return float(max(values.max(initial=0.0), -values.min(initial=0.0)))


def _on_grid(values: Array, step: np.float64) -> Array:
    """In whole steps, as float64."""
    steps = values / step
    return np.rint(steps, out=steps)


def _grid(largest: float, count: int) -> np.float64:
    """The power of two at which `count` products of numbers up to `largest`, over it squared, sum up to below 2^53.

    The difference of two inputs may be twice the largest, so one bit more is kept free.
    """
    bits = (52 - int(np.ceil(np.log2(max(count, 1))))) // 2 - 1
    exponent = int(np.frexp(max(float(largest), 1e-30))[1])
    return np.float64(2.0 ** (exponent - bits))
