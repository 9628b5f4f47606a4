"""From a recipe and observations to the plan of a graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase

import onnx_ir as ir

from quantbench.calibration import Observation, get_calibrator
from quantbench.errors import InputError
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.numerics import Format, get_format
from quantbench.quantization.affine import activation_affine, integer_range
from quantbench.quantization.placement import Placement, WeightUse, place_activations, weight_uses
from quantbench.quantization.plan import GraphPlan, TensorPlan
from quantbench.quantization.recipe import Recipe

__all__ = ["check_rules", "integer_placement", "plan_graph"]


def integer_placement(model: ir.Model, recipe: Recipe, kept: Collection[str] = ()) -> Placement:
    """The nodes and tensors of a graph that the recipe puts into integers; none when its activations are floats.

    Args:
        model: a prepared graph.
        recipe: what is asked.
        kept: names of nodes that stay in float all the same.
    """
    floats = [node.name or "" for node in model.graph if _activation_format(recipe, node).kind != "int"]
    return place_activations(model, {*floats, *kept})


def plan_graph(
    model: ir.Model, recipe: Recipe, observations: Mapping[str, Observation], kept: Collection[str] = ()
) -> GraphPlan:
    """Decide the format, scale and zero point of every tensor of a graph.

    Args:
        model: a prepared graph.
        recipe: what is asked.
        observations: of the tensors of `integer_placement`.
        kept: as there.

    Raises:
        InputError: the recipe asks for what the graph does not have.
    """
    placement = integer_placement(model, recipe, kept)
    uses = weight_uses(model)
    tensors: dict[str, TensorPlan] = {}
    for name in float_weights(model):
        plan = _weight_plan(model, name, uses.get(name), recipe)
        if plan is not None:
            tensors[name] = plan
    for name, use in uses.items():
        weight = tensors.get(name)
        if use.bias is None or use.node not in placement.nodes or weight is None:
            continue
        if get_format(weight.format).kind == "int" and (not weight.block_size or get_format(weight.format).bits <= 4):
            tensors[use.bias] = TensorPlan("bias", "int32", "source scale × weight scale", 0, axis=0)
    tensors |= _activation_plans(model, recipe, placement, observations)
    return GraphPlan(tensors, placement.nodes, tuple(node.name or "" for node in model.graph if node.name in kept))


def check_rules(models: Mapping[str, ir.Model], recipe: Recipe) -> None:
    """Refuse a recipe with a rule that matches nothing, which is a mistake.

    Raises:
        InputError: names the rule.
    """
    names = {node.name or "" for model in models.values() for node in model.graph}
    names |= {name for model in models.values() for name in model.graph.initializers}
    for rule in recipe.layers:
        if not any(fnmatchcase(name, rule.match) for name in names):
            raise InputError(f"the recipe's layer pattern {rule.match!r} matches no node and no weight")


def _weight_plan(model: ir.Model, name: str, use: WeightUse | None, recipe: Recipe) -> TensorPlan | None:
    """Float formats hold every weight; integer formats only those of matrix operations and lookups."""
    weights, _ = recipe.formats_for(name, *([use.node] if use is not None else []))
    if weights.kind == "float":
        return None if weights.name == "fp32" else TensorPlan("weight", weights.name)
    if weights.kind != "int":
        raise InputError(f"weights in {weights.name} are not supported by convert; use an integer or a float format")
    if use is None:
        return None
    shape = model.graph.initializers[name].const_value.shape.numpy()  # type: ignore[union-attr]
    smallest, largest = integer_range(weights.name)
    middle = (smallest + largest + 1) // 2
    amplitude = recipe.weight_amplitude
    rule = f"{'max|w|' if amplitude == 'max' else 'amplitude of least squared error'}/{largest - middle}"
    if recipe.block_size and use.reduction_axis is not None and shape[use.reduction_axis] > 1:
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
    producers = {output.name: node for node in model.graph for output in node.outputs}
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
        affine = activation_affine(low, high, integers.name)
        zero_point = int(affine.zero_point)
        plans[name] = TensorPlan("activation", integers.name, float(affine.scale), zero_point, range=(low, high))
    for name in placement.tied:  # after their sources
        source = name
        while source in placement.tied:
            source = placement.tied[source]
        plans[name] = plans[source]
    carried = set(placement.tensors)
    for name in rounding_points(model):
        node = producers.get(name)
        wanted = get_format(recipe.activation_format) if node is None else _activation_format(recipe, node)
        if name not in carried and wanted.kind == "float" and wanted.name != "fp32":
            plans[name] = TensorPlan("activation", wanted.name)
        elif wanted.kind == "block":
            raise InputError(f"activations in {wanted.name} are not supported by convert; use an integer or a float")
    return plans


def _activation_format(recipe: Recipe, node: ir.Node) -> Format:
    names = [
        node.name or "",
        *(value.name or "" for value in node.inputs if value is not None and value.is_initializer()),
    ]
    return recipe.formats_for(*names)[1]
