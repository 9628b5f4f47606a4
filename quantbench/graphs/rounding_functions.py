"""Emulation that travels with the model: roundings written into the graph as Casts or as functions of operators.

The written graph computes what `rounding_points` and `block_operands` define in any ONNX runtime, without this package.
A format that ONNX has as a tensor type is rounded by a pair of Casts. Any other is rounded by a local function, one a
format, named by the format, in the domain `quantbench.rounding`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from quantbench.errors import InputError
from quantbench.graphs.block_operands import Blocks, Operand, block_rounder, summed_axes
from quantbench.graphs.edit import add_initializer
from quantbench.graphs.function_bodies import DOMAIN, rounding_function
from quantbench.graphs.rounding_points import carries_sizes, float_weights, steers
from quantbench.numerics import Format, get_format, round_to, storage_dtype

__all__ = ["CAST_TYPES", "DOMAIN", "rounding_function", "strip_rounding", "write_rounded"]

CAST_TYPES = {
    "fp16": ir.DataType.FLOAT16,
    "bfloat16": ir.DataType.BFLOAT16,
}
"""Formats that Cast rounds to as `round_to` does: nearest-even, subnormals kept, overflow to infinity or NaN.

Tested over every binade, its midpoints and the overflow threshold. FP8 is not among them: with saturate=0, ONNX Runtime
1.32 casts 494.65 to 448 in E4M3FN (nearest above the largest value is NaN) and 62947 to NaN in E5M2 (it is infinity).
"""

Found = dict[str, Format | Blocks]
"""What is rounded between the operations of a graph, by tensor."""


def write_rounded(
    model: ir.Model, formats: Mapping[str, Format], operands: Mapping[Operand, Format] | None = None
) -> None:
    """Let the graph compute with the tensors of `formats` rounded, and read `operands` in blocks.

    Weights are rounded here, once, and stored in the narrowest ONNX type that holds the format, behind a Cast to
    float32. Every other tensor is rounded where it comes about. The rounded value keeps the tensor's name (the one
    before it is `NAME/exact`), except at a graph input, whose rounded value is `NAME/rounded`.
    A bound of Clip that the format cannot hold bounds nothing there and stays as it is.
    What is read in blocks is a tensor of its own, `NAME/FORMAT_AXIS`: a weight's exact values rounded, or what another
    tensor holds, rounded once more. A weight that is read in no other way keeps its name.

    Args:
        model: a prepared graph in float32, opset 21 or later; changed in place.
        formats: plain format by tensor name; the names are those of `rounding_points` and `float_weights`. Tensors
            that are not named stay in float32, as do those in format fp32.
        operands: block format by operand of a matrix operation.

    Raises:
        InputError: a name is no tensor of the graph, a format is not a float format, or an operand is none that is
            read in blocks.
    """
    graph = model.graph
    values = {value.name: value for value in graph.inputs}
    values.update((value.name, value) for node in graph for value in node.outputs)
    weights = set(float_weights(model))
    sizes = carries_sizes(graph)
    used: dict[str, Format] = {}
    blocks = _blocks_of(graph, operands or {})
    whole = _block_weights(graph, blocks)
    for name, fmt in formats.items():
        if fmt.name == "fp32" or name in whole:
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
    used.update((rounding.format.name, rounding.format) for rounding in _insert_blocks(graph, blocks))
    for fmt in used.values():
        function = rounding_function(fmt)
        model.functions[function.identifier()] = function
    if used:
        model.opset_imports[DOMAIN] = 1


def strip_rounding(model: ir.Model) -> Found:
    """Make a written graph the float32 graph behind it. Returns the rounding of every tensor that was rounded in it.

    The roundings go and the stored weights become float32 initializers of the same (rounded) values, so that running
    the graph and rounding the named tensors computes the same as running what was written. An operand in blocks that
    is not all that its tensor is for remains a copy of the tensor, made by Identity.
    """
    graph = model.graph
    found: Found = {}
    for node in list(graph):
        named = node.op_type if node.domain == DOMAIN else node.metadata_props.get(DOMAIN)
        source = node.inputs[0] if node.inputs else None
        if named is None or source is None:
            continue
        fmt = get_format(named)
        if source.is_initializer():
            _widen(graph, node, source)
        elif fmt.kind == "block":
            _remove_blocks(graph, node, source, fmt, found)
        elif node.domain == DOMAIN or _widens_to_float(node):
            _remove(graph, node, found, fmt)
    for key in [key for key in model.functions if key[0] == DOMAIN]:
        del model.functions[key]
    model.opset_imports.pop(DOMAIN, None)
    return found


def _blocks_of(graph: ir.Graph, operands: Mapping[Operand, Format]) -> dict[tuple[ir.Node, int], Blocks]:
    """The operands that are read in blocks, in the order of the graph."""
    blocks = {
        (node, index): Blocks(axis, run, operands[node.name or "", index])
        for node in graph
        for index, (axis, run) in enumerate(summed_axes(node))
        if (node.name or "", index) in operands
    }
    known = {(node.name or "", index) for node, index in blocks}
    for name, index in operands:
        if (name, index) not in known:
            raise InputError(f"input {index} of node {name!r} is no operand that a matrix operation reads in blocks")
    return blocks


def _block_weights(graph: ir.Graph, blocks: dict[tuple[ir.Node, int], Blocks]) -> set[str]:
    """Round the weights among the operands and take them out of `blocks`. Returns those that have no other use."""
    readers: dict[tuple[ir.Value, Blocks], list[tuple[ir.Node, int]]] = {}
    for (node, index), rounding in blocks.items():
        value = node.inputs[index]
        if value is not None and value.is_initializer() and not value.is_graph_input():
            readers.setdefault((value, rounding), []).append((node, index))
    whole: set[str] = set()
    for (weight, rounding), uses in readers.items():
        assert weight.const_value is not None
        name = str(weight.name)
        rounded = np.array(weight.const_value.numpy(), np.float32, order="C")
        block_rounder(rounding, weight=True)(rounded)
        if len(uses) == len(weight.uses()) and not weight.is_graph_output():
            weight.const_value = ir.Tensor(rounded, name=name)
            whole.add(name)
        else:
            copy = add_initializer(graph, f"{name}/{_label(rounding)}", rounded)
            for node, index in uses:
                node.replace_input_with(index, copy)
        for use in uses:
            del blocks[use]
    return whole


def _insert_blocks(graph: ir.Graph, blocks: Mapping[tuple[ir.Node, int], Blocks]) -> set[Blocks]:
    """Put a rounding in front of each operand; those that read one tensor alike share it."""
    made: dict[tuple[ir.Value, Blocks], ir.Value] = {}
    for (node, index), rounding in blocks.items():
        value = node.inputs[index]
        assert value is not None
        if (value, rounding) not in made:
            name = f"{value.name}/{_label(rounding)}"
            copy = ir.Value(name=name, shape=value.shape, type=value.type)
            attributes = [ir.AttrInt64("axis", rounding.axis), ir.AttrInt64("run", rounding.run)]
            call = ir.Node(DOMAIN, rounding.format.name, [value], attributes, outputs=[copy], name=f"{name}/round")
            producer = value.producer()
            graph.insert_before(graph[0], call) if producer is None else graph.insert_after(producer, call)
            made[value, rounding] = copy
        node.replace_input_with(index, made[value, rounding])
    return set(blocks.values())


def _label(rounding: Blocks) -> str:
    return f"{rounding.format.name}_{rounding.axis}" + (f"_{rounding.run}" if rounding.run else "")


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


def _remove_blocks(graph: ir.Graph, call: ir.Node, source: ir.Value, fmt: Format, found: Found) -> None:
    """Take out the rounding of an operand: the tensor itself is rounded where nothing else reads it, else a copy."""
    copy = call.outputs[0]
    axis, run = call.attributes.get_int("axis", -1), call.attributes.get_int("run", 0)
    assert axis is not None and run is not None
    if len(source.uses()) == 1 and not source.is_graph_output():
        held = found.get(str(source.name))
        assert held is None or isinstance(held, Format)
        copy.replace_all_uses_with(source, replace_graph_outputs=True)
        graph.remove(call, safe=True)
        found[str(source.name)] = Blocks(axis, run, fmt, held)
    else:
        name = str(copy.name)
        copy.name = f"{name}/removed"
        kept = ir.Value(name=name, shape=copy.shape, type=copy.type)
        graph.insert_before(call, ir.Node("", "Identity", [source], outputs=[kept], name=f"{name}/copy"))
        copy.replace_all_uses_with(kept, replace_graph_outputs=True)
        graph.remove(call, safe=True)
        found[name] = Blocks(axis, run, fmt)


def _remove(graph: ir.Graph, node: ir.Node, found: Found, fmt: Format) -> None:
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
    found[name] = fmt
