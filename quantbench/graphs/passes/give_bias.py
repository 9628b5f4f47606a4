"""Give every linear operation a bias of its own, so that later steps have a place to put shifts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import constant, replace_initializer_input

__all__ = ["give_bias"]

Array = NDArray[Any]


def give_bias(model: ir.Model) -> ir.Model:
    """Add a bias of zeros to each Conv, ConvTranspose and Gemm that has constant float32 weights and no bias.

    A constant bias that several nodes share, or that a Gemm stretches over its channels, is copied out.

    Requires: constants are initializers.
    Ensures: the bias of such a node is an initializer of shape (channels,) that nothing else reads, unless it is
    computed or varies along the rows of a Gemm.
    """
    for node in model.graph:
        if node.domain != "" or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        weight = constant(node.inputs[1])
        if weight is None or weight.dtype != np.float32:
            continue
        channels = _channels(node, weight)
        old = node.inputs[2] if len(node.inputs) > 2 else None
        bias = np.zeros(channels, np.float32) if old is None else constant(old)
        if bias is None or (old is not None and bias.shape == (channels,) and len(old.uses()) == 1):
            continue
        if bias.size == 1 or bias.size == channels == bias.shape[-1]:
            own = np.broadcast_to(bias.reshape(-1), (channels,))
            replace_initializer_input(model.graph, node, 2, own, f"{node.name}_bias")
    return model


def _channels(node: ir.Node, weight: Array) -> int:
    """Number of output channels."""
    if node.op_type == "ConvTranspose":
        return int(weight.shape[1]) * (node.attributes.get_int("group", 1) or 1)
    return int(weight.shape[1] if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else len(weight))
