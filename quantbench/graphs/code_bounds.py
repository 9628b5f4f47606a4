"""Bounds on codes instead of on real numbers. Rounding keeps the order: Q(min(x, b)) = min(Q(x), Q(b)).

ONNX Runtime fuses a Relu or a Clip with a scalar bound into an integer operation, but no Min with a bound per channel.
Min of 8-bit codes it has, so that what stands between two integer operations stays in integers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, only_user

__all__ = ["bound_codes", "drop_bounds"]


def bound_codes(model: ir.Model) -> ir.Model:
    """Move every Min by a constant behind the QuantizeLinear to 8 bits that alone reads it; drop it if it cuts no code.

    Requires: constants are initializers; scales and zero points per tensor.
    Ensures: the same codes as before.
    """
    graph = model.graph
    for bounded, quantize, scale, zero_point in _quantized(graph):
        if bounded.op_type != "Min" or zero_point.dtype.itemsize != 1:
            continue
        bound = constant(bounded.inputs[1]) if len(bounded.inputs) == 2 else None
        if bound is None:
            continue
        limits = np.iinfo(zero_point.dtype)
        codes = (np.rint(bound / scale) + zero_point.astype(np.float32)).clip(limits.min, limits.max)
        quantize.replace_input_with(0, bounded.inputs[0])
        if np.any(codes < limits.max):
            _insert(graph, quantize, bounded.name or "", codes.astype(zero_point.dtype))
        graph.remove(bounded, safe=True)
    return model


def drop_bounds(model: ir.Model) -> ir.Model:
    """Take away every Relu and Clip whose bounds are the first and the last code of the QuantizeLinear that alone reads
    it: the codes end there anyway.

    Requires: constants are initializers; scales and zero points per tensor.
    Ensures: the same codes as before.
    """
    graph = model.graph
    for bounded, quantize, scale, zero_point in _quantized(graph):
        bounds = _bounds(bounded)
        if bounds is None:
            continue
        limits = np.iinfo(zero_point.dtype)
        low, high = np.rint(np.asarray(bounds, np.float32) / scale) + zero_point.astype(np.float32)
        if low <= limits.min and high >= limits.max:
            quantize.replace_input_with(0, bounded.inputs[0])
            graph.remove(bounded, safe=True)
    return model


def _quantized(graph: ir.Graph) -> Iterator[tuple[ir.Node, ir.Node, np.ndarray, np.ndarray]]:
    """(a node, the QuantizeLinear that alone reads its output, that one's scale and zero point, both of a tensor)."""
    for quantize in list(graph):
        if quantize.op_type != "QuantizeLinear" or quantize.domain != "":
            continue
        source = quantize.inputs[0]
        made = None if source is None else source.producer()
        scale, zero_point = (constant(value) for value in quantize.inputs[1:3])
        if source is None or made is None or scale is None or zero_point is None or scale.ndim:
            continue
        if only_user(source) is quantize:
            yield made, quantize, scale, zero_point


def _bounds(node: ir.Node) -> tuple[float, float] | None:
    """What a Relu or a Clip between constants keeps to; None for any other node."""
    if node.domain != "":
        return None
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type != "Clip":
        return None
    given = [None if value is None else constant(value) for value in (*node.inputs[1:], None, None)][:2]
    if any(bound is None and value is not None for bound, value in zip(given, node.inputs[1:], strict=False)):
        return None
    low, high = given
    return -np.inf if low is None else float(low), np.inf if high is None else float(high)


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
