"""What convolutions and products multiply their weights by, against ONNX Runtime and explicit unfolding."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run

from quantbench.quantization.rounding.matrix import MatrixLayout
from quantbench.quantization.rounding.moments import MomentsSum
from quantbench.quantization.rounding.patches import Patches, patches_of

IMAGE, LINE, VECTOR = "float[n,6,9,7] x", "float[n,6,11] x", "float[n,m,6] x"
CASES = {
    "1x1": ("Conv", IMAGE, (4, 6, 1, 1), 0, ""),
    "pads": ("Conv", IMAGE, (4, 6, 3, 3), 0, "<pads=[1,0,2,1]>"),
    "strides": ("Conv", IMAGE, (4, 6, 3, 2), 0, "<strides=[2,3], pads=[0,1,0,1]>"),
    "dilations": ("Conv", IMAGE, (4, 6, 3, 2), 0, "<dilations=[2,3], pads=[2,2,2,2]>"),
    "groups": ("Conv", IMAGE, (4, 3, 3, 3), 0, "<group=2>"),
    "depthwise": ("Conv", IMAGE, (6, 1, 5, 3), 0, "<group=6, pads=[2,1,2,1]>"),
    "same upper": ("Conv", IMAGE, (4, 6, 4, 2), 0, '<auto_pad="SAME_UPPER", strides=[2,2]>'),
    "same lower": ("Conv", IMAGE, (4, 6, 4, 2), 0, '<auto_pad="SAME_LOWER", strides=[2,2]>'),
    "valid": ("Conv", IMAGE, (4, 6, 3, 3), 0, '<auto_pad="VALID">'),
    "line": ("Conv", LINE, (4, 6, 3), 0, "<strides=[2], pads=[1,2]>"),
    "transposed": ("ConvTranspose", IMAGE, (6, 4, 2, 2), 1, "<strides=[2,2]>"),
    "output pads": ("ConvTranspose", IMAGE, (6, 4, 3, 4), 1, "<strides=[2,3], pads=[1,0,1,2], output_padding=[1,0]>"),
    "transposed dilations": ("ConvTranspose", IMAGE, (6, 4, 3, 2), 1, "<strides=[1,2], dilations=[2,1]>"),
    "matmul": ("MatMul", VECTOR, (6, 4), 1, ""),
    "gemm": ("Gemm", "float[n,6] x", (6, 4), 1, ""),
    "gemm transposed": ("Gemm", "float[n,6] x", (4, 6), 0, "<transB=1>"),
}  # fmt: skip


def case(name: str) -> tuple[onnx.ModelProto, Patches, MatrixLayout, np.ndarray, np.ndarray]:
    """(model, patches, layout, weight, input) of a case."""
    operator, declared, shape, channel_axis, attributes = CASES[name]
    weight = normal(*shape, seed=1)
    model = graph(f"g ({declared}) => (float y) {{ y = {operator} {attributes} (x, w) }}", w=weight)
    (node,) = ir.from_proto(model).graph
    patches = patches_of(node, shape)
    assert patches is not None
    sizes = {IMAGE: (3, 6, 9, 7), LINE: (3, 6, 11), VECTOR: (3, 5, 6)}.get(declared, (7, 6))
    return model, patches, MatrixLayout(shape, channel_axis, patches.groups), weight, normal(*sizes, seed=2)


def outputs(model: onnx.ModelProto, x: np.ndarray, last: bool) -> np.ndarray:
    """ONNX Runtime's results as (positions, channels)."""
    (y,) = run(model, {"x": x})
    return (y if last else np.moveaxis(y, 1, -1)).reshape(-1, y.shape[-1 if last else 1])


@pytest.mark.parametrize("name", CASES)
def test_columns_times_rows_are_the_operation(name: str):
    model, patches, layout, weight, x = case(name)
    expected = outputs(model, x, patches.last)
    images = patches.images(x)
    height, width = patches.positions(images)
    columns = patches.gather(images, np.arange(len(images) * height * width))
    matrix = layout.matrix(weight)
    got = np.einsum("gpk,grk->pgr", columns, matrix).reshape(columns.shape[1], -1)
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(patches.sums(images), columns.sum(axis=1, dtype=np.float64), atol=1e-3)
    assert np.array_equal(layout.tensor(matrix), weight)


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("rows", [512, 4])
@pytest.mark.parametrize("name", ["strides", "depthwise", "matmul"])
def test_moments_are_those_of_the_columns(name: str, rows: int, centred: bool, monkeypatch: pytest.MonkeyPatch):
    """Whether the matrices are summed up at once or some rows at a time."""
    monkeypatch.setattr("quantbench.quantization.rounding.triangle._ROWS", rows)
    _, patches, _, _, x = case(name)
    near = np.rint(x * 8) / 8
    sums = MomentsSum(patches, products=True, batches=3)
    columns = []
    for batch in range(3):
        images = patches.images(x + batch)
        height, width = patches.positions(images)
        everywhere = np.arange(len(images) * height * width)
        sums.add(sums.look(x + batch, near + batch, everywhere))
        columns.append([patches.gather(patches.images(each + batch), everywhere) for each in (x, near)])
    exact, rounded = (np.concatenate(part, axis=1).astype(np.float64) for part in zip(*columns, strict=True))
    moments = sums.result(centred)
    np.testing.assert_allclose(moments.mean_exact, exact.mean(1), atol=1e-6)
    np.testing.assert_allclose(moments.mean_rounded, rounded.mean(1), atol=1e-6)
    if centred:
        exact, rounded = exact - exact.mean(1, keepdims=True), rounded - rounded.mean(1, keepdims=True)
    count = exact.shape[1]
    np.testing.assert_allclose(moments.hessian, np.einsum("gpk,gpl->gkl", rounded, rounded) / count, atol=1e-5)
    np.testing.assert_allclose(moments.cross, np.einsum("gpk,gpl->gkl", exact - rounded, rounded) / count, atol=1e-5)
    assert ((moments.shrinkage >= 0) & (moments.shrinkage <= 0.95)).all()


