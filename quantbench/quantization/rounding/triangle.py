"""Sums of symmetric matrices, of which only the lower halves are held."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Triangle"]

Array = NDArray[Any]

_ROWS = 512


class Triangle:
    """Symmetric matrices, one a group, as blocks of rows that end with the block on the diagonal.

    Args:
        groups, size: how many matrices, and how many rows and columns each has; all are 0 at first.

    Attributes:
        rows: of each block.
        blocks: (groups, len(rows), rows.stop) float64 each; to be added to in place.
    """

    def __init__(self, groups: int, size: int) -> None:
        self._shape = groups, size, size
        self.rows = [slice(start, min(start + _ROWS, size)) for start in range(0, size, _ROWS)]
        self.blocks = [np.zeros((groups, rows.stop - rows.start, rows.stop)) for rows in self.rows]

    def diagonal(self) -> Array:
        """(groups, size) float64."""
        parts = [
            np.diagonal(block, offset=rows.start, axis1=1, axis2=2)
            for rows, block in zip(self.rows, self.blocks, strict=True)
        ]
        return np.concatenate(parts, axis=1)

    def squared(self) -> Array:
        """The sum of the squares of each matrix, (groups,) float64."""
        parts = [self.squared_block(rows, block) for rows, block in zip(self.rows, self.blocks, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    @staticmethod
    def squared_block(rows: slice, block: Array) -> Array:
        """What a block adds to that: what lies before the diagonal block counts twice."""
        return np.asarray(
            2 * np.square(block[:, :, : rows.start]).sum(axis=(1, 2))
            + np.square(block[:, :, rows.start :]).sum(axis=(1, 2))
        )

    def unfold(self) -> Array:
        """The matrices, (groups, size, size) float64; the blocks are let go on the way."""
        full = np.empty(self._shape)
        for rows in self.rows:
            block = self.blocks.pop(0)
            full[:, rows, : rows.stop] = block
            full[:, : rows.start, rows] = block[:, :, : rows.start].transpose(0, 2, 1)
        return full
