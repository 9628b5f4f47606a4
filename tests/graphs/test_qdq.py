"""Integer codes in graphs: ONNX Runtime's own operators compute the same values, and fuse what is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, normal, operators, run, weights_of

from quantbench.graphs.passes import clean
from quantbench.graphs.qdq import Affine, QuantizedTensor, write_activations, write_weights
from quantbench.quantization.affine import activation_affine, dequantize, integer_range, quantize, symmetric_affine

FORMATS = ["int4", "uint4", "int8", "uint8", "int16", "uint16"]


def optimised(model: ir.Model, folder: Path) -> list[str]:
    """The operators left when ONNX Runtime has fused what it can."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    return operators(onnx.load(folder / "optimised.onnx"))


def quantized(weight: np.ndarray, name: str = "int8", axis: int | None = 0, block: int = 0) -> QuantizedTensor:
    if axis is None:
        amplitude = np.abs(weight).max()
    elif block:
        amplitude = np.maximum.reduceat(np.abs(weight), range(0, weight.shape[axis], block), axis=axis)
    else:
        amplitude = np.abs(weight).max(axis=tuple(a for a in range(weight.ndim) if a != axis))
    affine = symmetric_affine(amplitude, name, axis, block)
    return QuantizedTensor(quantize(weight, affine), affine)


def bias_codes(bias: np.ndarray, source: Affine, weight: Affine) -> QuantizedTensor:
    scale = (source.scale * weight.scale).astype(np.float32)
    axis = None if scale.ndim == 0 else 0
    return QuantizedTensor(
        np.rint(bias / scale).astype(np.int32), Affine("int32", scale, np.zeros(scale.shape, np.int64), axis)
    )


@given(
    name=st.sampled_from(FORMATS),
    values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    low=st.floats(-1e4, 0, width=32),
    high=st.floats(0, 1e4, width=32),
)
@settings(max_examples=60, deadline=None)
def test_activation_codes_are_those_of_quantize_linear(name: str, values: list[float], low: float, high: float):
    affine = activation_affine(low, high, name)
    model = ir.from_proto(graph("g (float[n] x) => (float[n] y) { y = Identity(x) }"))
    write_activations(model, {"x": affine}, ["y"])
    proto = ir.to_proto(model)
    proto.graph.node.append(onnx.helper.make_node("Cast", ["x_quantized"], ["codes"], to=onnx.TensorProto.INT32))
    proto.graph.output.append(onnx.helper.make_empty_tensor_value_info("codes"))
    x = np.array(values, np.float32)
    y, codes = run(proto, {"x": x})
    np.testing.assert_array_equal(codes, quantize(x, affine))
    np.testing.assert_array_equal(y, dequantize(QuantizedTensor(quantize(x, affine), affine)))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("axis", "block"), [(None, 0), (0, 0), (1, 0), (0, 3), (1, 4), (1, 5), (1, 64)])
