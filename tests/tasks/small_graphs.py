"""Small graphs for the tests of this folder, made with onnx.helper."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from quantbench.graphs import SessionExecutor


def executor(nodes, inputs, outputs, weights=None):
    """A session of one graph. Inputs and outputs: {name: (tensor type, shape)}."""

    def infos(values):
        return [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in values.items()]

    initializers = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return SessionExecutor({"model": model.SerializeToString()}, threads=1)


def identity(shape, kind=TensorProto.FLOAT):
    """A graph that gives back its input, so that a test writes the outputs itself."""
    return executor([helper.make_node("Identity", ["x"], ["y"])], {"x": (kind, shape)}, {"y": (kind, shape)})


def classifier(batch="n", kind=TensorProto.FLOAT, size=6, classes=5):
    """Cast, mean over (height, width), a matrix: outputs `spare` (n, 3) and `logits` (n, classes)."""
    weights = {"w": np.random.default_rng(3).normal(size=(3, classes)).astype(np.float32)}
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["f"], ["spare"], axes=[2, 3], keepdims=0),
        helper.make_node("MatMul", ["spare", "w"], ["logits"]),
    ]
    outputs = {"spare": (TensorProto.FLOAT, [batch, 3]), "logits": (TensorProto.FLOAT, [batch, classes])}
    return executor(nodes, {"x": (kind, [batch, 3, size, size])}, outputs, weights), weights["w"]
