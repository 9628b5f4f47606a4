"""Say of every tensor what shape and element type it has."""

from __future__ import annotations

import onnx_ir as ir
import onnx_ir.passes.common as common

__all__ = ["infer_shapes"]


def infer_shapes(model: ir.Model) -> ir.Model:
    """Infer shapes and element types by ONNX's own rules.

    Requires: a checked model.
    Ensures: values have those that follow from the graph's inputs; sizes that do not stay unknown.
    """
    common.ShapeInferencePass()(model)
    return model
