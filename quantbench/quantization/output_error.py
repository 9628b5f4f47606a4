"""How far the outputs of a changed graph are from those of the exact one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.batches import run_batches
from quantbench.graphs.exact import stays_exact
from quantbench.graphs.widen import widen_weights

__all__ = ["OutputError", "comparable", "put_out"]

Array = NDArray[Any]

_SQUASHING = {"LogSoftmax", "Sigmoid", "Softmax"}


class OutputError:
    """Compares graphs with an exact one, whose outputs on `feeds` it holds.

    Args:
        model: the exact graph.
        feeds: its inputs from calibration samples, one mapping a batch.

    Attributes:
        feeds: these.
        names: the tensors that are compared.
    """

    def __init__(self, model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> None:
        self.feeds = feeds
        self.names = comparable(model)
        self._exact = self._outputs(model.clone())
        spreads = (
            sum(_square(old - old.mean()) if _counts(old) else 0.0 for old in column)
            for column in zip(*self._exact, strict=True)
        )
        self._spreads = [max(spread, 1e-30) for spread in spreads]

    def of(self, model: ir.Model) -> float:
        """Squared error of a graph's outputs over the exact outputs' variance; the worst float32 output counts.

        The graph is used up: its narrow weights are widened, and it puts out what is compared.
        """
        widen_weights(model)
        return self.of_squares([self.squares(outputs, batch) for batch, outputs in enumerate(self._outputs(model))])

    def squares(self, outputs: Sequence[Array], batch: int) -> list[float]:
        """Squared error of what one batch makes of each of the tensors `names`; 0 where it is not float32."""
        return [
            _square(new - old) if _counts(old) else 0.0 for new, old in zip(outputs, self._exact[batch], strict=True)
        ]

    def of_squares(self, squares: Sequence[Sequence[float]]) -> float:
        """The same as `of`, from the squares of all batches."""
        sums = map(sum, zip(*squares, strict=True))
        return max((total / spread for total, spread in zip(sums, self._spreads, strict=True)), default=0.0)

    def _outputs(self, model: ir.Model) -> list[Sequence[Array]]:
        """For each batch the tensors that are compared; the graph puts out these from now on."""
        put_out(model, self.names)
        return run_batches(model, self.feeds)


def _counts(values: Array) -> bool:
    return values.dtype == np.float32


def _square(values: Array) -> float:
    """The sum of squares of values that nothing needs any more."""
    values = np.asarray(values)
    return float(np.square(values, out=values).sum())


def put_out(model: ir.Model, names: Sequence[str]) -> None:
    """Let a graph, which may carry codes, put out nothing but these tensors of the prepared graph it was made from."""
    values = {output.name: output for node in model.graph for output in node.outputs}
    values |= {value.name: value for value in model.graph.inputs}
    model.graph.outputs[:] = [values.get(f"{name}_dequantized") or values[name] for name in names]


def comparable(model: ir.Model) -> list[str]:
    """The tensors by which a graph is compared: its outputs, but for those of the arithmetic on boxes and indices.

    What a detector puts out in place of boxes and scores of all places, the best few in order, cannot be subtracted:
    one box more, and every row is another's. There what the layers feed that arithmetic counts as outputs. Before a
    Softmax or Sigmoid at the end its input counts, too: what is all but certain hides every error, and where it is not,
    a few samples make the whole of it.
    """
    exact = stays_exact(model.graph)
    names = [output.name or "" for output in model.graph.outputs if output not in exact]
    if any(output in exact and output.dtype == ir.DataType.FLOAT for output in model.graph.outputs):
        names += [
            value.name or ""
            for node in model.graph
            for value in node.outputs
            if value not in exact and any(set(reader.outputs) & exact for reader, _ in value.uses())
        ]
    squashed = {node.outputs[0].name: node.inputs[0] for node in model.graph if node.op_type in _SQUASHING}
    names += [value.name or "" for name in names if (value := squashed.get(name)) is not None]
    return list(dict.fromkeys(names))
