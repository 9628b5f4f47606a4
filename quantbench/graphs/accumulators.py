"""Accumulators narrower than float32: the running sum of Conv, Gemm and MatMul is rounded every so many products.

A machine that adds N products at a time in float32 and keeps their running sum in a format A computes

    accumulator = 0
    for each N products, in the order of the reduction axis:  accumulator = round_A(accumulator + their sum)

and adds the bias, and applies the activation, afterwards. Here such an operation becomes one that puts out the sums of
all chunks along axis 1, a local function that replaces them by the running sums, and the choice of the last. The
function is standard ONNX, so the graph computes the same in any runtime; opened here, `strip_accumulators` takes it out
again and the tensor is summed between stages.

The reduction axis is K for MatMul and Gemm; for Conv the flattened weight of an output channel, that is the input
channels of its group, and within each the positions of the kernel. A last chunk may be shorter. The sum within a chunk
is float32, in whatever order the runtime adds. A chunk that ends amid the positions of a channel is a convolution whose
other weights are zero, so that an infinite input makes NaN of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.errors import InputError
from quantbench.graphs.edit import add_initializer
from quantbench.graphs.rounding_functions import CAST_TYPES, DOMAIN, rounding_function
from quantbench.numerics import Format, check_accumulator, get_format

__all__ = ["Accumulator", "accumulating", "strip_accumulators", "write_accumulators"]

_SUMS = "quantbench.accumulation"
"""Domain of the functions that make running sums, one a format, named by it."""

_OPSET = 21


@dataclass(frozen=True)
class Accumulator:
    """What products are added up in.

    Attributes:
        format: of the running sum.
        chunk: how many products are added in float32 before the running sum takes them and is rounded.
    """

    format: Format
    chunk: int

    def __post_init__(self) -> None:
        check_accumulator(self.format)
        if self.chunk < 1:
            raise InputError(f"an accumulator takes at least 1 product at a time, not {self.chunk}")


def accumulating(model: ir.Model) -> list[ir.Node]:
    """The operations of a graph that an accumulator can be written into, in its order.

    These are the Conv, Gemm and MatMul of float32 tensors. Operations inside the bodies of If, Loop and Scan are none.
    """
    return [
        node
        for node in model.graph
        if node.op_type in _REWRITES and node.domain in ("", "ai.onnx")
        if node.outputs[0].dtype in (None, ir.DataType.FLOAT)
    ]


def write_accumulators(model: ir.Model, accumulators: Mapping[str, Accumulator]) -> None:
    """Let the named operations of a graph add up as `accumulators` says; all others add in float32.

    Their outputs keep their names, so that what is rounded afterwards stays what it was.

    Args:
        model: a prepared graph, opset 21 or later, whose shapes are inferred; roundings may be written in it already.
            Changed in place.
        accumulators: by the name of a node that `accumulating` lists.

    Raises:
        InputError: there is no such node, a format that nothing accumulates in, a Conv whose weight has no known
            shape, or a product of vectors.
    """
    nodes = {node.name or "": node for node in accumulating(model)}
    for name, accumulator in accumulators.items():
        if name not in nodes:
            raise InputError(f"node {name!r} is no {', '.join(_REWRITES)} of floats that an accumulator can be given")
        _REWRITES[nodes[name].op_type](_Rewrite(model.graph, nodes[name]), accumulator)
    for fmt in {accumulator.format.name: accumulator.format for accumulator in accumulators.values()}.values():
        _register(model, fmt)


def strip_accumulators(model: ir.Model) -> dict[str, Format]:
    """Take the running sums out of a graph. Returns which tensors hold partial sums: the format of each, by name.

    Replacing those tensors by their running sums along axis 1 (`numerics.running_sum`) while the graph runs computes
    the same as running what was written.
    """
    if not any(domain == _SUMS for domain, _, _ in model.functions):
        return {}
    graph = model.graph
    formats: dict[str, Format] = {}
    for node in [node for node in graph if node.domain == _SUMS]:
        partials = node.inputs[0]
        assert partials is not None
        node.outputs[0].replace_all_uses_with(partials)
        formats[str(partials.name)] = get_format(node.op_type)
        graph.remove(node, safe=True)
    inner = {entry.name for entry in formats.values() if entry.name not in CAST_TYPES}
    used = {node.op_type for node in graph if node.domain == DOMAIN}
    for key in [key for key in model.functions if key[0] == _SUMS or (key[0] == DOMAIN and key[1] in inner - used)]:
        del model.functions[key]
    model.opset_imports.pop(_SUMS, None)
    return formats


class _Rewrite:
    """The nodes that replace one node, while they are written in front of it."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self.graph = graph
        self.node = node
        self.output = node.outputs[0]
        self.name = str(self.output.name)
        self._count = 0

    def op(self, op_type: str, *inputs: ir.Value | None, domain: str = "", **attributes: Any) -> ir.Value:
        """One more operation; returns its output."""
        node = ir.Node(domain, op_type, inputs, ir.convenience.convert_attributes(attributes))
        self._count += 1
        node.name = node.outputs[0].name = f"{self.name}/sum{self._count}"
        self.graph.insert_before(self.node, node)
        return node.outputs[0]

    def constant(self, values: Any) -> ir.Value:
        """An int64 constant."""
        self._count += 1
        return add_initializer(self.graph, f"{self.name}/sum{self._count}", np.asarray(values, np.int64))

    def input(self, index: int) -> ir.Value:
        value = self.node.inputs[index]
        assert value is not None
        return value

    def shape(self, value: ir.Value, index: int) -> tuple[int | None, ...]:
        """The sizes of an input, None where unknown."""
        if value.const_value is not None:
            return tuple(int(size) for size in value.const_value.shape.numpy())
        if value.shape is None:
            raise InputError(
                f"node {self.node.name or self.name}: the shape of its input {value.name or index} is unknown, so no "
                "accumulator can be written into it; export the model with shapes"
            )
        return tuple(size if isinstance(size, int) else None for size in value.shape)

    def accumulated(self, partials: ir.Value, accumulator: Accumulator) -> ir.Value:
        """The last of the running sums along axis 1, without that axis."""
        partials.type = ir.TensorType(ir.DataType.FLOAT)
        sums = self.op(accumulator.format.name, partials, domain=_SUMS)
        return self.op("Gather", sums, self.constant(-1), axis=1)

    def finish(self, result: ir.Value) -> None:
        """Put `result` in the place of the node's output, under its name."""
        node = result.producer()
        assert node is not None
        self.output.replace_all_uses_with(result, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)
        result.name, result.shape, result.type = self.name, self.output.shape, self.output.type


