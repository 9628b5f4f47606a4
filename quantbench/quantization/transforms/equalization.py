"""Scale channels between linear operations so that each of them makes use of its tensor's one range.

With x = relu(W1 z + b1) and y = W2 x, any s > 0 gives the same y from W1/s, b1/s and W2·s. Source: Nagel et al.,
"Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, section 4.1, which chooses s from
the weights alone. Here the activations count too: a channel's share of its range is the larger of what it takes of W1's
range and of the activation's, so that no scaling trades finer weights for coarser activations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import replace_initializer_input
from quantbench.quantization.transforms.channel_amplitudes import channel_amplitudes
from quantbench.quantization.transforms.channel_groups import ChannelGroup, End, channel_groups
from quantbench.quantization.transforms.clip_bounds import scale_upper_bound

__all__ = ["Equalized", "equalize"]

Array = NDArray[Any]

_SWEEPS = 40
_SETTLED = 1e-3
"""Change of a factor's logarithm below which another sweep over the groups is not worth it."""
_LARGEST = 1e4
"""Factors stay between this and its inverse, so that float32 keeps what they scale."""
_NEGLIGIBLE = 1e-6
"""A channel that takes less of a range than this share is not scaled: there is nothing to gain or to lose."""


@dataclass(frozen=True)
class Equalized:
    """What was scaled against what.

    Attributes:
        makers: names of the nodes whose output channels were divided by the factors.
        readers: names of the nodes whose input channels were multiplied by them.
        smallest, largest: of the factors.
    """

    makers: tuple[str, ...]
    readers: tuple[str, ...]
    smallest: float
    largest: float


def equalize(model: ir.Model, feeds: Sequence[Mapping[str, Array]]) -> tuple[Equalized, ...]:
    """Equalize every group of channels of a graph for one range a tensor.

    The outputs stay the same in real numbers. ReLU6 and other Clips become Relu and a Min with a bound per channel.

    Args:
        model: a prepared graph; changed in place.
        feeds: inputs of the graph on calibration samples, one mapping a batch; they say how large activations become.
    """
    groups = channel_groups(model)
    axes = {tensor.name or "": axis for group in groups for tensor, axis in group.tensors.items()}
    amplitudes = channel_amplitudes(model, axes, feeds)
    scalings = [_Scaling(group, amplitudes) for group in groups]
    weights = {
        id(end.weight): np.abs(_array(end.weight).astype(np.float64))
        for group in groups
        for end in (*group.makers, *group.readers)
    }
    for _ in range(_SWEEPS):
        if max((scaling.sweep(weights) for scaling in scalings), default=0.0) < _SETTLED:
            break
    for scaling in scalings:
        _apply(model.graph, scaling.group, scaling.factor)
    return tuple(
        Equalized(
            makers=tuple(end.node.name or "" for end in scaling.group.makers),
            readers=tuple(end.node.name or "" for end in scaling.group.readers),
            smallest=float(scaling.factor.min()),
            largest=float(scaling.factor.max()),
        )
        for scaling in scalings
    )


class _Scaling:
    """The factors of one group, while those of its neighbours change too."""

    def __init__(self, group: ChannelGroup, amplitudes: Mapping[str, Array]) -> None:
        self.group = group
        self.factor = np.ones(group.channels)
        self._seen = [amplitudes[tensor.name or ""] for tensor in group.tensors if tensor.name in amplitudes]

    def sweep(self, weights: Mapping[int, Array]) -> float:
        """Balance the group against the weights as they are, and scale those; returns the largest change."""
        step = self._step(weights)
        for end in self.group.makers:
            weights[id(end.weight)][:] /= _along(end, step)
        for end in self.group.readers:
            weights[id(end.weight)][:] *= _along(end, step)
        self.factor *= step
        return float(np.abs(np.log(step)).max())

    def _step(self, weights: Mapping[int, Array]) -> Array:
        """√(share of the ranges before / share of the ranges behind), with a geometric mean of 1."""
        made = [_reach(end, weights[id(end.weight)]) for end in self.group.makers]
        made += [seen / self.factor for seen in self._seen]
        read = [_reach(end, weights[id(end.weight)]) for end in self.group.readers]
        before, behind = (np.max([each / max(each.max(), 1e-30) for each in reach], axis=0) for reach in (made, read))
        counts = (before > _NEGLIGIBLE) & (behind > _NEGLIGIBLE)
        if not counts.any():
            return np.ones(self.group.channels)
        step = np.ones(self.group.channels)
        step[counts] = np.sqrt(before[counts] / behind[counts])
        step[counts] /= np.exp(np.log(step[counts]).mean())
        return np.asarray(np.clip(self.factor * step, 1 / _LARGEST, _LARGEST) / self.factor)


def _reach(end: End, magnitudes: Array) -> Array:
    """The largest weight that meets each channel."""
    if end.groups == 1:
        return np.asarray(magnitudes.max(axis=tuple(axis for axis in range(magnitudes.ndim) if axis != end.axis)))
    grouped = magnitudes.reshape(end.groups, -1, *magnitudes.shape[1:])
    return np.asarray(grouped.max(axis=(1, *range(3, grouped.ndim))).reshape(-1))


def _along(end: End, vector: Array) -> Array:
    """A value for each channel, shaped so that it broadcasts over the weight."""
    assert end.weight.shape is not None
    shape = end.weight.shape.numpy()
    if end.groups > 1:
        rows = np.repeat(vector.reshape(end.groups, -1), shape[0] // end.groups, axis=0)
        return np.asarray(rows.reshape(*shape[:2], *(1,) * (len(shape) - 2)))
    return np.asarray(vector.reshape([-1 if axis == end.axis else 1 for axis in range(len(shape))]))


def _apply(graph: ir.Graph, group: ChannelGroup, factor: Array) -> None:
    """Write the factors of a group into the graph."""
    for end in group.makers:
        _replace(end.weight, _array(end.weight) / _along(end, factor))
        if end.bias is not None:
            _replace(end.bias, _array(end.bias) / factor)
    for end in group.readers:
        _replace(end.weight, _array(end.weight) * _along(end, factor))
    for shift in group.shifts:
        value = shift.node.inputs[shift.index]
        assert value is not None
        array = _array(value) / factor.reshape(-1, *(1,) * (-shift.axis - 1))
        name = f"{shift.node.name}_shift"
        replace_initializer_input(graph, shift.node, shift.index, array.astype(np.float32), name)
    for clip in group.clips:
        scale_upper_bound(graph, clip, factor, group.tensors[clip.outputs[0]])


def _array(value: ir.Value) -> Array:
    assert value.const_value is not None
    return value.const_value.numpy()


def _replace(value: ir.Value, array: Array) -> None:
    value.const_value = ir.Tensor(np.asarray(array, np.float32, order="C"), name=value.name)
