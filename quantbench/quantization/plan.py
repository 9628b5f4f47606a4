"""What was decided for each tensor: small, readable, diffable; the public description that the rules ask for."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from quantbench.quantization.transforms import Equalized

__all__ = ["GraphPlan", "Plan", "TensorPlan"]


@dataclass(frozen=True)
class TensorPlan:
    """How one tensor is held.

    Attributes:
        role: weight, bias or activation.
        format: name of the number format.
        scale: the per-tensor scale; a string for scales along an axis, saying how they follow from the weights and
            the activation, so that the plan stays small and can still be repeated.
        zero_point: the code of zero; None where the format has none.
        axis: the axis that scales run along; None per tensor.
        block_size: elements of the axis under one scale; 0 without blocks.
        range: (low, high) that calibration chose, for activations.
        amplitude: how the magnitude under the largest code is chosen, for weights: "max" is that of the largest weight,
            "mse" the one with the least squared error.
    """

    role: str
    format: str
    scale: float | str | None = None
    zero_point: int | None = None
    axis: int | None = None
    block_size: int = 0
    range: tuple[float, float] | None = None
    amplitude: str = "max"

    def document(self) -> dict[str, Any]:
        fields = {
            "role": self.role,
            "format": self.format,
            "scale": self.scale,
            "zero_point": self.zero_point,
            "axis": self.axis,
            "block_size": self.block_size or None,
            "range": None if self.range is None else list(self.range),
            "amplitude": None if self.amplitude == "max" else self.amplitude,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class GraphPlan:
    """Attributes:
    tensors: plan by tensor name; a tensor that is not named stays in FP32.
    integer_nodes: names of the nodes that compute in integers.
    kept_in_float: names of the nodes that could, but do not, because calibration showed that it costs too much.
    faster_in_float: names of the nodes that could, but do not, because integers take longer there.
    folded: names of the matrix operations that became part of the table of a lookup.
    equalized: the channels that were scaled against each other before anything was rounded.
    operands: by name of a matrix operation the block formats in which it reads its two operands, along the axis that it
        sums over; None for one that it reads as it is held.
    accumulators: by name of an operation that adds up in another format than float32 (or exact integers) that format,
        and how many products it adds in float32 before it rounds the running sum.
    """

    tensors: dict[str, TensorPlan]
    integer_nodes: tuple[str, ...] = ()
    kept_in_float: tuple[str, ...] = ()
    faster_in_float: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    equalized: tuple[Equalized, ...] = ()
    operands: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    accumulators: dict[str, tuple[str, int]] = field(default_factory=dict)

    def of_role(self, role: str) -> dict[str, TensorPlan]:
        return {name: tensor for name, tensor in self.tensors.items() if tensor.role == role}

    def within(self, tensors: Collection[str], nodes: Collection[str]) -> GraphPlan:
        """What it says of these tensors and nodes."""
        return replace(
            self,
            tensors={name: tensor for name, tensor in self.tensors.items() if name in tensors},
            integer_nodes=tuple(name for name in self.integer_nodes if name in nodes),
            operands={name: formats for name, formats in self.operands.items() if name in nodes},
            accumulators={name: each for name, each in self.accumulators.items() if name in nodes},
        )


@dataclass(frozen=True)
class Plan:
    """A recipe made concrete for one reference; `graphs` by name."""

    reference: str
    recipe: dict[str, Any]
    transforms: tuple[str, ...]
    graphs: dict[str, GraphPlan]

    def to_json(self) -> str:
        """The text of plan.json: one line a tensor, so that two plans can be compared line by line."""
        lines = ["{", f'  "reference": {json.dumps(self.reference)},']
        lines += [f'  "recipe": {json.dumps(self.recipe)},', f'  "transforms": {json.dumps(self.transforms)},']
        lines.append('  "graphs": {')
        for position, (name, graph) in enumerate(self.graphs.items()):
            lines.append(f"    {json.dumps(name)}: {{")
            lines.append(f'      "integer_nodes": {json.dumps(graph.integer_nodes)},')
            lines.append(f'      "kept_in_float": {json.dumps(graph.kept_in_float)},')
            lines.append(f'      "faster_in_float": {json.dumps(graph.faster_in_float)},')
            if graph.folded:
                lines.append(f'      "folded": {json.dumps(graph.folded)},')
            if graph.equalized:
                scaled = [f"        {json.dumps(asdict(each))}" for each in graph.equalized]
                lines += ['      "equalized": [', ",\n".join(scaled), "      ],"]
            if graph.operands:
                pairs = [f"        {json.dumps(node)}: {json.dumps(pair)}" for node, pair in graph.operands.items()]
                lines += ['      "operands": {', ",\n".join(pairs), "      },"]
            if graph.accumulators:
                sums = [f"        {json.dumps(node)}: {json.dumps(each)}" for node, each in graph.accumulators.items()]
                lines += ['      "accumulators": {', ",\n".join(sums), "      },"]
            lines.append('      "tensors": {')
            rows = [f"        {json.dumps(key)}: {json.dumps(row.document())}" for key, row in graph.tensors.items()]
            lines.append(",\n".join(rows))
            lines += ["      }", "    }" + ("," if position + 1 < len(self.graphs) else "")]
        return "\n".join([*lines, "  }", "}"]) + "\n"
