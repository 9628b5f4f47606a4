"""How one graph is rounded, once that is decided."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.plan import GraphPlan
from quantbench.quantization.writing import write_graph

__all__ = ["Decision"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Decision:
    """Attributes:
    plan: of the graph.
    weights: the integer weights by initializer.
    shifts: what bias correction adds, by initializer.
    """

    plan: GraphPlan
    weights: dict[str, QuantizedTensor] = field(default_factory=dict)
    shifts: dict[str, Array] = field(default_factory=dict)

    def written(self, model: ir.Model) -> ir.Model:
        """A copy of the graph that holds its tensors as decided."""
        return write_graph(model, self.plan, self.weights, self.shifts)
