"""A weight of a linear operation as matrices, one for each group of channels, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["MatrixLayout"]

Array = NDArray[Any]


@dataclass(frozen=True)
class MatrixLayout:
    """How a weight becomes matrices of shape (groups, rows, columns).

    A row holds what makes one output channel; its columns run over the input channels of its group and, within each,
    over the positions of the kernel, the way `Patches` lays out what is multiplied by them.

    Attributes:
        shape: of the weight.
        channel_axis: the axis of the output channels, the groups one after the other.
        groups: of a convolution; 1 otherwise.
    """

    shape: tuple[int, ...]
    channel_axis: int
    groups: int = 1

    @property
    def matrix_shape(self) -> tuple[int, int, int]:
        """(groups, rows, columns)."""
        channels = self.shape[self.channel_axis]
        return self.groups, channels // self.groups, math.prod(self.shape) // max(channels, 1)

    def matrix(self, weight: Array) -> Array:
        """The weight as (groups, rows, columns)."""
        return np.ascontiguousarray(np.moveaxis(weight, self.channel_axis, 0).reshape(self.matrix_shape))

    def tensor(self, matrix: Array) -> Array:
        """The inverse of `matrix`."""
        others = [size for axis, size in enumerate(self.shape) if axis != self.channel_axis]
        channels = self.shape[self.channel_axis]
        return np.ascontiguousarray(np.moveaxis(matrix.reshape(channels, *others), 0, self.channel_axis))

    def segments(self, axis: int | None, block_size: int) -> Array:
        """Which scale of its row a column has: int64 of shape (columns,), counted from 0.

        Args:
            axis: the axis of the weight that the scales run along; None where all share one.
            block_size: elements of the axis under one scale; 0 without blocks.
        """
        if axis is None or not block_size:
            return np.zeros(self.matrix_shape[2], np.int64)
        sizes = [size for index, size in enumerate(self.shape) if index != self.channel_axis]
        position = axis if axis < self.channel_axis else axis - 1
        places = list(np.indices(sizes))
        places[position] //= block_size
        sizes[position] = -(-sizes[position] // block_size)
        return np.asarray(np.ravel_multi_index(tuple(places), tuple(sizes)).reshape(-1))

    def scales(self, matrix: Array, axis: int | None, block_size: int) -> Array:
        """Scales of shape (groups, rows, segments) in the shape that `Affine` gives them."""
        if axis is None:
            return np.asarray(matrix.reshape(-1)[0])
        if not block_size:
            return matrix.reshape(-1)
        shape = list(self.shape)
        shape[axis] = -(-shape[axis] // block_size)
        return MatrixLayout(tuple(shape), self.channel_axis, self.groups).tensor(matrix)
