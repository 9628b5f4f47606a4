"""Small ONNX models for the tests of every room: written as text, run by ONNX Runtime as they are."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    """Seeded standard normal values, float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def graph(text: str, **weights: object) -> onnx.ModelProto:
    """A model from ONNX's textual form, with further initializers."""
    proto = onnx.parser.parse_model(f"{HEADER}\n{text}")
    for name, values in weights.items():
        array = np.asarray(values)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.checker.check_model(proto)
    return proto


def run(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What ONNX Runtime computes, without any rewriting of its own."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feeds)


def operators(proto: onnx.ModelProto) -> list[str]:
    """The operators of a graph in its order."""
    return [node.op_type for node in proto.graph.node]


def weights_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The initializers by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
