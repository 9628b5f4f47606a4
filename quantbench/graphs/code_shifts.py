"""Scaling and shifting by numbers for nothing: codes of y read with other parameters are codes of a·y + c."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant, only_user
from quantbench.graphs.qdq import Affine

__all__ = ["scaled_and_shifted", "shift_codes", "shifted_affine"]


def scaled_and_shifted(node: ir.Node, source: ir.Value | None) -> tuple[float, float] | None:
    """(a, c) where `node` computes a·source + c with numbers a > 0 and c; None where it does not."""
    if node.domain != "" or node.op_type not in ("Add", "Mul") or source is None or source.is_initializer():
        return None
    others = [value for value in node.inputs if value is not source]
    array = constant(others[0]) if len(others) == 1 else None
    if array is None or array.size != 1 or array.dtype != np.float32:
        return None
    if source.shape is None or source.shape.rank() < array.ndim:  # else the result has more axes
        return None
    number = float(array.reshape(()))
    if node.op_type == "Add":
        return 1.0, number
    return (number, 0.0) if number > 0 else None


def shifted_affine(affine: Affine, shift: float) -> Affine:
    """`affine` widened so that `shift` is whole steps, where it is one step or more."""
    scale = float(affine.scale)
    if abs(shift) < scale:
        return affine
    smallest, largest = np.iinfo(affine.format).min, np.iinfo(affine.format).max
    exact = np.float32(abs(shift) / np.floor(abs(shift) / scale))
    zero_point = np.clip(
        np.rint(smallest + (int(affine.zero_point) - smallest) * scale / float(exact)), smallest, largest
    )
    return Affine(affine.format, np.asarray(exact), np.asarray(int(zero_point), np.int64))


def shift_codes(model: ir.Model) -> ir.Model:
    """Let a QuantizeLinear take in the Add and Mul by a number before it, where its zero point stays a code.

    Q(a·y + c; s, z) = Q(y; s/a, z + c/s) for whole c/s.

    Requires: constants are initializers.
    Ensures: the same codes, but where float32's rounding of a·y + c falls between two.
    """
    graph = model.graph
    for quantize in list(graph):
        while quantize.op_type == "QuantizeLinear" and quantize.domain == "" and _absorb(graph, quantize):
            pass
    return model


def _absorb(graph: ir.Graph, quantize: ir.Node) -> bool:
    result = quantize.inputs[0]
    node = None if result is None else result.producer()
    if result is None or node is None or only_user(result) is not quantize:
        return False
    scale, zero_point = (constant(value) for value in quantize.inputs[1:3])
    if scale is None or scale.ndim or zero_point is None or zero_point.dtype.kind not in "iu":
        return False
    for source in node.inputs:
        found = scaled_and_shifted(node, source)
        if found is None:
            continue
        factor, shift = found
        steps = shift / float(scale)
        moved = int(zero_point) + round(steps)
        limits = np.iinfo(zero_point.dtype)
        if abs(steps - round(steps)) > 1e-3 or not limits.min <= moved <= limits.max:
            return False
        quantize.replace_input_with(0, source)
        name = f"{node.name}_from"
        parameters = (np.asarray(np.float32(float(scale) / factor)), np.asarray(moved, zero_point.dtype))
        for index, (what, array) in enumerate(zip(("scale", "zero_point"), parameters, strict=True), 1):
            quantize.replace_input_with(index, add_initializer(graph, f"{name}_{what}", array))
        graph.remove(node, safe=True)
        return True
    return False