def _convolution(write: _Rewrite, accumulator: Accumulator) -> None:
    """One convolution with a group for each chunk and each group there was: all partial sums, chunk by chunk."""
    node, weight = write.node, write.input(1)
    sizes = write.shape(weight, 1)
    if any(size is None for size in sizes):
        raise InputError(
            f"node {node.name or write.name}: the shape of its weight must be known to accumulate in parts"
        )
    outputs, inputs, *kernel = (size or 0 for size in sizes)
    groups = node.attributes.get_int("group", 1)
    chunks = _chunks(inputs, math.prod(kernel), accumulator.chunk)
    count = len(chunks.starts)
    x = write.input(0)
    if count > 1:
        channels = chunks.channels(groups)
        if not np.array_equal(channels, np.arange(groups * inputs)):
            x = write.op("Gather", x, write.constant(channels), axis=1)
        flat = write.op("Reshape", weight, write.constant([outputs, -1]))
        if chunks.cuts_channels:
            flat = write.op("Pad", flat, write.constant([0, 0, 0, 1]))  # the zero that other chunks' weights become
        parts = write.op("Gather", flat, write.constant(chunks.weights), axis=1)  # (outputs, chunks, width × kernel)
        parts = write.op("Transpose", parts, perm=[1, 0, 2])
        weight = write.op("Reshape", parts, write.constant([count * outputs, chunks.width, *kernel]))
    settings: dict[str, Any] = {attribute.name: attribute for attribute in node.attributes.values()}
    settings["group"] = ir.AttrInt64("group", count * groups)
    convolution = write.op("Conv", x, weight, **settings)
    partials = write.op("Reshape", convolution, write.constant([0, count, -1]))
    last = write.accumulated(partials, accumulator)
    size = write.op("Shape", convolution, start=2)
    full = write.op("Concat", write.constant([0, outputs]), size, axis=0)
    result = write.op("Reshape", last, full)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        bias = write.op("Reshape", node.inputs[2], write.constant([outputs, *(1 for _ in kernel)]))
        result = write.op("Add", result, bias)
    write.finish(result)


