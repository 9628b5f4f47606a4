"""Hard-swish on integer codes: a bound and a product, both of which have integer kernels.

x·max(0, min(6, x + 3))/6 has no integer kernel in ONNX Runtime. Below −3 it is 0, so codes of x need not go further
down; when they start at −3 and 3 is k steps, the codes counted from the lowest are themselves codes of (x + 3)/6 with a
sixth of the scale, and their minimum with 2k is exactly the gate.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, drop_unused
from quantbench.graphs.qdq import Affine

__all__ = ["hard_swish_affine", "hard_swish_codes"]

_CUT = 3
"""Hard-swish is 0 from −3 down and x from 3 up."""


def hard_swish_affine(affine: Affine) -> Affine:
    """Codes of 8 bits for what hard-swish alone reads: from −3 up to where those of `affine` end, 3 in whole steps."""
    smallest, largest = _ends(affine.format)
    high = max(float(affine.scale) * (largest - int(affine.zero_point)), 0.0)
    whole = max(int(_CUT * (largest - smallest) / (high + _CUT) + 1e-3), 1)
    return Affine(affine.format, np.asarray(np.float32(_CUT / whole)), np.asarray(smallest + whole, np.int64))


def hard_swish_codes(model: ir.Model) -> ir.Model:
    """Write HardSwish between DequantizeLinear and QuantizeLinear as Min of codes and Mul.

    Requires: opset 14 or later; constants are initializers.
    Ensures: the same real numbers, to within float32's rounding, for codes that start at −3 and have 3 in whole steps;
    HardSwish of others stays.
    """
    graph = model.graph
    for node in list(graph):
        if node.op_type != "HardSwish" or node.domain != "" or node.inputs[0] is None:
            continue
        dequantize = node.inputs[0].producer()
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        scale, zero_point = (constant(value) for value in dequantize.inputs[1:3])
        if scale is None or scale.ndim or zero_point is None or zero_point.dtype.itemsize != 1:
            continue
        smallest, largest = np.iinfo(zero_point.dtype).min, np.iinfo(zero_point.dtype).max
        whole = int(zero_point) - smallest
        if whole and np.float32(_CUT / whole) == scale:
            _write(graph, node, dequantize, float(scale), np.asarray(smallest, zero_point.dtype), whole, largest)
    return model


def _write(
    graph: ir.Graph,
    node: ir.Node,
    dequantize: ir.Node,
    scale: float,
    smallest: np.ndarray,
    whole: int,
    largest: int,
) -> None:
    codes, real = dequantize.inputs[0], node.inputs[0]
    assert codes is not None and real is not None
    name = node.name or ""
    nodes = []
    if (upper := int(smallest) + 2 * whole) < largest:
        bound = add_initializer(graph, f"{name}_bound", np.asarray([upper], smallest.dtype))
        nodes.append(ir.Node("", "Min", [codes, bound], name=f"{name}_codes"))
    gate = nodes[0].outputs[0] if nodes else codes
    parameters = [
        add_initializer(graph, f"{name}_gate_scale", np.asarray(np.float32(scale / (2 * _CUT)))),
        add_initializer(graph, f"{name}_gate_zero_point", smallest),
    ]
    nodes.append(ir.Node("", "DequantizeLinear", [gate, *parameters], name=f"{name}_gate"))
    nodes.append(ir.Node("", "Mul", [real, nodes[-1].outputs[0]], name=name))
    for each, like in zip(nodes, [codes, real, node.outputs[0]][-len(nodes) :], strict=True):
        each.outputs[0].name, each.outputs[0].shape, each.outputs[0].type = each.name, like.shape, like.type
    output = node.outputs[0]
    product = nodes[-1].outputs[0]
    graph.insert_before(node, nodes)
    name_before = output.name
    output.replace_all_uses_with(product, replace_graph_outputs=True)
    drop_unused(graph, node)
    product.name = name_before


def _ends(name: str) -> tuple[int, int]:
    return (0, 255) if name == "uint8" else (-128, 127)
