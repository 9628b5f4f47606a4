"""Write QuantizeLinear and DequantizeLinear pairs into a graph, in the pattern that ONNX Runtime fuses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from quantbench.graphs.edit import add_initializer

__all__ = [
    "LARGEST_MULTIPLE",
    "Affine",
    "QuantizedTensor",
    "integer_bits",
    "round_trip",
    "write_activations",
    "write_weights",
]

Array = NDArray[Any]

_WIDTHS = (2, 4, 8, 16, 32)
"""Bits of the integers of ONNX that a DequantizeLinear reads."""

LARGEST_MULTIPLE = 15
"""Of a channel's scale, as the scale of a block: the largest that 4 bits hold. Times a 4-bit code, −8 to 7, it is an
8-bit one."""


@dataclass(frozen=True)
class Affine:
    """Integer codes for real numbers: real = (code − zero_point)·scale.

    Attributes:
        format: int4, uint4, int8, uint8, int16, uint16 or int32.
        scale: float32; shape () per tensor, (channels,) along `axis`, or that of the tensor with `axis` divided
            into blocks of `block_size`.
        zero_point: integers, the shape of `scale`.
        axis: the axis that the scales run along; None per tensor.
        block_size: elements of `axis` that share a scale; 0 without blocks.
        channel_axis: the axis along which the blocks' scales are whole multiples, 1 to `LARGEST_MULTIPLE`, of a
            channel's scale, the largest being that many times it; None where they are not.
    """

    format: str
    scale: Array
    zero_point: Array
    axis: int | None = None
    block_size: int = 0
    channel_axis: int | None = None

    @property
    def channel_scale(self) -> Array:
        """The step that every weight of a channel is a multiple of: the scale without blocks, else shape (channels,).

        Requires: without blocks, or with `channel_axis`.
        """
        if not self.block_size:
            return self.scale
        others = tuple(other for other in range(self.scale.ndim) if other != self.channel_axis)
        largest: Array = self.scale.max(axis=others) / np.float32(LARGEST_MULTIPLE)  # exact: float32 holds it
        return largest


@dataclass(frozen=True)
class QuantizedTensor:
    """A constant in integer codes (an integer array of the tensor's shape)."""

    codes: Array
    affine: Affine


def integer_bits(name: str) -> int:
    """How many bits the codes of an integer format have, by its name."""
    return int(name.lstrip("uint"))


def write_weights(
    model: ir.Model, weights: Mapping[str, QuantizedTensor], nodes: Collection[str] | None = None
) -> None:
    """Store initializers as integer codes, each followed by a DequantizeLinear.

    A weight that only operations in float read is followed by the same arithmetic in Cast, Sub and Mul instead: ONNX
    Runtime computes that once, when it loads the graph, but a DequantizeLinear in every run, and it packs and lays out
    for its fast float kernels only what is constant. Those in blocks keep their DequantizeLinear.

    Requires: `weights` names initializers of the graph.
    Ensures: readers get the dequantized values; the initializer keeps its name and holds the codes.

    Args:
        nodes: names of the nodes that compute in integers; None where all do.
    """
    graph = model.graph
    if any(tensor.affine.format in ("int2", "uint2") for tensor in weights.values()):
        graph.opset_imports[""], model.ir_version = 25, 13  # the first that know them
    for name, tensor in weights.items():
        old = graph.initializers[name]
        del graph.initializers[name]
        old.name = f"{name}_float"
        codes = add_initializer(graph, name, _tensor(tensor.codes, tensor.affine.format))
        in_float = nodes is not None and not any(reader.name in nodes for reader, _ in old.uses())
        write = _compute if in_float and not tensor.affine.block_size else _dequantize
        output = write(graph, codes, tensor.affine, name, f"{name}_dequantized")
        output.shape = old.shape
        old.replace_all_uses_with(output)


def write_activations(model: ir.Model, activations: Mapping[str, Affine], nodes: Collection[str]) -> None:
    """Put a QuantizeLinear and a DequantizeLinear behind tensors.

    Args:
        model: changed in place.
        activations: per-tensor parameters by tensor name.
        nodes: names of the nodes that compute in integers. They read the dequantized tensor; every other reader does
            too where the tensor's producer is such a node (or an activation function behind it), and keeps the
            exact tensor otherwise.
    """
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values |= {output.name: output for node in graph for output in node.outputs}
    for name, affine in activations.items():
        source = values[name]
        producer = source.producer()
        everyone = producer is None or producer.name in nodes
        readers = [(node, index) for node, index in source.uses() if everyone or node.name in nodes]
        output = round_trip(graph, source, affine)
        for node, index in readers:
            node.replace_input_with(index, output)
        if everyone and source.is_graph_output():
            _take_over_output(graph, source, output)


def round_trip(graph: ir.Graph, source: ir.Value, affine: Affine) -> ir.Value:
    """Put a QuantizeLinear and a DequantizeLinear behind `source`; returns what they make of it. Moves no reader."""
    name = source.name
    quantize = ir.Node("", "QuantizeLinear", [source, *_parameters(graph, affine, f"{name}")], name=f"{name}_quantize")
    codes, zero_point = quantize.outputs[0], quantize.inputs[2]
    assert zero_point is not None
    codes.name = f"{name}_quantized"
    codes.shape, codes.type = source.shape, zero_point.type
    result = ir.Node("", "DequantizeLinear", [codes, *quantize.inputs[1:]], name=f"{name}_dequantize")
    output = result.outputs[0]
    output.name = f"{name}_dequantized"
    output.shape, output.type = source.shape, source.type
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph[0], [quantize, result])
    else:
        graph.insert_after(producer, [quantize, result])
    return output


