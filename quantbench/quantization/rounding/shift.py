"""What a bias has to be given for the errors of the weights beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.affine import dequantize
from quantbench.quantization.placement import WeightUse
from quantbench.quantization.rounding.matrix import MatrixLayout
from quantbench.quantization.writing import array_of

__all__ = ["bias_shift", "has_its_own_bias"]

Array = NDArray[Any]


def has_its_own_bias(model: ir.Model, use: WeightUse) -> bool:
    """Whether a bias is there, and read by one operation alone."""
    return use.added is not None and len(model.graph.initializers[use.added].uses()) == 1


def bias_shift(
    model: ir.Model,
    node: ir.Node,
    name: str,
    weight: QuantizedTensor,
    use: WeightUse,
    mean_exact: Array,
    mean_rounded: Array,
) -> Array:
    """What keeps the means of the output channels (Nagel et al., "Data-Free Quantization Through Weight Equalization
    and Bias Correction", ICCV 2019, section 4.2).

    Args:
        model: a prepared graph.
        node, use: what reads the weight `name`.
        weight: the rounded one.
        mean_exact, mean_rounded: what the weight's matrices are multiplied by, in the mean over the output positions,
            in the exact and in the rounded graph: (groups, columns) float64.

    Returns:
        Shape (channels,), float64.
    """
    layout = MatrixLayout(weight.codes.shape, use.channel_axis, len(mean_exact))
    rounded = dequantize(weight)
    shift = _product(layout.matrix(array_of(model, name) - rounded), mean_exact)
    if mean_rounded is not mean_exact:
        shift += _product(layout.matrix(rounded), mean_exact - mean_rounded)
    factor = 1.0
    if node.op_type == "Gemm":
        factor = node.attributes.get_float("alpha", 1.0) / node.attributes.get_float("beta", 1.0)
    return np.asarray(shift.reshape(-1) * factor)


def _product(matrix: Array, mean: Array) -> Array:
    """(groups, rows, columns) by (groups, columns) to (groups, rows), in float64; the order of the sums is fixed, as it
    would not be in a matrix product."""
    product: Array = np.einsum("grc,gc->gr", matrix, mean, dtype=np.float64)
    return product
