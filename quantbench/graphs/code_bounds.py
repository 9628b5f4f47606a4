"""Bounds per channel on codes instead of on real numbers: what stands between two integer operations stays in integers.

ONNX Runtime fuses a Relu or a Clip with a scalar bound into an integer operation, but no Min with a bound per channel.
Min of 8-bit codes it has, and rounding keeps the order: Q(min(x, b)) = min(Q(x), Q(b)).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, only_user

__all__ = ["bound_codes"]


def bound_codes(model: ir.Model) -> ir.Model:
    """Move every Min by a constant behind the QuantizeLinear to 8 bits that alone reads it; drop it if it cuts no code.

    Requires: constants are initializers; scales and zero points per tensor.
    Ensures: the same codes as before.
    """
    graph = model.graph
    for quantize in list(graph):
        if quantize.op_type != "QuantizeLinear" or quantize.domain != "":
            continue
        source = quantize.inputs[0]
        bounded = None if source is None else source.producer()
        if source is None or bounded is None or bounded.op_type != "Min" or only_user(source) is not quantize:
            continue
        bound = constant(bounded.inputs[1]) if len(bounded.inputs) == 2 else None
        scale, zero_point = (constant(value) for value in quantize.inputs[1:3])
        if bound is None or scale is None or zero_point is None or scale.ndim or zero_point.dtype.itemsize != 1:
            continue
        limits = np.iinfo(zero_point.dtype)
        codes = (np.rint(bound / scale) + zero_point.astype(np.float32)).clip(limits.min, limits.max)
        quantize.replace_input_with(0, bounded.inputs[0])
        if np.any(codes < limits.max):
            _insert(graph, quantize, bounded.name or "", codes.astype(zero_point.dtype))
        graph.remove(bounded, safe=True)
    return model


def _insert(graph: ir.Graph, quantize: ir.Node, name: str, codes: np.ndarray) -> None:
    """Let what reads the codes read their minimum with `codes`."""
    source = quantize.outputs[0]
    bound = add_initializer(graph, f"{name}_codes", codes)
    node = ir.Node("", "Min", [source, bound], name=f"{name}_codes")
    result = node.outputs[0]
    result.name, result.shape, result.type = f"{source.name}_bounded", source.shape, source.type
    source.replace_all_uses_with(result)
    node.replace_input_with(0, source)
    graph.insert_after(quantize, node)
