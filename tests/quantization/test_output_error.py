"""How far outputs are from the exact ones, by definition; of detectors what their layers put out."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run

from quantbench.graphs.load import prepare
from quantbench.quantization.output_error import OutputError


def detector(noise: float = 0.0) -> onnx.ModelProto:
    """Scores and boxes of 36 places by convolutions; how many survive suppression depends on the image."""
    rng = np.random.default_rng(1)
    return graph(
        """
        g (float[1,3,6,6] x) => (float[k,4] found)
        {
          s = Conv(x, ws, bs)  b = Conv(x, wb, bb)
          sr = Reshape(s, s_shape)  br = Reshape(b, b_shape)  boxes = Transpose <perm = [0, 2, 1]> (br)
          chosen = NonMaxSuppression(boxes, sr, most, overlap, least)
          place = Gather <axis = 1> (chosen, two)  flat = Reshape(boxes, rows)  found = Gather <axis = 0> (flat, place)
        }
        """,
        ws=normal(1, 3, 1, 1, seed=2) + noise * rng.normal(size=(1, 3, 1, 1)), bs=np.zeros(1),
        wb=normal(4, 3, 1, 1, seed=3) + noise * rng.normal(size=(4, 3, 1, 1)), bb=np.array([0.1, 0.1, 0.9, 0.9]),
        s_shape=np.array([1, 1, 36]), b_shape=np.array([1, 4, 36]), rows=np.array([36, 4]), two=np.array(2),
        most=np.array([36]), overlap=np.array([0.5], np.float32), least=np.array([0.0], np.float32),
    )  # fmt: skip


def classifier(noise: float = 0.0) -> onnx.ModelProto:
    weights = normal(5, 4, seed=1)
    return graph(
        "g (float[n,5] x) => (float[n,4] y, int64[n] k) { y = MatMul(x, w)  k = ArgMax <axis = 1, keepdims = 0> (y) }",
        w=weights + noise * normal(5, 4, seed=2),
    )


def share(changed: list[np.ndarray], exact: list[np.ndarray]) -> float:
    """Squared error over the variance, of all values together."""
    new, old = (np.concatenate([each.ravel() for each in values]).astype(np.float64) for values in (changed, exact))
    return float(np.square(new - old).sum() / np.square(old - old.mean()).sum())


def prepared(model: onnx.ModelProto) -> ir.Model:
    return prepare(model)


def test_a_classifier_is_compared_by_its_float_output():
    feeds = [{"x": normal(size, 5, seed=size)} for size in (3, 3)]
    exact, changed = ([run(model, feed)[0] for feed in feeds] for model in (classifier(), classifier(0.1)))
    error = OutputError(prepared(classifier()), feeds)
    assert error.of(prepared(classifier())) == 0
    assert error.of(prepared(classifier(0.1))) == pytest.approx(share(changed, exact), rel=0.2)


def test_a_detector_is_compared_by_what_its_layers_put_out():
    feeds = [{"x": normal(1, 3, 6, 6, seed=seed)} for seed in range(4)]
    counts = [[len(run(model, feed)[0]) for feed in feeds] for model in (detector(), detector(0.3))]
    assert counts[0] != counts[1], "outputs of other shapes"

    def layer(model: onnx.ModelProto, name: str) -> list[np.ndarray]:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
        return [run(model, feed)[-1] for feed in feeds]

    error = OutputError(prepared(detector()), feeds)
    assert error.of(prepared(detector())) == 0
    worst = max(share(layer(detector(0.3), name), layer(detector(), name)) for name in ("s", "b"))
    assert error.of(prepared(detector(0.3))) == pytest.approx(worst, rel=0.2)


@pytest.mark.parametrize("last", ["LogSoftmax", "Softmax", "Sigmoid"])
def test_before_a_squashing_end_its_input_counts_too(last: str):
    """Where all answers are certain, the end shows nothing of an error; else it may show more than its input."""

    def model(scale: float, noise: float) -> onnx.ModelProto:
        weights = scale * (normal(5, 4, seed=1) + noise * normal(5, 4, seed=2))
        return graph(f"g (float[n,5] x) => (float[n,4] p) {{ y = MatMul(x, w)  p = {last}(y) }}", w=weights)

    def both(model: onnx.ModelProto) -> list[list[np.ndarray]]:
        model.graph.output.append(onnx.helper.make_empty_tensor_value_info("y"))
        return [list(values) for values in zip(*(run(model, feed) for feed in feeds), strict=True)]

    feeds = [{"x": normal(9, 5, seed=seed)} for seed in range(4)]
    for scale in (100.0, 1.0):
        error = OutputError(prepared(model(scale, 0)), feeds)
        assert error.names == ["p", "y"]
        shares = [share(new, old) for new, old in zip(both(model(scale, 0.01)), both(model(scale, 0)), strict=True)]
        assert error.of(prepared(model(scale, 0.01))) == pytest.approx(max(shares), rel=0.2)
