"""Means and second moments of what an operation's weights are multiplied by, in the exact and in the rounded graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.rounding.patches import Patches

__all__ = ["Moments", "MomentsSum"]

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
        cross: E[(x − r)·rᵀ], the same way.
        shrinkage: (groups,) float64, from 0 to 0.95: the share of `hessian` that is better replaced by its mean on the
            diagonal, by how much it varies from part to part of the samples.
    """

    mean_exact: Array
    mean_rounded: Array
    hessian: Array
    cross: Array
    shrinkage: Array


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
        self._products = products
        self._together = -(-batches // _PARTS)
        self._waiting: list[tuple[Array, Array]] = []
        self._positions = 0
        self._counts: list[int] = []
        self._sums: list[Array] = []
        self._parts: list[Array] = []

    def add(self, exact: Array, rounded: Array, chosen: Array) -> None:
        """Take in one batch of the operation's input in both graphs; `chosen` as of `Patches.gather`."""
        exact, rounded = self._patches.images(exact), self._patches.images(rounded)
        height, width = self._patches.positions(exact)
        self._positions += len(exact) * height * width
        _add_to(self._sums, [self._patches.sums(exact), self._patches.sums(rounded)])
        if not self._products:
            return
        self._waiting.append((self._patches.gather(exact, chosen), self._patches.gather(rounded, chosen)))
        if len(self._waiting) == self._together:
            self._add_products()

    def _add_products(self) -> None:
        """Take in the columns of the batches that wait."""
        x, r = (np.concatenate(columns, axis=1) for columns in zip(*self._waiting, strict=True))
        self._waiting.clear()
        count = x.shape[1]
        step = _grid(max(np.abs(x).max(initial=0.0), np.abs(r).max(initial=0.0)), count)
        x, r = np.rint(x / step), np.rint(r / step)
        x -= r
        total = r.sum(axis=1) * step
        products = np.matmul(r.transpose(0, 2, 1), r) * step**2
        covariance = (products - _outer(total, total) / count) / max(count - 1, 1)
        square = np.einsum("gkl,gkl->g", covariance, covariance)
        cross = np.matmul(x.transpose(0, 2, 1), r) * step**2
        self._counts.append(count)
        _add_to(self._parts, [products, cross, total, x.sum(axis=1) * step, covariance, square])

    def result(self, centred: bool) -> Moments:
        """The moments of all batches so far; `centred` where a bias takes up the means."""
        mean_exact, mean_rounded = (each / max(self._positions, 1) for each in self._sums)
        if not self._products:
            none = np.zeros((len(mean_exact), 0, 0))
            return Moments(mean_exact, mean_rounded, none, none, none)
        if self._waiting:
            self._add_products()
        count, parts = sum(self._counts), len(self._counts)
        hessian, cross, rounded, difference = (each / count for each in self._parts[:4])
        covariances, squares = self._parts[4:]
        if centred:
            hessian -= _outer(rounded, rounded)
            cross -= _outer(difference, rounded)
        noise = (squares - np.square(covariances).sum(axis=(1, 2)) / parts) / (parts * max(parts - 1, 1))
        shrinkage = _shrinkage(covariances / parts, noise)
        return Moments(mean_exact, mean_rounded, hessian, cross, shrinkage)


def _shrinkage(covariance: Array, noise: Array) -> Array:
    """Ledoit and Wolf's share: the expected squared distance of the estimate from the truth over that from a sphere."""
    mean = np.diagonal(covariance, axis1=1, axis2=2).mean(axis=1)
    distance = np.square(covariance).sum(axis=(1, 2)) - covariance.shape[1] * mean**2
    return np.asarray(np.clip(noise / np.maximum(distance, 1e-300), 0.0, _MOST_SHRINKAGE))


def _outer(one: Array, other: Array) -> Array:
    return one[:, :, np.newaxis] * other[:, np.newaxis, :]


def _add_to(sums: list[Array], parts: list[Array]) -> None:
    if not sums:
        sums += parts
        return
    for total, part in zip(sums, parts, strict=True):
        total += part


def _grid(largest: float, count: int) -> np.float64:
    """The power of two at which `count` products of numbers up to `largest`, over it squared, sum up to below 2^53.

    The difference of two inputs may be twice the largest, so one bit more is kept free.
    """
    bits = (52 - int(np.ceil(np.log2(max(count, 1))))) // 2 - 1
    exponent = int(np.frexp(max(float(largest), 1e-30))[1])
    return np.float64(2.0 ** (exponent - bits))
