"""Give every linear operation a bias, so that later steps have a place to put shifts."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from quantbench.graphs.edit import add_initializer, constant

__all__ = ["give_bias"]


def give_bias(model: ir.Model) -> ir.Model:
    """Add a bias of zeros to each Conv, ConvTranspose and Gemm that has constant float32 weights and no bias.

    Requires: constants are initializers.
    Ensures: these operations have three inputs.
    """
    for node in model.graph:
        if node.domain != "" or node.op_type not in ("Conv", "ConvTranspose", "Gemm"):
            continue
        weight = constant(node.inputs[1])
        if weight is None or weight.dtype != np.float32 or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        if node.op_type == "ConvTranspose":
            channels = weight.shape[1] * (node.attributes.get_int("group", 1) or 1)
        else:
            channels = weight.shape[1] if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else len(weight)
        node.resize_inputs(3)
        node.replace_input_with(2, add_initializer(model.graph, f"{node.name}_bias", np.zeros(channels, np.float32)))
    return model
