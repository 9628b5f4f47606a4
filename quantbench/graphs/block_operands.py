"""Which tensors are read in blocks when a graph runs in a block format, and along which axis: the definition.

A machine for a block format (OCP MX, NVFP4) has dot products of blocks: a matrix operation reads both of its operands
in blocks along the axis that it sums over, and accumulates in float32. All other arithmetic, and what lies in memory
between two operations, is in a plain float format, here bfloat16, as in the emulation library that accompanies the
OCP MX specification. So every tensor is rounded to bfloat16 where `rounding_points` says, and what a matrix operation
reads is rounded to blocks on top of that, each operation its own copy; weights are rounded to blocks from their exact
values, once. No blocks are read by an operation that sums over one element alone (a depthwise convolution has one
channel a group), nor by lookups: they work on what lies in memory.

Where a format has one more scale for the whole tensor (NVFP4), it follows from the values at hand: from all of a
weight's, and from those of one sample (an index of the first axis, unless the blocks run along it) of any other tensor,
so that no sample's result depends on the batch it is in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.numerics import Format, get_format

__all__ = ["Blocks", "Operand", "block_rounder", "held_format", "summed_axes"]

_HELD = "bfloat16"
"""The format of whatever is not an operand of a matrix operation, in a machine for a block format."""

Operand = tuple[str, int]
"""A node's name, and the position of one of its inputs."""


@dataclass(frozen=True)
class Blocks:
    """Rounding a tensor in blocks.

    Attributes:
        axis: that the blocks run along; counted from the end where it is negative, which one with a `run` never is.
        run: elements of that axis after which blocks start anew (the channels of one group of a convolution); 0 where
            they do not.
        format: the block format.
        held: a plain format that the values are rounded to before.
    """

    axis: int
    run: int
    format: Format
    held: Format | None = None


def held_format(fmt: Format) -> Format:
    """The format of what lies in memory in a machine for `fmt`, a float or block format."""
    return get_format(_HELD) if fmt.kind == "block" else fmt


def summed_axes(node: ir.Node) -> tuple[tuple[int, int], ...]:
    """(axis, run) of each operand that a matrix operation reads in blocks; empty for any other operation.

    `axis` is the one that the operation sums over: the input channels for Conv and ConvTranspose, the inner axis for
    Gemm and MatMul, whose axes may count from the end. `run` is as of `Blocks`. Requires known types.

    Raises:
        InputError: a convolution is grouped and the graph does not say how many channels a group has.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return ()
    left, right = node.inputs[0], node.inputs[1]
    if left is None or right is None or not (left.dtype == right.dtype == ir.DataType.FLOAT):
        return ()
    if node.op_type == "Gemm":
        axes = (0 if node.attributes.get_int("transA", 0) else 1, 1 if node.attributes.get_int("transB", 0) else 0)
        return () if _size(right, axes[1]) == 1 or _size(left, axes[0]) == 1 else ((axes[0], 0), (axes[1], 0))
    if node.op_type == "MatMul":
        inner = -1 if right.shape is not None and right.shape.rank() == 1 else -2
        return () if _size(right, inner) == 1 or _size(left, -1) == 1 else ((-1, 0), (inner, 0))
    groups = node.attributes.get_int("group", 1) or 1
    channels = _channels_of_group(node, left, right, groups)
    if channels == 1:
        return ()
    run = channels if groups > 1 else 0
    return ((1, run), (1, 0)) if node.op_type == "Conv" else ((1, run), (0, run))


def block_rounder(
    blocks: Blocks, threads: int | None = None, *, weight: bool = False
) -> Callable[[NDArray[np.float32]], None]:
    """What rounds C-contiguous float32 arrays in place, samples apart unless it is for a weight."""
    from quantbench.numerics import rounder  # compiles: only where it is used

    hold = None if blocks.held is None else rounder(blocks.held, threads=threads)
    run = blocks.run
    axis = blocks.axis + 1 if run else blocks.axis
    divide = rounder(blocks.format, axis=axis, threads=threads)
    divide_sample = rounder(blocks.format, axis=axis if axis < 0 else axis - 1, threads=threads)

    def visit(values: NDArray[np.float32]) -> None:
        if hold is not None:
            hold(values)
        if run:
            values = values.reshape(*values.shape[: axis - 1], -1, run, *values.shape[axis:])
        if weight or not blocks.format.tensor_scale or blocks.axis % values.ndim == 0:
            divide(values)
        else:
            for sample in values:
                divide_sample(sample)

    return visit


def _channels_of_group(node: ir.Node, source: ir.Value, weight: ir.Value, groups: int) -> int:
    """Input channels that one output channel of a convolution sums over; 0 where it is not known and not needed."""
    if node.op_type == "Conv" and isinstance(size := _size(weight, 1), int):
        return size
    size = _size(weight, 0) if node.op_type == "ConvTranspose" else _size(source, 1)
    if isinstance(size, int):
        return size // groups
    if groups == 1:
        return 0
    raise InputError(f"node {node.name} has {groups} groups, and the graph does not say how many channels it reads")


def _size(value: ir.Value, axis: int) -> int | None:
    if value.shape is None or not -value.shape.rank() <= axis < value.shape.rank():
        return None
    size = value.shape[axis]
    return size if isinstance(size, int) else None