@dataclass(frozen=True)
class _Chunks:
    """How the weights of one output channel, flattened, fall into chunks.

    Attributes:
        starts: for each chunk, the first of `width` input channels that hold it.
        width: input channels that a chunk needs at most.
        weights: (chunks, width × positions) where each weight comes from; one behind the last stands for zero.
        cuts_channels: whether there are such zeros.
    """

    starts: NDArray[np.int64]
    width: int
    weights: NDArray[np.int64]
    cuts_channels: bool

    def channels(self, groups: int) -> NDArray[np.int64]:
        """Which input channels the convolution reads: those of each chunk, and in it of each group."""
        inputs = int(self.starts[-1]) + self.width  # the last chunk ends with the last channel
        offsets = np.arange(groups)[:, None] * inputs + np.arange(self.width)
        return (self.starts[:, None, None] + offsets).reshape(-1)


def _chunks(inputs: int, positions: int, chunk: int) -> _Chunks:
    length = inputs * positions
    first = np.arange(0, length, chunk)
    last = np.minimum(first + chunk, length) - 1
    width = int((last // positions - first // positions).max()) + 1
    starts = np.minimum(first // positions, inputs - width)
    weights = starts[:, None] * positions + np.arange(width * positions)
    outside = (weights < first[:, None]) | (weights > last[:, None])
    return _Chunks(starts, width, np.where(outside, length, weights), bool(outside.any()))


def _matmul(write: _Rewrite, accumulator: Accumulator) -> None:
    write.finish(_product(write, write.input(0), write.input(1), accumulator))


def _gemm(write: _Rewrite, accumulator: Accumulator) -> None:
    """alpha · (A · B) + beta · C: only the product is accumulated."""
    node = write.node
    factors = [write.input(0), write.input(1)]
    for index, name in enumerate(("transA", "transB")):
        if node.attributes.get_int(name, 0):
            plain = factors[index]
            factors[index] = write.op("Transpose", plain, perm=[1, 0])
            rows, columns = write.shape(plain, index)
            factors[index].shape, factors[index].type = ir.Shape([columns, rows]), plain.type
    result = _product(write, factors[0], factors[1], accumulator)
    alpha, beta = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if alpha != 1:
        result = write.op("Mul", result, _number(write, alpha))
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        added = node.inputs[2] if beta == 1 else write.op("Mul", node.inputs[2], _number(write, beta))
        result = write.op("Add", result, added)
    write.finish(result)


def _number(write: _Rewrite, value: float) -> ir.Value:
    return add_initializer(write.graph, f"{write.name}/factor", np.array(value, np.float32))


def _product(write: _Rewrite, left: ir.Value, right: ir.Value, accumulator: Accumulator) -> ir.Value:
    """A product of matrices, or of stacks of them: (1, chunks, …, rows, chunk) times (1, chunks, …, chunk, columns)."""
    sizes = write.shape(left, 0), write.shape(right, 1)
    if min(map(len, sizes)) < 2:
        raise InputError(
            f"node {write.node.name or write.name} multiplies a vector, into which no accumulator can be written; "
            "export the model with matrices"
        )
    length = sizes[0][-1] if sizes[0][-1] is not None else sizes[1][-2]
    rank = max(map(len, sizes))
    parts = []
    for value, shape, axis in ((left, sizes[0], len(sizes[0]) - 1), (right, sizes[1], len(sizes[1]) - 2)):
        chunked = _in_chunks(write, value, axis, length, accumulator.chunk)
        axes = [0, *range(2, 2 + rank - len(shape))]  # behind the chunks, so that shorter stacks repeat as they would
        order = [axis, *(other for other in range(len(shape) + 1) if other != axis)]
        turned = write.op("Transpose", chunked, perm=order)
        parts.append(write.op("Unsqueeze", turned, write.constant(axes)))
    last = write.accumulated(write.op("MatMul", *parts), accumulator)
    return write.op("Squeeze", last, write.constant([0]))


def _in_chunks(write: _Rewrite, value: ir.Value, axis: int, length: int | None, chunk: int) -> ir.Value:
    """Split `axis` into (chunks, chunk), with zeros behind a length that is no multiple."""
    if length is None or length % chunk:
        size = write.op("Shape", value, start=axis, end=axis + 1)
        missing = write.op("Mod", write.op("Neg", size), write.constant([chunk]))
        pads = write.op("Concat", write.constant([0]), missing, axis=0)
        value = write.op("Pad", value, pads, None, write.constant([axis]))
    before = write.op("Shape", value, start=0, end=axis)
    after = write.op("Shape", value, start=axis + 1)
    shape = write.op("Concat", before, write.constant([-1, chunk]), after, axis=0)
    return write.op("Reshape", value, shape)


def _register(model: ir.Model, format: Format) -> None:  # noqa: A002 (named as in Accumulator)
    """Add the function that makes running sums in `format`, and the rounding that it needs."""
    functions = [_running_sum(format)]
    if format.name not in CAST_TYPES:
        functions.append(rounding_function(format))
        model.opset_imports[DOMAIN] = 1
    for function in functions:
        model.functions[function.identifier()] = function
    model.opset_imports[_SUMS] = 1


def _running_sum(format: Format) -> ir.Function:  # noqa: A002
    """x of shape (n, steps, …) → y of that shape: y[:, k] = round(y[:, k − 1] + x[:, k]), from +0."""
    x = ir.Value(name="x")
    zero = ir.Node("", "Constant", [], [ir.AttrInt64("value_int", 0)])
    first = ir.Node("", "Gather", [x, zero.outputs[0]], [ir.AttrInt64("axis", 1)])
    shape = ir.Node("", "Shape", [first.outputs[0]])
    start = ir.Node("", "ConstantOfShape", [shape.outputs[0]])  # float32 zeros
    scan = ir.Node(
        "",
        "Scan",
        [start.outputs[0], x],
        [
            ir.AttrGraph("body", _step(format)),
            ir.AttrInt64("num_scan_inputs", 1),
            ir.AttrInt64s("scan_input_axes", [1]),
            ir.AttrInt64s("scan_output_axes", [1]),
        ],
        num_outputs=2,
    )
    nodes = [zero, first, shape, start, scan]
    for node, name in zip(nodes, ("zero", "first", "shape", "start", "last"), strict=True):
        node.outputs[0].name = name
    scan.outputs[1].name = "y"
    graph = ir.Graph([x], [scan.outputs[1]], nodes=nodes, opset_imports={"": _OPSET, DOMAIN: 1}, name=format.name)
    return ir.Function(_SUMS, format.name, graph=graph, attributes=[])


def _step(format: Format) -> ir.Graph:  # noqa: A002
    """One step of Scan: accumulator, partial → the new accumulator, twice: to go on with, and to put out."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    before, partial = (ir.Value(name=name, type=floats) for name in ("before", "partial"))
    total = ir.Node("", "Add", [before, partial])
    total.outputs[0].name = "total"
    nodes = [total]
    if format.name in CAST_TYPES:
        for name, dtype in (("narrow", CAST_TYPES[format.name]), ("after", ir.DataType.FLOAT)):
            nodes.append(ir.Node("", "Cast", [nodes[-1].outputs[0]], [ir.AttrInt64("to", dtype.value)]))
            nodes[-1].outputs[0].name = name
    else:
        nodes.append(ir.Node(DOMAIN, format.name, [total.outputs[0]]))
        nodes[-1].outputs[0].name = "after"
    out = ir.Node("", "Identity", [nodes[-1].outputs[0]])
    out.outputs[0].name = "out"
    nodes.append(out)
    for value in (nodes[-2].outputs[0], out.outputs[0]):
        value.type = floats
    return ir.Graph([before, partial], [nodes[-2].outputs[0], out.outputs[0]], nodes=nodes, name="step")


_REWRITES: dict[str, Callable[[_Rewrite, Accumulator], None]] = {
    "Conv": _convolution,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
"""What can accumulate, and how its sum is taken apart."""
