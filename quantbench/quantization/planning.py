"""From a recipe and observations to the plan of a graph."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import onnx_ir as ir

from quantbench.calibration import Observation, get_calibrator
from quantbench.errors import InputError
from quantbench.graphs.accumulators import accumulating
from quantbench.graphs.block_operands import held_format, summed_axes
from quantbench.graphs.edit import constant
from quantbench.graphs.rounding_points import float_weights, operation_of, rounding_points
from quantbench.numerics import Format, get_format
from quantbench.quantization.affine import activation_affine, integer_range
from quantbench.quantization.code_grids import on_grid
from quantbench.quantization.placement import Placement, WeightUse, place_activations, weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.worthwhile import slower_in_integers

__all__ = ["check_rules", "fast_placement", "integer_placement", "plan_graph"]


def integer_placement(model: ir.Model, recipe: Recipe, kept: Collection[str] = ()) -> Placement:
    """The nodes and tensors of a graph that the recipe puts into integers; none when its activations are floats.

    Args:
        model: a prepared graph.
        recipe: what is asked.
        kept: names of nodes that stay in float all the same.
    """
    floats = [node.name or "" for node in model.graph if _activation_format(recipe, node).kind != "int"]
    return place_activations(model, {*floats, *kept})


def fast_placement(
    model: ir.Model, recipe: Recipe, sizes: Mapping[str, float] | None, kept: Collection[str] = ()
) -> tuple[Placement, tuple[str, ...]]:
    """The same without the nodes that are faster in float, where the recipe leaves those there, and their names.

    Nodes that are faster in float when none is kept stay there whatever is kept, so that no placement needs tensors
    that the one without kept nodes does not.

    Args:
        sizes: elements of the tensors for one sample; None where what is faster does not matter.
    """
    placement = integer_placement(model, recipe, kept)
    if sizes is None or recipe.placement != "fast" or get_format(recipe.activation_format).bits != 8:
        return placement, ()
    faster = set(slower_in_integers(model, integer_placement(model, recipe), sizes)).difference(kept)
    if kept:
        faster.update(slower_in_integers(model, integer_placement(model, recipe, {*kept, *faster}), sizes))
    in_order = tuple(name for name in placement.nodes if name in faster)
    return integer_placement(model, recipe, {*kept, *faster}), in_order


def plan_graph(
    model: ir.Model,
    recipe: Recipe,
    observations: Mapping[str, Observation],
    sizes: Mapping[str, float] | None = None,
    *,
    kept: Collection[str] = (),
    wide: Collection[str] = (),
) -> GraphPlan:
    """Decide the format, scale and zero point of every tensor of a graph.

    Args:
        model: a prepared graph.
        recipe: what is asked.
        observations: of the tensors of `fast_placement`.
        sizes, kept: as there.
        wide: names of weights that get 8 bits where the recipe has fewer, and a scale per channel instead of blocks.

    Raises:
        InputError: the recipe asks for what the graph does not have.
    """
    placement, faster = fast_placement(model, recipe, sizes, kept)
    uses = weight_uses(model)
    operands = _operand_formats(model, recipe)
    tensors: dict[str, TensorPlan] = {}
    for name in float_weights(model):
        plan = _block_weight_plan(model, name, operands) or _weight_plan(
            model, name, uses.get(name), recipe, name in wide
        )
        if plan is not None:
            tensors[name] = plan
    for name, use in uses.items():
        weight = tensors.get(name)
        if use.bias is None or use.node not in placement.nodes or weight is None:
            continue
        if get_format(weight.format).kind == "int" and (not weight.block_size or get_format(weight.format).bits <= 4):
            tensors[use.bias] = TensorPlan("bias", "int32", "source scale × weight scale", 0, axis=0)
    tensors |= _activation_plans(model, recipe, placement, observations)
    kept_in_float = tuple(node.name or "" for node in model.graph if node.name in kept)
    accumulators = _accumulator_formats(model, recipe, placement)
    return GraphPlan(tensors, placement.nodes, kept_in_float, faster, operands=operands, accumulators=accumulators)


def check_rules(models: Mapping[str, ir.Model], recipe: Recipe) -> None:
    """Refuse a recipe with a rule that matches nothing, which is a mistake.

    Raises:
        InputError: names the rule.
    """
    names = [node.name or "" for model in models.values() for node in model.graph]
    names += [name for model in models.values() for name in model.graph.initializers]
    for rule in recipe.layers:
        if not any(fnmatchcase(name, rule.match) for name in names):
            near = difflib.get_close_matches(rule.match, names, n=3, cutoff=0.3) or names[:3]
            raise InputError(
                f"the recipe's layer pattern {rule.match!r} matches no node and no weight; "
                f"some are named {', '.join(map(repr, near))}"
            )


def _operand_formats(model: ir.Model, recipe: Recipe) -> dict[str, tuple[str | None, str | None]]:
    """The matrix operations that read blocks, and the formats of what they multiply."""
    operands: dict[str, tuple[str | None, str | None]] = {}
    for node in model.graph:
        if not summed_axes(node):
            continue
        formats = [_operand_format(recipe, node, value) for value in node.inputs[:2]]
        kinds = {fmt.kind for fmt in formats}
        if kinds == {"block", "int"} and constant(node.inputs[0]) is None and formats[0].kind == "int":
            raise InputError(
                f"node {node.name} cannot multiply activations in {formats[0].name} by weights in {formats[1].name}; "
                f"give --activations a float or block format, such as bfloat16 or {formats[1].name}"
            )
        if "block" in kinds:
            left, right = (fmt.name if fmt.kind == "block" else None for fmt in formats)
            operands[node.name or ""] = left, right
    return operands


def _accumulator_formats(model: ir.Model, recipe: Recipe, placement: Placement) -> dict[str, tuple[str, int]]:
    """What the float operations add up in, where it is not float32."""
    integers = set(placement.nodes)
    wanted = {
        node.name or "": recipe.accumulator_for(*_layer_names(node))
        for node in accumulating(model)
        if node.name not in integers
    }
    return {name: (fmt.name, chunk) for name, (fmt, chunk) in wanted.items() if fmt.name != "fp32"}


def _operand_format(recipe: Recipe, node: ir.Node, value: ir.Value | None) -> Format:
    if value is not None and constant(value) is not None:
        return recipe.formats_for(value.name or "", node.name or "")[0]
    return _activation_format(recipe, node)


def _block_weight_plan(
    model: ir.Model, name: str, operands: Mapping[str, tuple[str | None, str | None]]
) -> TensorPlan | None:
    """The plan of a weight that a matrix operation reads in blocks; None for any other."""
    for node, index in model.graph.initializers[name].uses():
        block = operands.get(node.name or "", (None, None))[index] if index < 2 else None
        if block is not None:
            axis, _ = summed_axes(node)[index]
            return TensorPlan("weight", block, axis=axis, block_size=get_format(block).block_size)
    return None


def _weight_plan(model: ir.Model, name: str, use: WeightUse | None, recipe: Recipe, wide: bool) -> TensorPlan | None:
    """Weights of matrix operations and tables of lookups are in the weights' format. Biases and other constants are
    operands of arithmetic, so they are in the activations'; where those are integers, constants stay in float32."""
    if use is None:
        weights = _format_of_reader(recipe, model.graph.initializers[name])
    else:
        weights, _ = recipe.formats_for(name, use.node)
    if weights.kind != "int":
        held = held_format(weights)
        return None if held.name == "fp32" else TensorPlan("weight", held.name)
    if use is None:
        return None
    if wide:
        weights = get_format("uint8" if weights.name.startswith("u") else "int8")
    shape = model.graph.initializers[name].const_value.shape.numpy()  # type: ignore[union-attr]
    smallest, largest = integer_range(weights.name)
    middle = (smallest + largest + 1) // 2
    amplitude = recipe.weight_amplitude
    rule = f"{'max|w|' if amplitude == 'max' else 'amplitude of least squared error'}/{largest - middle}"
    if recipe.weight_rounding != "nearest":
        rule = f"by {recipe.weight_rounding}"
    if not wide and recipe.block_size and use.reduction_axis is not None and shape[use.reduction_axis] > 1:
        return TensorPlan(
            "weight", weights.name, rule, middle, use.reduction_axis, recipe.block_size, amplitude=amplitude
        )
    if recipe.granularity == "tensor":
        return TensorPlan("weight", weights.name, rule, middle, amplitude=amplitude)
    return TensorPlan("weight", weights.name, rule, middle, use.channel_axis, amplitude=amplitude)


