"""How far the outputs of a changed graph are from those of the exact one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.batches import run_batches
from quantbench.graphs.widen import widen_weights

__all__ = ["OutputError"]

Array = NDArray[Any]


class OutputError:
    """Compares graphs with an exact one, whose outputs on `feeds` it holds.

    Args:
        model: the exact graph.
        feeds: its inputs from calibration samples, one mapping a batch.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> None:
        self._feeds = feeds
        self._exact = _outputs(model, feeds)

    def of(self, model: ir.Model) -> float:
        """Squared error of a graph's outputs over the exact outputs' variance; the worst float32 output counts.

        Narrow weights of the graph are widened.
        """
        widen_weights(model)
        errors = [
            sum(float(np.square(new - old).sum()) for new, old in zip(changed, exact, strict=True))
            / max(sum(float(np.square(old - old.mean()).sum()) for old in exact), 1e-30)
            for changed, exact in zip(_outputs(model, self._feeds), self._exact, strict=True)
            if exact[0].dtype == np.float32
        ]
        return max(errors, default=0.0)


def _outputs(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> list[list[Array]]:
    """For each output of the graph its values, one array a batch."""
    return [list(column) for column in zip(*run_batches(model, feeds), strict=True)]
