"""Scales and zero points from ranges, and the ends of integer formats."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.graphs.qdq import LARGEST_MULTIPLE, Affine, QuantizedTensor, integer_bits

__all__ = [
    "activation_affine",
    "code_type",
    "dequantize",
    "integer_range",
    "quantize",
    "short_step",
    "symmetric_affine",
]

Array = NDArray[Any]

_FOUR_BITS = 15
"""Steps between the codes of a 4-bit format."""
_SHORT = 16
"""Bits of a channel's scale under blocks: with 4 more of the multiple and 4 of the code, float32 holds the product."""


def integer_range(name: str) -> tuple[int, int]:
    """The smallest and largest code of an integer format such as int4 or uint16."""
    bits = integer_bits(name)
    return (0, (1 << bits) - 1) if name.startswith("u") else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def activation_affine(low: float, high: float, name: str) -> Affine:
    """Asymmetric per-tensor parameters that hold 0 exactly and everything in [low, high] to within half a step.

    The step is the range, with 0 in it, over the number of steps between the codes; rounding the zero point then
    moves the range by up to half a step. A range on one side of 0 is not moved, and no code lies beyond its end:
    ONNX Runtime drops a Clip only when the codes stay within its bounds.
    """
    smallest, largest = integer_range(name)
    low, high = float(np.float32(min(low, 0.0))), float(np.float32(max(high, 0.0)))
    steps = largest - smallest
    scale = np.float32(max((high - low) / steps, 1e-30))
    while scale > 1e-30 and not (low and high) and scale * np.float32(steps) > high - low:
        scale = np.nextafter(scale, np.float32(0))
    zero_point = int(np.clip(np.rint(smallest - low / float(scale)), smallest, largest))
    return Affine(name, np.asarray(scale), np.asarray(zero_point, np.int64))


def symmetric_affine(
    amplitude: Array, name: str, axis: int | None, block_size: int = 0, channel_axis: int | None = None
) -> Affine:
    """Symmetric parameters for weights of magnitudes up to `amplitude` (the shape the scales shall have).

    The codes run from −n to n with n the largest code, so that no value is cut. An unsigned format has its zero
    point in the middle.

    Args:
        channel_axis: of the output channels. Blocks of codes of at most 4 bits then have scales that are 1 to
            `LARGEST_MULTIPLE` times a scale of their channel: such weights are 8-bit weights per channel, too
            (`graphs.widen`). The channel's scale is short enough for the multiples to be exact in float32.
    """
    smallest, largest = integer_range(name)
    middle = (smallest + largest + 1) // 2
    scale = np.maximum(np.asarray(amplitude, np.float64) / (largest - middle), 1e-30).astype(np.float32)
    if not block_size or channel_axis is None or largest - smallest > _FOUR_BITS:
        return Affine(name, scale, np.full(scale.shape, middle), axis, block_size)
    others = tuple(other for other in range(scale.ndim) if other != channel_axis)
    channel = short_step(scale.max(axis=others, keepdims=True).astype(np.float64) / LARGEST_MULTIPLE)
    multiples = np.clip(np.ceil(scale / channel), 1, LARGEST_MULTIPLE)
    scale = (multiples * channel).astype(np.float32)
    return Affine(name, scale, np.full(scale.shape, middle), axis, block_size, channel_axis)


def short_step(exact: Array) -> Array:
    """The step of a channel with blocks: not below `exact` (float64), with few enough bits for its multiples."""
    mantissa, exponent = np.frexp(exact)
    return np.asarray(np.ldexp(np.ceil(np.ldexp(mantissa, _SHORT)), exponent - _SHORT))


def quantize(values: Array, affine: Affine) -> Array:
    """Round real values to the nearest codes, half to even, and clamp (ONNX QuantizeLinear). Returns `code_type`s."""
    smallest, largest = integer_range(affine.format)
    scale, zero_point = (_expand(part, values.shape, affine) for part in (affine.scale, affine.zero_point))
    codes: Array = np.rint(values.astype(np.float32) / scale) + zero_point
    return codes.clip(smallest, largest).astype(code_type(affine.format))


def code_type(name: str) -> np.dtype[Any]:
    """The numpy type that codes of an integer format are held in: of 8, 16 or 32 bits, the fewest that hold them."""
    bits = min(width for width in (8, 16, 32) if width >= integer_bits(name))
    return np.dtype(f"uint{bits}" if name.startswith("u") else f"int{bits}")


def dequantize(tensor: QuantizedTensor) -> Array:
    """The real values of codes, float32 (ONNX DequantizeLinear)."""
    affine = tensor.affine
    scale, zero_point = (_expand(part, tensor.codes.shape, affine) for part in (affine.scale, affine.zero_point))
    values: Array = ((tensor.codes - zero_point) * scale).astype(np.float32)
    return values


def _expand(parameter: Array, shape: tuple[int, ...], affine: Affine) -> Array:
    """A scale or zero point shaped so that it broadcasts over a tensor of `shape`."""
    parameter = np.asarray(parameter)
    if affine.axis is None or parameter.ndim == 0:
        return parameter
    if affine.block_size:
        repeated = np.repeat(parameter, affine.block_size, axis=affine.axis)
        return np.take(repeated, np.arange(shape[affine.axis]), axis=affine.axis)
    along = [1] * len(shape)
    along[affine.axis] = -1
    return parameter.reshape(along)
