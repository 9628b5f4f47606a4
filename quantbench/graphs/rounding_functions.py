"""Emulation that travels with the model: roundings written into the graph as Casts or as functions of operators.

The written graph computes what `rounding_points` defines in any ONNX runtime, without this package. A format that ONNX
has as a tensor type is rounded by a pair of Casts. Any other is rounded by a local function, one a format, named by
the format, in the domain `quantbench.rounding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.edit import add_initializer
from quantbench.graphs.rounding_points import carries_sizes, float_weights, steers
from quantbench.numerics import Format, get_format, round_to, storage_dtype

__all__ = ["CAST_TYPES", "DOMAIN", "rounding_function", "strip_rounding", "write_rounded"]

DOMAIN = "quantbench.rounding"
"""Domain of the rounding functions, and the key under which the Casts that round name their format."""

CAST_TYPES = {
    "fp16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}
"""Formats that Cast rounds to as `round_to` does: nearest-even, subnormals kept, overflow to infinity or NaN.

Tested over every binade, its midpoints and the overflow threshold. FP8 is not among them: with saturate=0, ONNX Runtime
1.32 casts 494.65 to 448 in E4M3FN (nearest above the largest value is NaN) and 62947 to NaN in E5M2 (it is infinity).
"""

_OPSET = 21


def write_rounded(model: ir.Model, formats: Mapping[str, Format]) -> ir.Model:
    """A copy of the graph that computes with the tensors of `formats` rounded.

    Weights are rounded here, once, and stored in the narrowest ONNX type that holds the format, behind a Cast to
    float32. Every other tensor is rounded where it comes about. The rounded value keeps the tensor's name (the one
    before it is `NAME/exact`), except at a graph input, whose rounded value is `NAME/rounded`.
    A bound of Clip that the format cannot hold bounds nothing there and stays as it is.

    Args:
        model: a prepared graph in float32, opset 21 or later. It is left alone.
        formats: format by tensor name; the names are those of `rounding_points` and `float_weights`. Tensors that are
            not named stay in float32, as do those in format fp32.

    Raises:
        InputError: a name is no tensor of the graph, or a format is not a float format.
    """
    model = model.clone()
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values.update((value.name, value) for node in graph for value in node.outputs)
    weights = set(float_weights(model))
    sizes = carries_sizes(graph)
    used: dict[str, Format] = {}
    for name, fmt in formats.items():
        if fmt.name == "fp32":
            continue
        if fmt.kind != "float" or not fmt.has_zero:
            raise InputError(f"tensor {name} cannot be rounded to {fmt.name} in the graph: it is not a float format")
        if name in weights:
            _round_weight(graph, graph.initializers[name], fmt, sizes)
        elif name in values:
            _insert(graph, values[name], fmt)
            if fmt.name not in CAST_TYPES:
                used[fmt.name] = fmt
        else:
            raise InputError(f"tensor {name} is not in the graph, so it cannot be rounded to {fmt.name}")
    for fmt in used.values():
        function = rounding_function(fmt)
        model.functions[function.identifier()] = function
    if used:
        model.opset_imports[DOMAIN] = 1
    return model


def strip_rounding(model: ir.Model) -> tuple[ir.Model, dict[str, Format]]:
    """The float32 graph behind a written one, and the format of every tensor that was rounded in it.

    The roundings go and the stored weights become float32 initializers of the same (rounded) values, so that running
    the graph and rounding the named tensors computes the same as running `model`. The argument is left alone.
    """
    model = model.clone()
    graph = model.graph
    formats: dict[str, Format] = {}
    for node in list(graph):
        named = node.op_type if node.domain == DOMAIN else node.metadata_props.get(DOMAIN)
        source = node.inputs[0] if node.inputs else None
        if named is None or source is None:
            continue
        if source.is_initializer():
            _widen(graph, node, source)
        elif node.domain == DOMAIN or _widens_to_float(node):
            _remove(graph, node, formats, get_format(named))
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    model.opset_imports.pop(DOMAIN, None)
    return model, formats


def _round_weight(graph: ir.Graph, weight: ir.Value, fmt: Format, sizes: set[ir.Value]) -> None:
    """Replace the uses of a weight as data; where it also is a setting, that use keeps the exact values."""
    name = str(weight.name)
    assert weight.const_value is not None
    exact = weight.const_value.numpy()
    rounded = round_to(exact, fmt)
    uses = [(node, index) for node, index in weight.uses() if not steers(node, index, sizes)]
    if all(node.op_type == "Clip" for node, _ in uses) and not np.isfinite(rounded).all():
        return
    dtype = ir.DataType[storage_dtype(fmt)]
    keeps_exact = len(uses) < len(weight.uses())
    if not keeps_exact:
        del graph.initializers[name]
    kept_name = f"{name}/rounded" if keeps_exact else name
    if dtype == ir.DataType.FLOAT:
        new = add_initializer(graph, kept_name, rounded)
    else:
        stored = rounded.astype(dtype.numpy())
        narrow = add_initializer(graph, f"{name}/{fmt.name}", ir.Tensor(stored, dtype=dtype))
        new = ir.Value(name=kept_name, shape=ir.Shape(exact.shape), type=ir.TensorType(ir.DataType.FLOAT))
        first = graph[0] if len(graph) else None
        cast = _cast(narrow, new, ir.DataType.FLOAT, fmt)
        graph.append(cast) if first is None else graph.insert_before(first, cast)
    for node, index in uses:
        node.replace_input_with(index, new)
    for position, output in enumerate(graph.outputs):
        if output is weight:
            graph.outputs[position] = new


def _insert(graph: ir.Graph, value: ir.Value, fmt: Format) -> None:
    """Put the rounding of `value` between it and its readers."""
    name = str(value.name)
    rounded = ir.Value(name=f"{name}/rounded" if value.is_graph_input() else name, shape=value.shape, type=value.type)
    value.replace_all_uses_with(rounded, replace_graph_outputs=True)
    if not value.is_graph_input():
        value.name = f"{name}/exact"
    if fmt.name in CAST_TYPES:
        dtype = CAST_TYPES[fmt.name]
        narrow = ir.Value(name=f"{name}/{fmt.name}", shape=value.shape, type=ir.TensorType(dtype))
        nodes = [_cast(value, narrow, dtype, fmt), _cast(narrow, rounded, ir.DataType.FLOAT, fmt)]
    else:
        nodes = [ir.Node(DOMAIN, fmt.name, [value], outputs=[rounded], name=f"{name}/round")]
    producer = value.producer()
    if producer is not None:
        graph.insert_after(producer, nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _cast(source: ir.Value, target: ir.Value, dtype: ir.DataType, fmt: Format) -> ir.Node:
    return ir.Node(
        "",
        "Cast",
        [source],
        [ir.AttrInt64("to", dtype.value)],
        outputs=[target],
        name=f"{target.name}/cast",
        metadata_props={DOMAIN: fmt.name},
    )


def _widen(graph: ir.Graph, cast: ir.Node, stored: ir.Value) -> None:
    """Make the output of the Cast that widens a weight an initializer."""
    assert stored.const_value is not None
    output = cast.outputs[0]
    name = str(output.name)
    array = stored.const_value.numpy().astype(np.float32)
    output.name = f"{name}/cast"
    weight = add_initializer(graph, name, array)
    output.replace_all_uses_with(weight, replace_graph_outputs=True)
    graph.remove(cast, safe=True)
    if not stored.uses():
        del graph.initializers[str(stored.name)]


def _widens_to_float(cast: ir.Node) -> bool:
    return cast.attributes.get_int("to") == ir.DataType.FLOAT.value


def _remove(graph: ir.Graph, node: ir.Node, formats: dict[str, Format], fmt: Format) -> None:
    """Take out the rounding that ends in `node`, and note what it rounded."""
    rounded = node.outputs[0]
    inner = None if node.domain == DOMAIN else node.inputs[0]
    first = node if inner is None else inner.producer()
    if first is None or first.inputs[0] is None:
        return
    value = first.inputs[0]
    name = str(value.name if value.is_graph_input() else rounded.name)
    rounded.name = f"{name}/removed"
    rounded.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    if first is not node:
        graph.remove(first, safe=True)
    value.name = name
    formats[name] = fmt


def rounding_function(fmt: Format) -> ir.Function:
    """The local function that rounds float32 values of any shape to `format`, exact for all of them.

    |x|, held between the smallest normal value and the power of two of the largest, lies in a binade [p, 2p). With
    u = 2^-24, q = fl((1/(2u) + 1)·|x|) gives p = q − fl((1 − u)·q) exactly (S. M. Rump, "Ultimately fast accurate
    summation", SIAM J. Sci. Comput. 31, 2009, algorithm 3.5). The step of the format is then p·2^-m, and dividing
    by it, rounding half to even and multiplying are exact, for it is a power of two. What lands above the largest
    value becomes infinity, else NaN, else the largest value, whichever the format has.
    """
    top = 2.0 ** (math.frexp(fmt.max)[1] - 1)
    body = _Body()
    x = body.input
    held = body.op("Clip", body.op("Abs", x), body.constant(fmt.min_normal), body.constant(top))
    unscale = None
    if top > 2.0**100:  # q would overflow: bring values from 1 up down by 2^-64, exactly
        at_least_one = body.op("GreaterOrEqual", held, body.constant(1.0))
        held = body.op("Mul", held, body.op("Where", at_least_one, body.constant(2.0**-64), body.constant(1.0)))
        unscale = body.op("Where", at_least_one, body.constant(2.0**64), body.constant(1.0))
    q = body.op("Mul", held, body.constant(2.0**23 + 1))
    # the Abs changes nothing but keeps compilers from contracting Mul and Sub into one fused operation
    power = body.op("Sub", q, body.op("Abs", body.op("Mul", q, body.constant(1 - 2.0**-24))))
    if unscale is not None:
        power = body.op("Mul", power, unscale)
    step = body.op("Mul", power, body.constant(2.0**-fmt.mantissa_bits))
    y = body.op("Mul", body.op("Round", body.op("Div", x, step)), step)
    largest = body.constant(fmt.max)
    if fmt.has_inf or fmt.has_nan:
        over = body.op("Mul", y, body.constant(math.inf)) if fmt.has_inf else body.constant(math.nan)
        y = body.op("Where", body.op("Greater", body.op("Abs", y), largest), over, y)
    else:
        y = body.op("Where", body.op("Greater", y, largest), largest, y)
        least = body.constant(fmt.min)
        y = body.op("Where", body.op("Less", y, least), least, y)
    if not fmt.has_negative_zero:
        zero = body.constant(0.0)
        y = body.op("Where", body.op("Equal", y, zero), zero, y)
    y.name = "y"
    graph = ir.Graph([x], [y], nodes=body.nodes, opset_imports={"": _OPSET}, name=fmt.name)
    return ir.Function(DOMAIN, fmt.name, graph=graph, attributes=[])


class _Body:
    """The nodes of a function while it is written."""

    def __init__(self) -> None:
        self.input = ir.Value(name="x")
        self.nodes: list[ir.Node] = []

    def op(self, op_type: str, *inputs: ir.Value) -> ir.Value:
        return self._add(ir.Node("", op_type, inputs))

    def constant(self, value: float) -> ir.Value:
        tensor = ir.Tensor(np.array(value, dtype=np.float32))
        return self._add(ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)]))

    def _add(self, node: ir.Node) -> ir.Value:
        node.outputs[0].name = f"v{len(self.nodes)}"
        self.nodes.append(node)
        return node.outputs[0]
