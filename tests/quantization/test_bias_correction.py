"""Bias correction restores the mean of every channel, and undoes what rounding before it shifted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx_models import run
from small_reference import SAMPLES, images, network, small_reference

from quantbench.quantization import Recipe, convert
from quantbench.quantization.bias_correction import _channel_means, _shrunk_mean

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
    "options",
    [
        {"dtype": "int8", "granularity": "tensor", "equalization": False},
        {"dtype": "int4", "rounding": "nearest"},
        {"dtype": "int4", "activations": "fp32", "rounding": "nearest"},
    ],
)
def test_means_are_restored(options: dict, tmp_path: Path):
    reference = small_reference(tmp_path)
    exact = channel_means(network())
    errors: dict[bool, float] = {}
    for correction in (False, True):
        recipe = Recipe(**options, calibrator="minmax", bias_correction=correction, output_error=0.0)
        model = onnx.load(convert(reference, recipe, out=tmp_path / f"{correction}").path / "model.onnx")
        means = channel_means(model)
        errors[correction] = max(np.abs(means[name] - exact[name]).max() for name in exact)
    assert errors[True] < 0.15 * errors[False]


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


def test_what_samples_do_not_agree_on_is_shrunk():
    sizes = np.full(4, 10)
    agreed = np.array([[1.0], [1.1], [0.9], [1.0]])
    doubtful = np.array([[3.0], [-2.0], [-1.0], [1.0]])
    error = np.square(agreed - 1.0).mean() / 3
    assert _shrunk_mean(agreed, sizes) == pytest.approx(1.0 * (1 - error))
    assert _shrunk_mean(doubtful, sizes) == 0.0
    assert _shrunk_mean(agreed[:1], sizes[:1]) == 1.0, "nothing is known of how certain one sample is"
    np.testing.assert_array_equal(_shrunk_mean(np.zeros((4, 2)), sizes), [0.0, 0.0])


def test_samples_count_by_their_size():
    differences, sizes = np.array([[1.0], [1.0], [2.0]]), np.array([10, 10, 20])
    error = (0.5 * 0.5**2 + 0.5 * 0.5**2) / 2
    assert _shrunk_mean(differences, sizes) == pytest.approx(1.5 * (1 - error / 1.5**2))


@pytest.mark.parametrize(("shape", "axis"), [((3, 4, 5, 6), 1), ((3, 4, 5), 1), ((3, 5, 4), -1), ((3, 4), -1)])
def test_means_of_each_sample(shape: tuple[int, ...], axis: int):
    values = np.random.default_rng(0).normal(2, 1, shape).astype(np.float32)
    means, sizes = _channel_means(values, axis)
    channels = np.moveaxis(values.astype(np.float64), axis, -1)
    each = channels.reshape(3, -1, 4) if len(shape) > 2 else channels[None]
    np.testing.assert_allclose(means, each.mean(axis=1), rtol=1e-6)
    np.testing.assert_array_equal(sizes, np.full(len(each), each.shape[1]))