def _take_over_output(graph: ir.Graph, source: ir.Value, output: ir.Value) -> None:
    name = source.name
    for index, value in enumerate(graph.outputs):
        if value is source:
            graph.outputs[index] = output
    source.name = f"{name}_exact"
    output.name = name


def _dequantize(graph: ir.Graph, codes: ir.Value, affine: Affine, name: str, output: str) -> ir.Value:
    attributes = []
    if affine.axis is not None:
        attributes.append(ir.AttrInt64("axis", affine.axis))
    if affine.block_size:
        attributes.append(ir.AttrInt64("block_size", affine.block_size))
    inputs = [codes, *_parameters(graph, affine, name)]
    node = ir.Node("", "DequantizeLinear", inputs, attributes, name=output)
    node.outputs[0].name = output
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    scale = inputs[1].producer()
    graph.insert_before(graph[0], [node] if scale is None else [scale, node])
    return node.outputs[0]


def _compute(graph: ir.Graph, codes: ir.Value, affine: Affine, name: str, output: str) -> ir.Value:
    """(codes − zero_point)·scale, in operations on constants that a runtime folds."""
    assert codes.shape is not None
    along = [1] * codes.shape.rank()
    if affine.axis is not None:
        along[affine.axis] = -1
    nodes = [ir.Node("", "Cast", [codes], [ir.AttrInt64("to", ir.DataType.FLOAT)], name=f"{name}_cast")]
    for op_type, what, array in (("Sub", "zero_point", affine.zero_point), ("Mul", "scale", affine.scale)):
        if op_type == "Sub" and not np.any(array):
            continue
        factor = np.asarray(array, np.float32)
        operand = add_initializer(graph, f"{name}_{what}", factor.reshape(along) if factor.ndim else factor)
        nodes.append(ir.Node("", op_type, [nodes[-1].outputs[0], operand], name=f"{name}_{op_type.lower()}"))
    for node in nodes:
        node.outputs[0].name = node.name
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    nodes[-1].name = nodes[-1].outputs[0].name = output
    graph.insert_before(graph[0], nodes)
    return nodes[-1].outputs[0]


def _parameters(graph: ir.Graph, affine: Affine, name: str) -> list[ir.Value]:
    """The scale and zero point of a tensor as initializers; blocks and biases whose zero points are 0 have none.

    Scales of blocks that are multiples of their channel's are stored so: a DequantizeLinear, not yet in the graph,
    multiplies them.
    """
    if affine.channel_axis is None:
        scale = add_initializer(graph, f"{name}_scale", np.asarray(affine.scale, np.float32))
    else:
        scale = _multiplied(graph, affine, name)
    if (affine.block_size or affine.format == "int32") and not np.any(affine.zero_point):
        return [scale]
    return [scale, add_initializer(graph, f"{name}_zero_point", _tensor(affine.zero_point, affine.format))]


def _multiplied(graph: ir.Graph, affine: Affine, name: str) -> ir.Value:
    assert affine.channel_axis is not None
    along = [1] * affine.scale.ndim
    along[affine.channel_axis] = -1
    channel = affine.channel_scale
    multiples = np.rint(affine.scale / channel.reshape(along))
    inputs = [
        add_initializer(graph, f"{name}_multiples", _tensor(multiples, "uint4")),
        add_initializer(graph, f"{name}_channel_scale", channel),
    ]
    axis = ir.AttrInt64("axis", affine.channel_axis)
    node = ir.Node("", "DequantizeLinear", inputs, [axis], name=f"{name}_scale")
    node.outputs[0].name = f"{name}_scale"
    node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    return node.outputs[0]


def _tensor(codes: Array, name: str) -> ir.Tensor[Array]:
    """Codes of an integer format in the narrowest type of ONNX that holds them."""
    width = min(width for width in _WIDTHS if width >= integer_bits(name))
    dtype = ir.DataType[f"UINT{width}" if name.startswith("u") else f"INT{width}"]
    return ir.Tensor(np.asarray(codes).astype(dtype.numpy()), dtype=dtype)
