"""Shift biases so that rounding does not move the mean of any output channel.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.2,
with the expectations measured on calibration samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.calibration import watch
from quantbench.datasets import Samples
from quantbench.graphs.edit import add_initializer
from quantbench.graphs.qdq import Affine, QuantizedTensor, round_trip
from quantbench.quantization.affine import dequantize
from quantbench.quantization.placement import WeightUse, weight_uses
from quantbench.quantization.plan import Plan
from quantbench.quantization.writing import activation_affines
from quantbench.tasks import Task

__all__ = ["bias_correction"]

Array = NDArray[Any]


def bias_correction(
    models: Mapping[str, ir.Model],
    plan: Plan,
    weights: Mapping[str, Mapping[str, QuantizedTensor]],
    task: Task,
    samples: Samples,
    count: int,
) -> dict[str, dict[str, Array]]:
    """What to add to each bias: the mean over samples of the exact output minus the rounded one, per channel.

    Each operation is looked at by itself: its rounded version gets the exact graph's input, rounded as the plan says,
    and the rounded weights. One pass over `count` samples.

    Args:
        models: prepared graphs by name; left as they are.
        plan: the plan of all graphs.
        weights: the integer weights, by graph and initializer.
        task, samples, count: what runs through the graphs.

    Returns:
        Shifts of shape (channels,), float64, by graph and name of the bias initializer.
    """
    probes = {
        graph: _probe(model, weights.get(graph, {}), activation_affines(plan.graphs[graph]))
        for graph, model in models.items()
    }
    means = {graph: {bias: _RowMean() for bias in biases.values()} for graph, (_, biases) in probes.items()}
    watched = {
        graph: {tensor: means[graph][bias].add for tensor, bias in biases.items()}
        for graph, (_, biases) in probes.items()
    }
    watch({graph: model for graph, (model, _) in probes.items()}, watched, task, samples, count, "correcting biases")
    return {graph: {bias: mean.value() for bias, mean in named.items()} for graph, named in means.items()}


class _RowMean:
    """The mean of rows, batch after batch."""

    def __init__(self) -> None:
        self._total: Array | float = 0.0
        self._rows = 0

    def add(self, rows: Array) -> None:
        self._total = self._total + rows.sum(axis=0, dtype=np.float64)
        self._rows += len(rows)

    def value(self) -> Array:
        return np.asarray(self._total / max(self._rows, 1))


def _probe(
    model: ir.Model, weights: Mapping[str, QuantizedTensor], activations: Mapping[str, Affine]
) -> tuple[ir.Model, dict[str, str]]:
    """The exact graph, with each operation's rounded version beside it.

    Returns:
        The graph, and the tensors of shape (samples, channels) that hold exact minus rounded outputs, with the bias
        that each belongs to.
    """
    probe = model.clone()
    graph = probe.graph
    nodes = {node.name: node for node in graph}
    rounded_inputs: dict[str, ir.Value] = {}
    biases: dict[str, str] = {}
    for name, use in weight_uses(model).items():
        if name not in weights or use.added is None:
            continue
        node = nodes[use.node]
        source = node.inputs[0]
        assert source is not None
        if use.source in activations and use.source not in rounded_inputs:
            rounded_inputs[use.source] = round_trip(graph, source, activations[use.source])
        weight = add_initializer(graph, f"{name}_rounded", dequantize(weights[name]))
        inputs = [rounded_inputs.get(use.source, source), weight, *node.inputs[2:]]
        copy = ir.Node("", node.op_type, inputs, node.attributes.values(), name=f"{node.name}_rounded")
        difference = ir.Node("", "Sub", [node.outputs[0], copy.outputs[0]], name=f"{node.name}_difference")
        rows = _reduce_to_rows(graph, difference.outputs[0], node, use)
        if rows is None:
            continue
        rows.outputs[0].name = f"{node.name}_shift"
        rows.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
        graph.extend([copy, difference, rows])
        biases[f"{node.name}_shift"] = use.added
    return probe, biases


def _reduce_to_rows(graph: ir.Graph, difference: ir.Value, node: ir.Node, use: WeightUse) -> ir.Node | None:
    """Average over everything but the samples (axis 0) and the channels."""
    shape = node.outputs[0].shape
    if shape is None:
        return None
    last = shape.rank() - 1
    channel = last if use.op_type in ("Gemm", "MatMul") else 1
    axes = np.asarray([axis for axis in range(1, last + 1) if axis != channel], np.int64)
    inputs = [difference, add_initializer(graph, f"{node.name}_axes", axes)]
    attributes = [ir.AttrInt64("keepdims", 0), ir.AttrInt64("noop_with_empty_axes", 1)]
    return ir.Node("", "ReduceMean", inputs, attributes, name=f"{node.name}_rows")
