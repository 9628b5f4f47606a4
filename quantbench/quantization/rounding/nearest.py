"""Round each weight to the nearest code."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import LARGEST_MULTIPLE, QuantizedTensor
from quantbench.quantization.affine import integer_range, quantize, symmetric_affine
from quantbench.quantization.placement import WeightUse, weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan
from quantbench.quantization.rounding.problem import Problem, Solution
from quantbench.quantization.transforms import smallest_error_amplitude
from quantbench.quantization.writing import activation_affines, array_of, is_integer

__all__ = ["least_scales", "nearest", "round_to_nearest", "round_weight_to_nearest"]

Array = NDArray[Any]

_BIAS_CODES = 2.0**30
"""Largest code of a bias: the accumulator keeps room for the products."""


def nearest(problem: Problem) -> Solution:
    """The codes nearest to the weights, which the problem knows already."""
    return problem.nearest


def round_to_nearest(model: ir.Model, plan: GraphPlan) -> dict[str, QuantizedTensor]:
    """The nearest codes of every weight that the plan puts into integers, by initializer; takes no samples."""
    uses = weight_uses(model)
    names = [name for name, tensor in plan.of_role("weight").items() if is_integer(tensor)]
    return {name: round_weight_to_nearest(model, plan, name, uses[name]) for name in names}


def round_weight_to_nearest(model: ir.Model, plan: GraphPlan, name: str, use: WeightUse) -> QuantizedTensor:
    """The nearest codes of one weight."""
    weight, tensor = array_of(model, name), plan.tensors[name]
    amplitude = np.maximum(_amplitude(weight, tensor), _needed(model, plan, name, use))
    affine = symmetric_affine(amplitude, tensor.format, tensor.axis, tensor.block_size, use.channel_axis)
    return QuantizedTensor(quantize(weight, affine), affine)


def least_scales(model: ir.Model, plan: GraphPlan, name: str, use: WeightUse) -> Array:
    """The scales of a weight's channels, float64, below which their biases would not fit the accumulator.

    A bias is a code of the accumulator, whose step is source scale × weight scale: where that is too small for the
    bias to fit, the weight scale has to grow. A channel of zeros alone gets the step that its bias needs.
    """
    bias_plan = plan.tensors.get(use.bias or "")
    if use.bias is None or bias_plan is None or bias_plan.role != "bias":
        return np.zeros(array_of(model, name).shape[use.channel_axis])
    bias: Array = np.abs(array_of(model, use.bias).reshape(-1).astype(np.float64))
    return bias / (_BIAS_CODES * float(activation_affines(plan)[use.source].scale))


def _needed(model: ir.Model, plan: GraphPlan, name: str, use: WeightUse) -> Array:
    """The amplitudes that belong to the least scales, so that they broadcast with those of the weight."""
    tensor = plan.tensors[name]
    smallest, largest = integer_range(tensor.format)
    needed = least_scales(model, plan, name, use) * ((largest - smallest) // 2)
    if tensor.axis is None:
        return np.asarray(needed.max(initial=0.0))
    if not tensor.block_size:
        return needed
    along = [1] * array_of(model, name).ndim
    along[use.channel_axis] = -1
    return (needed * LARGEST_MULTIPLE).reshape(along)


def _amplitude(weight: Array, tensor: TensorPlan) -> Array:
    """What the largest code stands for, in the shape of the scales."""
    if tensor.amplitude == "mse":
        smallest, largest = integer_range(tensor.format)
        return smallest_error_amplitude(weight, (largest - smallest) // 2, tensor.axis, tensor.block_size)
    magnitude = np.abs(weight)
    if tensor.axis is None:
        return np.asarray(magnitude.max(initial=0.0))
    if not tensor.block_size:
        others = tuple(axis for axis in range(weight.ndim) if axis != tensor.axis)
        return np.asarray(magnitude.max(axis=others, initial=0.0))
    starts = np.arange(0, weight.shape[tensor.axis], tensor.block_size)
    return np.maximum.reduceat(magnitude, starts, axis=tensor.axis)
