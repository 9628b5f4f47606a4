"""Tensors whose channels can be scaled without changing what the graph computes, and who has to make up for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import constant

__all__ = ["ChannelGroup", "End", "Shift", "channel_groups"]

Array = NDArray[Any]

_HOMOGENEOUS = {
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "PRelu",
    "Relu",
}
"""f(x/s) = f(x)/s in each channel by itself for s > 0; axes stay where they are."""
_GATES = {"HardSigmoid", "HardSwish", "Sigmoid", "Softmax", "Tanh"}
"""What may be multiplied into the tensor of a group: its own channels never belong to one."""
_MODE = "coordinate_transformation_mode"


@dataclass(frozen=True, eq=False)
class End:
    """An operation with constant weights that makes, or reads, the tensors of a group.

    Attributes:
        node: it.
        weight: its weight, which nothing else reads.
        axis: the axis of the weight that counts the group's channels, those of one convolution group where `groups`
            is above 1.
        bias: the constant that it adds to its own output; None where it reads the group's tensors, or has none.
        groups: into how many parts the reading convolution divides the channels.
    """

    node: ir.Node
    weight: ir.Value
    axis: int
    bias: ir.Value | None = None
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Shift:
    """A constant that an Add puts on top of a group's tensor; `axis` counts the group's channels from the end."""

    node: ir.Node
    index: int
    axis: int


@dataclass
class ChannelGroup:
    """Tensors that have to be scaled together.

    Attributes:
        channels: how many.
        makers: the operations that write them.
        readers: the operations that read them.
        clips: the Clip nodes between the tensors, whose bounds move along.
        shifts: constants added on the way.
        tensors: every tensor of the group and the axis of its channels.
    """

    channels: int
    makers: list[End] = field(default_factory=list)
    readers: list[End] = field(default_factory=list)
    clips: list[ir.Node] = field(default_factory=list)
    shifts: list[Shift] = field(default_factory=list)
    tensors: dict[ir.Value, int] = field(default_factory=dict)


def channel_groups(model: ir.Model) -> list[ChannelGroup]:
    """Every group of a prepared graph: all that its tensors are made of and all that reads them is known and linear.

    A group spreads through operations that treat each channel alike and by itself (Relu, Clip, pooling, moving), an
    Add joins its operands, and a Mul by a gate belongs to what is gated. It ends at convolutions, matrix products and
    lookups with constant weights. Where anything else reads or writes one of its tensors, an output of the graph among
    them, there is no group.
    """
    groups: list[ChannelGroup] = []
    seen: set[int] = set()
    for node in model.graph:
        end = _maker(node)
        if end is None or id(node) in seen:
            continue
        group = _spread(node.outputs[0], _output_axis(node), end.weight.const_value.shape[end.axis])  # type: ignore
        if group is not None:
            seen |= {id(maker.node) for maker in group.makers}
            groups.append(group)
    return groups


class _NoGroupError(Exception):
    """Something around the tensors does not let their channels be scaled."""


def _spread(value: ir.Value, axis: int, channels: int) -> ChannelGroup | None:
    group = ChannelGroup(channels)
    pending = [(value, axis)]
    try:
        while pending:
            tensor, along = pending.pop()
            if tensor in group.tensors:
                if group.tensors[tensor] != along:
                    return None
                continue
            if tensor.is_graph_output() or tensor.shape is None or tensor.shape[along] != channels:
                return None
            group.tensors[tensor] = along
            pending += _backward(group, tensor, along)
            for user, index in tensor.uses():
                pending += _forward(group, tensor, along, user, index)
    except _NoGroupError:
        return None
    return group if group.readers else None


def _backward(group: ChannelGroup, tensor: ir.Value, axis: int) -> Iterator[tuple[ir.Value, int]]:
    """What has to join because it makes `tensor`."""
    node = tensor.producer()
    if node is None or (len(node.outputs) > 1 and any(output.uses() for output in node.outputs[1:])):
        raise _NoGroupError
    end = _maker(node)
    if end is not None:
        if _output_axis(node) != axis:
            raise _NoGroupError
        group.makers.append(end)
        return
    yield from _through(group, node, axis, tensor)


def _forward(
    group: ChannelGroup, tensor: ir.Value, axis: int, user: ir.Node, index: int
) -> Iterator[tuple[ir.Value, int]]:
    """What has to join because it reads `tensor`."""
    if user.graph is not tensor.graph or user.domain != "":
        raise _NoGroupError
    end = _reader(user, index, axis, tensor)
    if end is not None:
        group.readers.append(end)
        return
    moved = _moved_axis(user, axis)
    if moved is None or (index != 0 and user.op_type not in ("Add", "Mul")):
        raise _NoGroupError
    yield user.outputs[0], moved


def _through(group: ChannelGroup, node: ir.Node, axis: int, output: ir.Value) -> Iterator[tuple[ir.Value, int]]:
    """The tensors of the group that a node, no end of it, makes `output` from."""
    kind = node.op_type
    if node.domain != "" or _moved_axis(node, None) is None:
        raise _NoGroupError
    data = node.inputs[0]
    if kind in ("Add", "Mul"):
        yield from _operands(group, node, axis, output)
        return
    if data is None or data.shape is None:
        raise _NoGroupError
    for source_axis in range(data.shape.rank()):
        if _moved_axis(node, source_axis) == axis:
            break
    else:
        raise _NoGroupError
    if kind == "PRelu" and constant(node.inputs[1]) is None:
        raise _NoGroupError
    if kind == "Clip":
        _require_movable_bounds(node)
        group.clips.append(node)
    yield data, source_axis


def _require_movable_bounds(clip: ir.Node) -> None:
    """A lower bound of 0 or none, and an upper one above 0 or none: what Relu and a Min per channel can say."""
    low, high = (constant(clip.inputs[index]) if len(clip.inputs) > index else None for index in (1, 2))
    computed = any(bound is not None and constant(bound) is None for bound in clip.inputs[1:])
    if computed or (low is not None and low != 0) or (high is not None and high <= 0):
        raise _NoGroupError


def _operands(group: ChannelGroup, node: ir.Node, axis: int, output: ir.Value) -> Iterator[tuple[ir.Value, int]]:
    """Both operands of an Add, or its one and the constant; of a Mul what is gated or scaled by a constant."""
    assert output.shape is not None
    rank = output.shape.rank()
    joined = 0
    for index, value in enumerate(node.inputs):
        if value is None:
            raise _NoGroupError
        producer = value.producer()
        if constant(value) is not None:
            if node.op_type == "Add":
                group.shifts.append(Shift(node, index, axis - rank))
            continue
        if node.op_type == "Mul" and producer is not None and producer.op_type in _GATES:
            continue
        if value.shape is None or value.shape.rank() != rank:
            raise _NoGroupError
        joined += 1
        yield value, axis
    if joined != (2 if node.op_type == "Add" and all(constant(value) is None for value in node.inputs) else 1):
        raise _NoGroupError


def _moved_axis(node: ir.Node, axis: int | None) -> int | None:
    """Where an axis of a node's data input is in its output; None where a node is not passed or the axis is lost.

    With None for the axis: 0 where the node can be passed at all.
    """
    kind, attributes = node.op_type, node.attributes
    if kind in _HOMOGENEOUS or kind in ("Add", "Clip", "Mul"):
        return 0 if axis is None else axis
    find: dict[str, Callable[[int], int | None]] = {
        "Flatten": lambda a: a if a == attributes.get_int("axis", 1) == 1 and _ones_after(node, 1) else None,
        "Transpose": lambda a: list(attributes.get_ints("perm", []) or []).index(a) if "perm" in attributes else None,
        "Reshape": lambda a: _reshaped(node, a),
        "Squeeze": lambda a: _reshaped(node, a),
        "Unsqueeze": lambda a: _reshaped(node, a),
        "Resize": lambda a: None if attributes.get_string(_MODE) == "tf_crop_and_resize" else a,
    }
    if kind not in find:
        return None
    return 0 if axis is None else find[kind](axis)


def _ones_after(node: ir.Node, axis: int) -> bool:
    """Whether every axis of the input behind `axis` has size 1."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return shape is not None and all(size == 1 for size in shape.dims[axis + 1 :])


