"""Bring a graph into the plain form that the other passes and the planner expect."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

from quantbench.graphs.edit import removable, replace_value

__all__ = ["clean"]


def clean(model: ir.Model) -> ir.Model:
    """Lift constants, drop what nothing reads, give every node and value a name.

    Requires: a checked model.
    Ensures: constants are initializers and no initializer is a graph input; no Identity but where a graph output needs
    one for its name; no unused node, initializer or function; nodes named after their first outputs; topological order.
    """
    ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
    )(model)
    _remove_identities(model.graph)
    ir.passes.Sequential(
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        common.TopologicalSortPass(),
        common.ClearMetadataAndDocStringPass(),
    )(model)
    _name_nodes(model.graph)
    return model


def _remove_identities(graph: ir.Graph) -> None:
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Identity" and node.domain == "" else None
        if source is not None and removable(node, source):
            replace_value(graph, node.outputs[0], source)
            graph.remove(node, safe=True)


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after its first output, which is unique in the graph and stable from run to run."""
    for node in graph:
        node.name = node.outputs[0].name
