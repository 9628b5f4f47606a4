"""Round one weight: from the plan and the moments of its inputs to a problem, and from the solution to codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.qdq import LARGEST_MULTIPLE, Affine, QuantizedTensor
from quantbench.quantization.affine import code_type, integer_range
from quantbench.quantization.placement import WeightUse
from quantbench.quantization.plan import GraphPlan, TensorPlan
from quantbench.quantization.rounding.factor import factorize, multiply, solve
from quantbench.quantization.rounding.matrix import MatrixLayout
from quantbench.quantization.rounding.moments import Moments
from quantbench.quantization.rounding.nearest import least_scales, round_weight_to_nearest
from quantbench.quantization.rounding.problem import Problem, Rounder, Solution
from quantbench.quantization.writing import array_of

__all__ = ["Method", "round_weight"]

Array = NDArray[Any]

_DAMPING = 0.01
"""Share of the mean second moment that is added to each at least, so that inputs that never vary do no harm."""


@dataclass(frozen=True)
class Method:
    """A way of rounding weights.

    Attributes:
        round: solves the problem of one weight.
        reads_inputs: whether it wants the second moments of the weight's inputs.
    """

    round: Rounder
    reads_inputs: bool = True


def round_weight(
    model: ir.Model, plan: GraphPlan, name: str, use: WeightUse, method: Method, moments: Moments, seed: int
) -> QuantizedTensor:
    """The codes of one weight.

    Args:
        model: a prepared graph.
        plan: of this graph; says in which format and granularity.
        name, use: the weight and what reads it.
        method: how.
        moments: of the weight's inputs.
        seed: of random choices.
    """
    nearest = round_weight_to_nearest(model, plan, name, use)
    if not method.reads_inputs:
        return nearest
    affine, tensor = nearest.affine, plan.tensors[name]
    layout = MatrixLayout(nearest.codes.shape, use.channel_axis, len(moments.hessian))
    hessian = _damped(moments)
    smallest, largest = integer_range(tensor.format)
    middle = (smallest + largest + 1) // 2
    multiples = LARGEST_MULTIPLE if affine.channel_axis is not None else 0
    segments = layout.segments(tensor.axis, tensor.block_size)
    shape = (*layout.matrix_shape[:2], int(segments.max(initial=0)) + 1)
    least = least_scales(model, plan, name, use).reshape(shape[:2])
    solution = method.round(
        Problem(
            weight=_moved(layout.matrix(array_of(model, name)).astype(np.float64), hessian, moments),
            hessian=hessian,
            segments=segments,
            lowest=smallest - middle if largest - middle < 127 else middle - largest,
            highest=largest - middle,
            least_scale=least * max(multiples, 1),
            nearest=Solution(
                layout.matrix(nearest.codes.astype(np.int32) - middle),
                _scale_matrix(layout, affine, tensor, shape),
            ),
            one_scale=tensor.axis is None,
            multiples=multiples,
            seed=seed,
        )
    )
    scale = layout.scales(solution.scales, tensor.axis, tensor.block_size)
    rounded = Affine(
        tensor.format, scale, np.full(scale.shape, middle), tensor.axis, tensor.block_size, affine.channel_axis
    )
    return QuantizedTensor((layout.tensor(solution.codes) + middle).astype(code_type(tensor.format)), rounded)


def _scale_matrix(layout: MatrixLayout, affine: Affine, tensor: TensorPlan, shape: tuple[int, int, int]) -> Array:
    """The scales of a weight as (groups, rows, segments)."""
    if not tensor.block_size:
        return np.broadcast_to(affine.scale.reshape((1, 1, 1) if tensor.axis is None else (*shape[:2], 1)), shape)
    return MatrixLayout(affine.scale.shape, layout.channel_axis, layout.groups).matrix(affine.scale)


def _damped(moments: Moments) -> Array:
    """The second moments with what they are not known by added on the diagonal.

    The best linear estimate of the moments at large, from those of few samples, is a mixture of these with their mean
    on the diagonal (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004).
    """
    hessian = moments.hessian.copy()
    mean = np.diagonal(hessian, axis1=1, axis2=2).mean(axis=1)
    share = np.maximum(moments.shrinkage / (1 - moments.shrinkage), _DAMPING)
    index = np.arange(hessian.shape[1])
    hessian[:, index, index] += np.where(mean > 0, share * mean, 1.0)[:, np.newaxis]
    return hessian


def _moved(weight: Array, hessian: Array, moments: Moments) -> Array:
    """The weights of least squared error with the inputs of the rounded graph: they make up for what came before.

    Source: Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025, whose
    objective |W·X − Q·R|² has its least value at Q = W + W·E[(X − R)·Rᵀ]·H⁻¹.
    """
    if not moments.cross.any():
        return weight
    moved = np.empty_like(weight)
    for group, rows in enumerate(weight):
        moved[group] = rows + solve(multiply(rows, moments.cross[group]), *factorize(hessian[group]))
    return moved
