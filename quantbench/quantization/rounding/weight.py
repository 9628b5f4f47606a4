"""Round one weight: from the plan and the moments of its inputs to a problem, and from the solution to codes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
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

__all__ = ["Method", "aims", "round_weight"]

Array = NDArray[Any]

_DAMPING = 0.01
"""Share of the mean second moment that is added to each at least, so that inputs that never vary do no harm."""

_ROWS = 1024
"""Rows that are moved at once, which bounds the memory that this takes."""


@dataclass(frozen=True)
class Method:
    """A way of rounding weights.

    Attributes:
        round: solves the problem of one weight.
        reads_inputs: whether it wants the second moments of the weight's inputs.
    """

    round: Rounder
    reads_inputs: bool = True


def aims(model: ir.Model, uses: Mapping[str, WeightUse], moments: Moments) -> tuple[dict[str, Array], Moments]:
    """What weights that read the same inputs should come near to, once they are rounded.

    They have the least squared error with the inputs of the rounded graph: they make up for what came before. Source:
    Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration", ICML 2025, whose objective
    |W·X − Q·R|² has its least value at Q = W + W·E[(X − R)·Rᵀ]·H⁻¹.

    Args:
        model: a prepared graph.
        uses: the weights and what reads them.
        moments: of their inputs; used up, because its matrices are large.

    Returns:
        (for each weight (groups, rows, columns) float64, the moments to round by: without `cross`, and damped).
    """
    groups = len(moments.hessian)
    found = {
        name: MatrixLayout(weight.shape, use.channel_axis, groups).matrix(weight).astype(np.float64)
        for (name, use), weight in zip(uses.items(), (array_of(model, name) for name in uses), strict=True)
    }
    if moments.hessian.size:
        _damp(moments)
    if moments.cross.any():
        for group in range(groups):
            factors = factorize(moments.hessian[group])
            for weight in found.values():
                _move(weight[group], moments.cross[group], *factors)
    return found, replace(moments, cross=np.zeros((groups, 0, 0)))


def round_weight(
    model: ir.Model, plan: GraphPlan, name: str, use: WeightUse, method: Method, aim: Array, moments: Moments, seed: int
) -> QuantizedTensor:
    """The codes of one weight.

    Args:
        model: a prepared graph.
        plan: of this graph; says in which format and granularity.
        name, use: the weight and what reads it.
        method: how.
        aim, moments: of `aims`.
        seed: of random choices.
    """
    nearest = round_weight_to_nearest(model, plan, name, use)
    if not method.reads_inputs:
        return nearest
    affine, tensor = nearest.affine, plan.tensors[name]
    layout = MatrixLayout(nearest.codes.shape, use.channel_axis, len(moments.hessian))
    smallest, largest = integer_range(tensor.format)
    middle = (smallest + largest + 1) // 2
    multiples = LARGEST_MULTIPLE if affine.channel_axis is not None else 0
    segments = layout.segments(tensor.axis, tensor.block_size)
    shape = (*layout.matrix_shape[:2], int(segments.max(initial=0)) + 1)
    least = least_scales(model, plan, name, use).reshape(shape[:2])
    solution = method.round(
        Problem(
            weight=aim,
            hessian=moments.hessian,
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


def _damp(moments: Moments) -> None:
    """Add to the second moments, on the diagonal, what they are not known by.

    The best linear estimate of the moments at large, from those of few samples, is a mixture of these with their mean
    on the diagonal (Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004).
    """
    hessian = moments.hessian
    mean = np.diagonal(hessian, axis1=1, axis2=2).mean(axis=1)
    share = np.maximum(moments.shrinkage / (1 - moments.shrinkage), _DAMPING)
    index = np.arange(hessian.shape[1])
    hessian[:, index, index] += np.where(mean > 0, share * mean, 1.0)[:, np.newaxis]


def _move(weight: Array, cross: Array, feedback: Array, diagonal: Array) -> None:
    """Add W·E[(X − R)·Rᵀ]·H⁻¹ to the rows of a weight, in place, for the factors of H."""
    for start in range(0, len(weight), _ROWS):
        rows = weight[start : start + _ROWS]
        rows += solve(multiply(rows, cross), feedback, diagonal)
