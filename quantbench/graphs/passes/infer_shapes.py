"""Say of every tensor what shape and element type it has."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import onnx_ir.passes.common as common

__all__ = ["infer_shapes"]


def infer_shapes(model: ir.Model) -> ir.Model:
    """Infer shapes and element types by ONNX's own rules.

    Requires: a checked model.
    Ensures: values have those that follow from the graph's inputs; sizes that do not stay unknown.
    """
    sizes = (size for value in model.graph.inputs for size in value.shape or ())
    names = {size.value for size in sizes if not isinstance(size, int) and size.value is not None}
    nodes = ir.traversal.RecursiveGraphIterator(model.graph)
    if not all(_is_known(output, names) for node in nodes for output in node.outputs):
        common.ShapeInferencePass()(model)
    return model


def _is_known(value: ir.Value, names: Collection[str | None]) -> bool:
    """Whether there is nothing to infer: every size is a number, or a name that an input's size has."""
    if value.type is None or value.shape is None:
        return False
    return all(isinstance(size, int) or size.value in names for size in value.shape)
