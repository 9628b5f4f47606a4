"""Which scales a rounding method may choose from."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.quantization.affine import short_step
from quantbench.quantization.rounding.problem import Problem, segment_amplitudes

__all__ = ["candidate_scales"]

Array = NDArray[Any]


def candidate_scales(problem: Problem, fractions: Array) -> Array:
    """The scales at which the largest codes stand for fractions of the largest weight of each segment.

    Args:
        problem: says what scales have to obey.
        fractions: above 0.

    Returns:
        (groups, rows, segments, fractions) float32.
    """
    amplitudes = segment_amplitudes(problem)
    if problem.one_scale:
        amplitudes = np.broadcast_to(amplitudes.max(initial=0.0), amplitudes.shape)
    wanted = amplitudes[..., np.newaxis] * fractions / problem.highest
    least = np.maximum(problem.least_scale, 1e-30)
    if problem.one_scale:
        least = np.full_like(least, least.max(initial=1e-30))
    least = least[:, :, np.newaxis, np.newaxis]
    if not problem.multiples:
        return np.maximum(wanted, least).astype(np.float32)
    top = np.maximum(amplitudes.max(axis=2, keepdims=True) / problem.highest, least[..., 0])
    step = short_step(top / problem.multiples)[..., np.newaxis]
    multiples = np.clip(np.ceil(wanted / step * (1 - 1e-6)), 1, problem.multiples)
    largest = amplitudes == amplitudes.max(axis=2, keepdims=True)
    multiples = np.where(largest[..., np.newaxis], problem.multiples, multiples)
    return (multiples * step).astype(np.float32)