def _activation_plans(
    model: ir.Model, recipe: Recipe, placement: Placement, observations: Mapping[str, Observation]
) -> dict[str, TensorPlan]:
    plans: dict[str, TensorPlan] = {}
    values = {value.name: value for value in model.graph.inputs}
    values |= {output.name: output for node in model.graph for output in node.outputs}
    producers = {name: value.producer() for name, value in values.items()}
    for name in placement.tensors:
        if name in placement.tied:
            continue
        node = producers.get(name)
        integers = get_format(recipe.activation_format) if node is None else _activation_format(recipe, node)
        if integers.kind != "int":  # made by a layer that stays in float, read by one in integers
            integers = get_format(recipe.activation_format)
        if integers.kind != "int":
            integers = get_format("uint8")
        seen = observations[name]
        low, high = get_calibrator(recipe.calibrator)(seen, 1 << integers.bits)
        affine = on_grid(values[name], activation_affine(low, high, integers.name), placement.nodes)
        zero_point = int(affine.zero_point)
        plans[name] = TensorPlan("activation", integers.name, float(affine.scale), zero_point, range=(low, high))
    for name in placement.tied:  # after their sources
        source = name
        while source in placement.tied:
            source = placement.tied[source]
        plans[name] = plans[source]
    carried = set(placement.tensors)
    inputs = {value.name: value for value in model.graph.inputs}
    for name in rounding_points(model):
        node = producers.get(name)
        wanted = _format_of_reader(recipe, inputs[name]) if node is None else _activation_format(recipe, node)
        if name not in carried and wanted.kind != "int" and wanted.name != "fp32":
            plans[name] = TensorPlan("activation", held_format(wanted).name)
    return plans


def _format_of_reader(recipe: Recipe, value: ir.Value) -> Format:
    """The activation format of the first operation that reads a value that no operation makes."""
    for reader, _ in value.uses():
        return _activation_format(recipe, reader)
    return get_format(recipe.activation_format)


def _activation_format(recipe: Recipe, node: ir.Node) -> Format:
    return recipe.formats_for(*_layer_names(node))[1]


def _layer_names(node: ir.Node) -> list[str]:
    """What rules of the recipe know a layer by: the names of an operation, of its weights, and of its activation."""
    weights = (value.name or "" for value in node.inputs if value is not None and value.is_initializer())
    names = [node.name or "", *weights]
    before = operation_of(node)
    return names if before is None else [*_layer_names(before), *names]