def _reshaped(node: ir.Node, axis: int) -> int | None:
    """The axis that a Reshape, Squeeze or Unsqueeze keeps whole: alike in size and in all that stands behind it."""
    old = None if node.inputs[0] is None else node.inputs[0].shape
    new = node.outputs[0].shape
    if old is None or new is None or axis >= old.rank() or not isinstance(old[axis], int):
        return None
    behind = [size for size in old.dims[axis + 1 :] if size != 1]
    for candidate in range(new.rank()):
        rest = [size for size in new.dims[candidate + 1 :] if size != 1]
        if new[candidate] == old[axis] and _alike(rest, behind):
            return candidate
    return None


def _alike(one: list[Any], other: list[Any]) -> bool:
    """Whether two lists of sizes have the same product for sure: equal known numbers, or the same lists of names."""
    if all(isinstance(size, int) for size in (*one, *other)):
        return int(np.prod(one)) == int(np.prod(other))
    return len(one) == len(other) and all(
        a == b and (isinstance(a, int) or a.value is not None) for a, b in zip(one, other, strict=True)
    )


def _output_axis(node: ir.Node) -> int:
    """The channel axis of what a maker writes."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 1
    shape = node.outputs[0].shape
    return (shape.rank() if shape is not None else 2) - 1


def _own(value: ir.Value | None, rank: int) -> bool:
    """Whether a value is a float32 constant of that rank that nothing else reads."""
    array = constant(value)
    return (
        value is not None
        and array is not None
        and array.dtype == np.float32
        and array.ndim == rank
        and len(value.uses()) == 1
        and not value.is_graph_output()
    )


def _maker(node: ir.Node) -> End | None:
    """The node as an end that writes a group's tensors."""
    position = 0 if node.op_type == "Gather" else 1
    if node.domain != "" or len(node.inputs) <= position:
        return None
    weight = node.inputs[position]
    array = constant(weight)
    if weight is None or array is None or not _own(weight, array.ndim):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and not _own(bias, 1):
        return None
    if node.op_type == "Conv":
        return End(node, weight, 0, bias)
    if node.op_type == "ConvTranspose" and node.attributes.get_int("group", 1) == 1:
        return End(node, weight, 1, bias)
    if node.op_type == "Gemm" and (bias is None or constant(bias).size == _gemm_outputs(node, array)):  # type: ignore[union-attr]
        return End(node, weight, 0 if node.attributes.get_int("transB", 0) else 1, bias)
    if node.op_type == "MatMul" and array.ndim == 2 and node.outputs[0].shape is not None:
        return End(node, weight, 1)
    if node.op_type == "Gather" and array.ndim == 2 and node.attributes.get_int("axis", 0) == 0:
        return End(node, weight, 1) if node.outputs[0].shape is not None else None
    return None


def _gemm_outputs(node: ir.Node, weight: Array) -> int:
    return int(weight.shape[0 if node.attributes.get_int("transB", 0) else 1])


def _reader(node: ir.Node, index: int, axis: int, tensor: ir.Value) -> End | None:
    """The node as an end that reads a group's tensor as its input `index`, whose channels are on `axis`."""
    weight = node.inputs[1] if len(node.inputs) > 1 else None
    array = constant(weight)
    if index != 0 or weight is None or array is None or not _own(weight, array.ndim) or tensor.shape is None:
        return None
    if node.op_type == "Conv" and axis == 1:
        return End(node, weight, 1, groups=node.attributes.get_int("group", 1) or 1)
    if node.op_type == "ConvTranspose" and axis == 1:
        return End(node, weight, 0)
    if node.op_type == "Gemm" and axis == 1 and not node.attributes.get_int("transA", 0):
        return End(node, weight, 1 if node.attributes.get_int("transB", 0) else 0)
    if node.op_type == "MatMul" and array.ndim == 2 and axis == tensor.shape.rank() - 1:
        return End(node, weight, 0)
    return None
