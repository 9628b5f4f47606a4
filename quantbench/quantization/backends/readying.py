"""A published graph in the form that every quantizer reads."""

from __future__ import annotations

import tempfile
from itertools import count
from pathlib import Path

import onnx
import onnx.version_converter
import onnxruntime as ort

from quantbench.errors import InputError
from quantbench.graphs.executor import session_options
from quantbench.graphs.load import check

__all__ = ["readied"]

_OLDEST_OPSET, _OPSET = 13, 17
"""Graphs older than the first opset with scales along an axis are raised to the second."""


def readied(model: onnx.ModelProto, what: str) -> onnx.ModelProto:
    """The graph in a recent opset, with ONNX Runtime's basic optimisations, and a name for every node.

    The quantizers look for weights among initializers, and batch norm already folded; they tell nodes apart by their
    names, which some exporters leave out.

    Args:
        what: the graph, as an error should call it.

    Raises:
        InputError: not valid ONNX, or ONNX Runtime cannot load it.
    """
    check(model, what)
    try:
        if max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")) < _OLDEST_OPSET:
            model = onnx.version_converter.convert_version(model, _OPSET)
        model = _optimised(model)
    except Exception as error:  # neither the converter's exceptions nor the runtime's share a base class
        raise InputError(f"{what} cannot be made ready for other quantizers: {error}") from error
    taken = {node.name for node in model.graph.node}
    unused = (name for name in map("node_{}".format, count()) if name not in taken)
    for node in model.graph.node:
        node.name = node.name or next(unused)
    return onnx.shape_inference.infer_shapes(model)


def _optimised(model: onnx.ModelProto) -> onnx.ModelProto:
    options = session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(options.optimized_model_filepath)