def test_weight_values_are_those_of_dequantize_linear(name: str, axis: int | None, block: int):
    """Blocks too: the last one may be short, and one may be longer than the axis."""
    weight = normal(6, 10)
    tensor = quantized(weight, name, axis, block)
    model = ir.from_proto(graph("g (float[n,6] x) => (float[n,10] y) { y = MatMul(x, w) }", w=weight))
    write_weights(model, {"w": tensor})
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    (got,) = run(proto, {"x": np.eye(6, dtype=np.float32)})
    np.testing.assert_array_equal(got, dequantize(tensor))
    smallest, largest = integer_range(name)
    steps = np.broadcast_to(np.abs(got - weight), weight.shape)
    assert steps.max() <= 0.5001 * np.abs(weight).max() / (largest - (smallest + largest + 1) // 2)
    assert weights_of(proto)["w"].dtype == ir.DataType[name.upper()].numpy()


def conv_network() -> ir.Model:
    """Conv → Relu → Conv → Add → GlobalAveragePool → Flatten → Gemm, with the node names of a prepared graph."""
    proto = graph(
        """
        g (float[n,3,6,6] x) => (float[n,5] y)
        {
          a = Conv <pads=[1,1,1,1]> (x, w1, b1)  r = Relu(a)  c = Conv(r, w2, b2)  s = Add(c, r)
          p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm <transB=1> (f, w3, b3)
        }
        """,
        w1=normal(8, 3, 3, 3), b1=normal(8, seed=1), w2=normal(8, 8, 1, 1, seed=2), b2=normal(8, seed=3),
        w3=normal(5, 8, seed=4), b3=normal(5, seed=5),
    )  # fmt: skip
    return clean(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def write_network(
    model: ir.Model, name: str = "uint8", weights: str = "int8", axis: int | None = 0
) -> dict[str, Affine]:
    """Write the network in integers, ranges from ONNX Runtime's float run; returns the activations' parameters."""
    proto = ir.to_proto(model)
    tensors = ["x", "r", "c", "s", "p", "f", "y"]
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(tensor) for tensor in tensors[1:-1])
    x = normal(16, 3, 6, 6, seed=9)
    y, *inner = run(proto, {"x": x})
    seen = dict(zip(tensors, [x, *inner, y], strict=True))
    affines = {tensor: activation_affine(values.min(), values.max(), name) for tensor, values in seen.items()}
    affines["f"] = affines["p"]
    codes = {key: quantized(values, weights, axis) for key, values in weights_of(proto).items() if key.startswith("w")}
    for key, source in (("1", "x"), ("2", "r"), ("3", "f")):
        codes[f"b{key}"] = bias_codes(weights_of(proto)[f"b{key}"], affines[source], codes[f"w{key}"].affine)
    write_activations(model, affines, ["a", "r", "c", "s", "p", "f", "y"])
    write_weights(model, codes)
    return affines


@pytest.mark.parametrize("axis", [0, None])
@pytest.mark.parametrize("weights", ["int8", "uint8"])
def test_onnx_runtime_fuses_everything_to_integer_operators(weights: str, axis: int | None, tmp_path: Path):
    model = conv_network()
    write_network(model, "uint8", weights, axis)
    assert optimised(model, tmp_path) == [
        "QuantizeLinear", "QLinearConv", "QLinearConv", "QLinearAdd", "QLinearGlobalAveragePool", "Flatten", "QGemm",
        "DequantizeLinear",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["uint8", "uint16"])
def test_outputs_are_near_those_in_float_and_keep_their_names(name: str):
    exact, model = conv_network(), conv_network()
    affines = write_network(model, name, "int16" if name == "uint16" else "int8")
    x = normal(16, 3, 6, 6, seed=9)  # those of the ranges
    before, after = run(ir.to_proto(exact), {"x": x})[0], run(ir.to_proto(model), {"x": x})[0]
    assert [value.name for value in model.graph.outputs] == ["y"]
    error = np.abs(after - before).max() / (before.max() - before.min())
    assert 0 < error < (0.03 if name == "uint8" else 2e-4)
    steps = after / affines["y"].scale
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-2 if name == "uint8" else 0.5)


def two_readers(nodes: Sequence[str]) -> onnx.ModelProto:
    """x → Exp → a, read by an integer Neg and by a Sin; `nodes` compute in integers."""
    text = "g (float[n] x) => (float[n] n1, float[n] s1, float[n] a) { a = Exp(x)  n1 = Neg(a)  s1 = Sin(a) }"
    model = clean(ir.from_proto(graph(text)))
    write_activations(model, {"a": activation_affine(0, 1, "uint8")}, nodes)
    return ir.to_proto(model)


def test_a_float_reader_of_a_float_tensor_keeps_the_exact_values():
    x = np.linspace(-3, 0, 50, dtype=np.float32)
    rounded = np.rint(np.exp(x) * 255) / 255
    negative, sine, a = run(two_readers(["n1"]), {"x": x})
    np.testing.assert_allclose(negative, -rounded, atol=1e-6)
    np.testing.assert_allclose(sine, np.sin(np.exp(x)), atol=1e-6)
    np.testing.assert_allclose(a, np.exp(x), atol=1e-6)


def test_every_reader_of_an_integer_tensor_gets_the_rounded_values():
    x = np.linspace(-3, 0, 50, dtype=np.float32)
    rounded = np.rint(np.exp(x) * 255) / 255
    for got, expected in zip(run(two_readers(["a"]), {"x": x}), (-rounded, np.sin(rounded), rounded), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["int4", "uint4", "int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_weights_that_float_operations_read_are_constants_of_the_loaded_graph(
    name: str, axis: int | None, tmp_path: Path
):
    weight = normal(6, 10)
    tensor = quantized(weight, name, axis)
    model = ir.from_proto(graph("g (float[n,6] x) => (float[n,10] y) { y = MatMul(x, w) }", w=weight))
    write_weights(model, {"w": tensor}, nodes=["another"])
    (stored,) = [each for each in ir.to_proto(model).graph.initializer if each.name == "w"]
    assert stored.data_type == getattr(onnx.TensorProto, name.upper())
    np.testing.assert_array_equal(run(ir.to_proto(model), {"x": np.eye(6, dtype=np.float32)})[0], dequantize(tensor))
    assert optimised(model, tmp_path) == ["MatMul"]
    kept = ir.from_proto(graph("g (float[n,6] x) => (float[n,10] y) { y = MatMul(x, w) }", w=weight))
    kept.graph[0].name = "y"
    write_weights(kept, {"w": tensor}, nodes=["y"])
    assert operators(ir.to_proto(kept)) == ["DequantizeLinear", "MatMul"]
