"""Bring a graph into the plain form that the other passes and the planner expect."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

__all__ = ["clean"]


def clean(model: ir.Model) -> ir.Model:
    """Lift constants, drop what nothing reads, give every node and value a name.

    Requires: a checked model.
    Ensures: constants are initializers and no initializer is a graph input; no Identity between two nodes; no unused
    node or initializer; unique names for all nodes and values; topological order.
    """
    ir.passes.Sequential(
        common.InlinePass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.RemoveInitializersFromInputsPass(),
        common.IdentityEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.RemoveUnusedFunctionsPass(),
        common.TopologicalSortPass(),
        common.ClearMetadataAndDocStringPass(),
    )(model)
    _name_nodes(model.graph)
    return model


def _name_nodes(graph: ir.Graph) -> None:
    """Name each node after its first output, which is unique in the graph and stable from run to run."""
    for node in graph:
        node.name = node.outputs[0].name
