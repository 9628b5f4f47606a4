"""Turn the hard-sigmoid behind a linear operation into a bound: the slope and the shift belong to the operation."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, only_user, replace_value

__all__ = ["bound_sigmoid"]

_LINEAR = {"Conv", "ConvTranspose", "Gemm"}


def bound_sigmoid(model: ir.Model) -> ir.Model:
    """Write HardSigmoid(y) = max(0, min(1, α·y + β)) as Mul, Add and Clip, where y comes from a linear operation alone.

    The scale and shift then fold into the operation (`fold_affine`), and the Clip is one that kernels take along.

    Requires: opset 11 or later; constants are initializers.
    Ensures: no Conv, ConvTranspose or Gemm with constant weights is followed, alone, by HardSigmoid.
    """
    graph = model.graph
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "HardSigmoid" and node.domain == "" else None
        before = None if source is None else source.producer()
        if source is None or before is None or before.op_type not in _LINEAR or only_user(source) is not node:
            continue
        if constant(before.inputs[1]) is None or source.dtype != ir.DataType.FLOAT:
            continue
        _write_out(graph, node, source)
    return model


def _write_out(graph: ir.Graph, node: ir.Node, source: ir.Value) -> None:
    slope, shift = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    value = source
    for op_type, numbers in (("Mul", [slope]), ("Add", [shift]), ("Clip", [0.0, 1.0])):
        name = f"{node.name}_{op_type.lower()}"
        constants = [add_initializer(graph, f"{name}_by", np.asarray(number, np.float32)) for number in numbers]
        written = ir.Node("", op_type, [value, *constants], name=name)
        value = written.outputs[0]
        value.name, value.shape, value.type = name, source.shape, source.type
        graph.insert_before(node, written)
    kept = node.outputs[0].name
    replace_value(graph, node.outputs[0], value)
    graph.remove(node, safe=True)
    value.name = kept