def test_of_one_input_for_both_graphs_nothing_is_crossed():
    x = normal(40, 6, seed=3)
    sums = MomentsSum(Patches(last=True), products=True, batches=2)
    for _ in range(2):
        sums.add(sums.look(x, x, np.arange(40)))
    moments = sums.result(False)
    assert moments.cross.size == 0
    np.testing.assert_allclose(moments.mean_exact[0], x.mean(0), atol=1e-6)
    assert np.array_equal(moments.mean_exact, moments.mean_rounded)
    np.testing.assert_allclose(moments.hessian[0], x.T @ x / 40, atol=1e-5)


@pytest.mark.parametrize("rows", [512, 4])
def test_shrinkage_is_that_of_ledoit_and_wolf(rows: int, monkeypatch: pytest.MonkeyPatch):
    """Batches of many independent positions: the formula of the paper, applied to the batches' covariances."""
    monkeypatch.setattr("quantbench.quantization.rounding.triangle._ROWS", rows)
    generator = np.random.default_rng(0)
    x = (generator.normal(size=(8, 50, 6)) * np.arange(1, 7)).astype(np.float32)
    sums = MomentsSum(Patches(last=True), products=True, batches=len(x))
    for batch in x:
        sums.add(sums.look(batch, batch, np.arange(50)))
    each = np.stack([np.cov(batch.T.astype(np.float64)) for batch in x])
    mean = each.mean(0)
    noise = np.square(each - mean).sum() / (8 * 7)
    distance = np.square(mean - np.trace(mean) / 6 * np.eye(6)).sum()
    np.testing.assert_allclose(sums.result(True).shrinkage, [noise / distance], rtol=1e-4)


def test_many_batches_are_added_up_in_a_few_parts():
    """Thirty batches, which twelve parts do not divide evenly: shrinkage is that of parts of three batches each."""
    generator = np.random.default_rng(4)
    x = (generator.normal(size=(30, 50, 6)) * np.arange(1, 7)).astype(np.float32)
    many = MomentsSum(Patches(last=True), products=True, batches=30)
    few = MomentsSum(Patches(last=True), products=True, batches=10)
    for batch in x:
        many.add(many.look(batch, batch, np.arange(50)))
    for part in x.reshape(10, 150, 6):
        few.add(few.look(part, part, np.arange(150)))
    results = many.result(True), few.result(True)
    for name in ("mean_exact", "hessian", "shrinkage"):
        np.testing.assert_allclose(*(getattr(each, name) for each in results), rtol=1e-6)


def test_sums_are_exact_in_any_order():
    """Of one batch: positions in another order give the same bits."""
    x = normal(4000, 6, seed=3) * np.float32(1e3)
    order = np.random.default_rng(1).permutation(4000)
    results = []
    for rows in (x, x[order]):
        sums = MomentsSum(Patches(last=True), products=True, batches=1)
        sums.add(sums.look(rows, np.rint(rows), np.arange(4000)))
        results.append(sums.result(False))
    assert np.array_equal(results[0].hessian, results[1].hessian)
    assert np.array_equal(results[0].cross, results[1].cross)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("y = Gemm <transA=1> (x, w)", (6, 4)),
        ("y = MatMul (x, w)", (2, 6, 4)),
        ("y = ConvTranspose <group=2> (x, w)", (6, 4, 2, 2)),
        ('y = ConvTranspose <auto_pad="SAME_UPPER"> (x, w)', (6, 4, 2, 2)),
        ("y = Gather (w, x)", (6, 4)),
        ("y = Conv (x, w)", (4, 6, 1, 1, 1)),
    ],
)
def test_layouts_without_matrices(text: str, shape: tuple[int, ...]):
    model = onnx.parser.parse_graph(f"g (float[n] x, float[n] w) => (float y) {{ {text} }}")
    (node,) = ir.from_proto(onnx.helper.make_model(model)).graph
    assert patches_of(node, shape) is None


@pytest.mark.parametrize(
    ("shape", "channel_axis", "axis", "size", "expected"),
    [
        ((2, 5), 0, 1, 2, [0, 0, 1, 1, 2]),
        ((5, 2), 1, 0, 3, [0, 0, 0, 1, 1]),
        ((2, 3, 1, 2), 0, 1, 2, [0, 1, 0, 1, 2, 3]),
        ((3, 2, 1, 2), 1, 0, 2, [0, 1, 0, 1, 2, 3]),
        ((2, 3), 0, 0, 0, [0, 0, 0]),
    ],
)
def test_which_scale_a_column_has(shape: tuple, channel_axis: int, axis: int, size: int, expected: list[int]):
    layout = MatrixLayout(shape, channel_axis)
    assert layout.segments(axis, size).tolist() == expected
    if size:
        scales = normal(1, shape[channel_axis], max(expected) + 1, seed=4)
        per_tensor = layout.scales(scales, axis, size)
        spread = np.repeat(per_tensor, size, axis=axis).take(range(shape[axis]), axis=axis)
        assert np.array_equal(layout.matrix(spread), scales[:, :, expected])
