"""Bias correction brings the mean of every channel back that the rounding of weights has moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run
from small_reference import SAMPLES, images, network, small_reference

from quantbench.graphs.passes import clean
from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization import Recipe, convert
from quantbench.quantization.affine import dequantize, quantize, symmetric_affine
from quantbench.quantization.bias_correction import bias_correction, mean_inputs

STOPS = ["c1", "c2", "c3"]


def channel_means(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Mean of every channel of the convolutions and of the output over the calibration samples, by ONNX Runtime."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    producers = {name for node in copy.graph.node for name in node.output}
    stops = [name for name in STOPS if name in producers]
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in stops)
    y, *inner = run(copy, {"x": images()[:SAMPLES]})
    means = {name: values.mean((0, 2, 3)) for name, values in zip(stops, inner, strict=True)}
    return means | {"y": y.mean(0)}


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"dtype": "int8", "granularity": "tensor", "equalization": False}, 0.75),  # activations are rounded as much
        ({"dtype": "int4", "rounding": "nearest"}, 0.15),
        ({"dtype": "int4", "activations": "fp32", "rounding": "nearest"}, 0.15),
    ],
)
def test_means_are_restored(options: dict, left: float, tmp_path: Path):
    reference = small_reference(tmp_path)
    exact = channel_means(network())
    errors: dict[bool, float] = {}
    for correction in (False, True):
        recipe = Recipe(**options, calibrator="minmax", bias_correction=correction, output_error=0.0)
        model = onnx.load(convert(reference, recipe, out=tmp_path / f"{correction}").path / "model.onnx")
        means = channel_means(model)
        errors[correction] = max(np.abs(means[name] - exact[name]).max() for name in exact)
    assert errors[True] < left * errors[False]


def test_a_constant_background_is_not_shifted(tmp_path: Path):
    """On images of one constant color the rounded network is exact in the mean only because of the correction.

    Every weight's rounding error is multiplied by the same background, so the errors of a channel add up.
    """
    reference = small_reference(tmp_path)
    x = images()
    x = (0.05 * x + 3.0).astype(np.float32)
    np.savez(tmp_path / "small.npz", x=x, y=run(network(), {"x": x})[0].argmax(1))
    outputs = {}
    for correction in (False, True):
        recipe = Recipe("int4", activations="fp32", rounding="nearest", bias_correction=correction, output_error=0.0)
        path = convert(reference, recipe, out=tmp_path / f"{correction}").path / "model.onnx"
        outputs[correction] = run(onnx.load(path), {"x": x[SAMPLES:]})[0]
    exact = run(network(), {"x": x[SAMPLES:]})[0]
    plain, corrected = (np.abs(outputs[each] - exact).max() for each in (False, True))
    assert corrected < 0.1 * plain


@pytest.mark.parametrize(
    ("shape", "weight", "operation"),
    [
        ((2, 6, 9, 7), (4, 6, 3, 3), "Conv <pads=[1,1,1,1]> (x, w, b)"),
        ((2, 6, 9, 7), (4, 6, 3, 3), "Conv <pads=[0,2,1,0], strides=[2,1], dilations=[1,2]> (x, w, b)"),
        ((2, 6, 9, 7), (6, 1, 5, 5), 'Conv <group=6, auto_pad="SAME_UPPER", strides=[2,2]> (x, w, b)'),
        ((2, 6, 9, 7), (8, 3, 1, 1), "Conv <group=2> (x, w, b)"),
        ((2, 6, 9), (4, 6, 3), "Conv <pads=[2,0]> (x, w, b)"),
        ((2, 6, 5, 4), (6, 4, 3, 3), "ConvTranspose <pads=[1,1,0,0], strides=[2,2], output_padding=[1,0]> (x, w, b)"),
        ((5, 6), (4, 6), "Gemm <transB=1, alpha=0.5, beta=2.0> (x, w, b)"),
        ((5, 6), (6, 4), "Gemm (x, w, b)"),
    ],
)
def test_shifts_are_what_the_operation_loses_in_the_mean(
    shape: tuple[int, ...], weight: tuple[int, ...], operation: str
):
    """Exactly, where a channel has the same value everywhere; batches may differ in size and shape."""
    channels = weight[1] if operation.startswith("ConvT") else weight[0] if "transB" in operation else weight[-1]
    channels = weight[0] if operation.startswith("Conv ") else channels
    sizes = ",".join(f"s{index}" if index != 1 else str(size) for index, size in enumerate(shape))
    text = f"g (float[{sizes}] x) => (float y) {{ y = {operation} }}"
    values, bias = normal(*weight, seed=1), normal(channels, seed=2)
    model = clean(ir.from_proto(graph(text, w=values, b=bias)))
    affine = symmetric_affine(np.abs(values).max(), "int4", None)
    rounded = QuantizedTensor(quantize(values, affine), affine)
    larger = tuple(size + 3 * (index != 1) for index, size in enumerate(shape))
    feeds = [
        {"x": np.broadcast_to(normal(each[1], seed=seed).reshape(-1, *[1] * (len(each) - 2)), each).copy()}
        for seed, each in ((3, shape), (4, larger))
    ]
    shifts = bias_correction(model, {"w": rounded}, mean_inputs(model, feeds))
    lost = [run(graph(text, w=values - dequantize(rounded), b=0 * bias), feed)[0] for feed in feeds]
    means = np.concatenate([np.moveaxis(each, 1, -1).reshape(-1, channels) for each in lost]).mean(axis=0)
    factor = 2.0 if "beta" in operation else 1.0
    assert shifts.keys() == {"b"}
    np.testing.assert_allclose(shifts["b"], means / factor, rtol=1e-4, atol=1e-5)


def test_a_product_with_a_bias_behind_it():
    text = "g (float[n,t,6] x) => (float[n,t,4] y) { m = MatMul(x, w)  y = Add(m, b) }"
    values = normal(6, 4, seed=1)
    model = clean(ir.from_proto(graph(text, w=values, b=normal(4, seed=2))))
    affine = symmetric_affine(np.abs(values).max(axis=0), "int4", 1)
    rounded = QuantizedTensor(quantize(values, affine), affine)
    feeds = [{"x": normal(2, 3, 6, seed=3)}, {"x": normal(1, 5, 6, seed=4)}]
    shifts = bias_correction(model, {"w": rounded}, mean_inputs(model, feeds))
    rows = np.concatenate([feed["x"].reshape(-1, 6) for feed in feeds])
    np.testing.assert_allclose(shifts["b"], (rows @ (values - dequantize(rounded))).mean(axis=0), rtol=1e-4, atol=1e-6)


def test_an_input_of_unknown_rank_shifts_nothing():
    text = "g (float[n,6] x, int64[k] s) => (float y) { r = Reshape(x, s)  m = MatMul(r, w)  y = Add(m, b) }"
    model = clean(ir.from_proto(graph(text, w=normal(6, 4), b=normal(4))))
    assert mean_inputs(model, [{"x": normal(2, 6), "s": np.array([1, 2, 6])}]) == {}


def test_a_bias_that_others_read_stays():
    text = "g (float[n,6] x) => (float[n,4] y, float[n,4] z) { y = Gemm(x, w, b)  z = Gemm(x, v, b) }"
    model = clean(ir.from_proto(graph(text, w=normal(6, 4), v=normal(6, 4, seed=1), b=normal(4, seed=2))))
    assert mean_inputs(model, [{"x": normal(3, 6)}]) == {}


def test_shifts_add_to_the_biases_alone(tmp_path: Path):
    reference = small_reference(tmp_path)
    tensors = []
    for correction in (False, True):
        recipe = Recipe("int8", activations="fp32", bias_correction=correction)
        model = onnx.load(convert(reference, recipe, out=tmp_path / f"{correction}").path / "model.onnx")
        tensors.append({each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer})
    plain, corrected = tensors
    assert plain.keys() == corrected.keys()
    changed = {name for name in plain if not np.array_equal(plain[name], corrected[name])}
    assert changed == {"b1", "b2", "b3", "b4"}
