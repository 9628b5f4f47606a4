"""Weights in 2 and 4 bits are widened to 8 without a change of any real value."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_models import graph, normal, operators, run

from quantbench.graphs.qdq import LARGEST_MULTIPLE, QuantizedTensor, write_activations, write_weights
from quantbench.graphs.widen import widen_weights
from quantbench.quantization.affine import activation_affine, dequantize, quantize, symmetric_affine

CONVOLUTION = "model (float[1,40,3,3] x) => (float[1,6,1,1] y) { y = Conv(x, w, b) }"
PRODUCT = "model (float[2,40] x) => (float[2,6] y) { y = MatMul(x, w) }"


def in_codes(weight: np.ndarray, name: str, axis: int | None, block: int, channel: int) -> QuantizedTensor:
    """A weight under the largest magnitude of each channel or block."""
    magnitude = np.abs(weight)
    if axis is None:
        amplitude = magnitude.max()
    elif block:
        amplitude = np.maximum.reduceat(magnitude, np.arange(0, weight.shape[axis], block), axis=axis)
    else:
        amplitude = magnitude.max(axis=tuple(other for other in range(weight.ndim) if other != axis))
    affine = symmetric_affine(amplitude, name, axis, block, channel)
    return QuantizedTensor(quantize(weight, affine), affine)


def weights_and_model(operation: str, name: str, axis: int | None, block: int) -> tuple[QuantizedTensor, ir.Model]:
    if operation == "Conv":
        weight = normal(6, 40, 3, 3) * normal(6, 40, 1, 1, seed=3) ** 2
        proto = graph(CONVOLUTION, w=weight, b=normal(6))
        tensor = in_codes(weight, name, axis, block, channel=0)
    else:
        weight = normal(40, 6) * normal(40, 1, seed=3) ** 2
        proto = graph(PRODUCT, w=weight)
        tensor = in_codes(weight, name, axis, block, channel=1)
    model = ir.from_proto(proto)
    write_weights(model, {"w": tensor})
    return tensor, model


@pytest.mark.parametrize("name", ["int4", "uint4", "int2", "uint2"])
@pytest.mark.parametrize(
    ("operation", "axis", "block"),
    [("Conv", None, 0), ("Conv", 0, 0), ("Conv", 1, 16), ("MatMul", 1, 0), ("MatMul", 0, 7)],
)
def test_the_wide_weights_have_the_values_of_the_narrow_ones(operation: str, axis: int | None, block: int, name: str):
    tensor, model = weights_and_model(operation, name, axis, block)
    x = {"x": normal(1, 40, 3, 3) if operation == "Conv" else normal(2, 40)}
    narrow = ir.to_proto(model)
    if block:  # a scale of a block takes half a byte, too
        (multiples,) = [each for each in narrow.graph.initializer if each.name == "w_multiples"]
        assert multiples.data_type == ir.DataType.UINT4
    assert widen_weights(model)
    wide = ir.to_proto(model)
    stored = {initializer.name: initializer for initializer in wide.graph.initializer}
    assert {str(ir.DataType(each.data_type)) for each in stored.values()} <= {"INT8", "FLOAT"}
    assert operators(wide) == ["DequantizeLinear", operation]
    expose(narrow)
    expose(wide)
    (before, values), (after, wide_values) = run(narrow, x), run(wide, x)
    np.testing.assert_array_equal(values, dequantize(tensor))
    np.testing.assert_array_equal(wide_values, values)
    np.testing.assert_array_equal(after, before)


def expose(proto) -> None:
    (dequantized,) = [node.output[0] for node in proto.graph.node if node.input[0] in ("w", "w_dequantized/codes")]
    proto.graph.output.add().name = dequantized


def test_blocks_under_any_scale_stay_as_they_are():
    weight = normal(40, 6)
    amplitude = np.maximum.reduceat(np.abs(weight), np.arange(0, 40, 8), axis=0)
    affine = symmetric_affine(amplitude, "int4", 0, 8)
    model = ir.from_proto(graph(PRODUCT, w=weight))
    write_weights(model, {"w": QuantizedTensor(quantize(weight, affine), affine)})
    assert not widen_weights(model)
    assert model.graph.initializers["w"].dtype == ir.DataType.INT4


def test_the_scales_of_blocks_are_multiples_of_their_channels_and_cut_nothing():
    weight = normal(6, 40, 3, 3) * normal(6, 40, 1, 1, seed=3) ** 4
    tensor = in_codes(weight, "int4", 1, 16, channel=0)
    multiples = tensor.affine.scale / tensor.affine.channel_scale[:, None, None, None]
    np.testing.assert_array_equal(multiples, np.rint(multiples))
    assert multiples.min() >= 1 and multiples.max() == LARGEST_MULTIPLE
    scale = np.repeat(tensor.affine.scale, 16, axis=1)[:, :40]
    assert (np.abs(dequantize(tensor) - weight) <= 0.5001 * scale).all()


def test_a_convolution_in_blocks_of_four_bits_opens_as_an_integer_convolution(tmp_path):
    tensor, model = weights_and_model("Conv", "int4", 1, 16)
    source = activation_affine(-3, 3, "uint8")
    bias = QuantizedTensor(np.zeros(6, np.int32), symmetric_bias(source, tensor))
    write_activations(model, {"x": source, "y": activation_affine(-50, 50, "uint8")}, [model.graph[-1].name])
    write_weights(model, {"b": bias})
    widen_weights(model)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options)
    assert "QLinearConv" in [node.op_type for node in ir.load(options.optimized_model_filepath).graph]


def symmetric_bias(source, tensor: QuantizedTensor):
    return type(source)("int32", source.scale * tensor.affine.channel_scale, np.zeros(6, np.int64), 0)
