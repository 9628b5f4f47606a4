"""Operands in blocks: which axes, and the portable functions against kernels that gfloat and ml_dtypes have checked."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs.emulated_graphs import written_rounded
from onnx_models import graph, normal

from quantbench.errors import InputError
from quantbench.graphs.block_operands import Blocks, summed_axes
from quantbench.graphs.emulation import strip_emulation
from quantbench.graphs.load import prepare
from quantbench.graphs.rounding_functions import DOMAIN, strip_rounding
from quantbench.graphs.staging import StagedSession
from quantbench.numerics import get_format, round_to

BLOCK_FORMATS = ("mxfp8_e4m3", "mxfp8_e5m2", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp4", "mxint8", "nvfp4")


def run(model: ir.Model, feeds: dict[str, np.ndarray]) -> np.ndarray:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return ort.InferenceSession(proto.SerializeToString()).run(None, feeds)[0]


def operands(model: ir.Model, name: str) -> dict[tuple[str, int], object]:
    fmt = get_format(name)
    return {(node.name or "", index): fmt for node in model.graph for index, _ in enumerate(summed_axes(node))}


def spread(*shape: int, seed: int) -> np.ndarray:
    """Values of very different magnitudes in each block, with zeros."""
    values = normal(*shape, seed=seed) * np.exp2(np.random.default_rng(seed).integers(-9, 9, shape))
    values[np.random.default_rng(seed + 1).random(shape) < 0.05] = 0
    return values.astype(np.float32)


@pytest.mark.parametrize(
    ("text", "weight", "axes"),
    [
        ("g (float[n,8,5,5] x) => (float[n,6,5,5] y) { y = Conv(x, w) }", (6, 8, 1, 1), ((1, 0), (1, 0))),
        ("g (float[n,8,5,5] x) => (float[n,6,5,5] y) { y = Conv <group=2> (x, w) }", (6, 4, 1, 1), ((1, 4), (1, 0))),
        ("g (float[n,8,5,5] x) => (float[n,8,5,5] y) { y = Conv <group=8> (x, w) }", (8, 1, 1, 1), ()),
        ("g (float[n,8,5,5] x) => (float[n,6,5,5] y) { y = ConvTranspose(x, w) }", (8, 6, 1, 1), ((1, 0), (0, 0))),
        ("g (float[n,8] x) => (float[n,6] y) { y = Gemm(x, w) }", (8, 6), ((1, 0), (0, 0))),
        ("g (float[8,n] x) => (float[n,6] y) { y = Gemm <transA=1, transB=1> (x, w) }", (6, 8), ((0, 0), (1, 0))),
        ("g (float[n,3,8] x) => (float[n,3,6] y) { y = MatMul(x, w) }", (8, 6), ((-1, 0), (-2, 0))),
        ("g (float[n,1] x) => (float[n,6] y) { y = MatMul(x, w) }", (1, 6), ()),
        ("g (float[n,8] x) => (float[n,8] y) { y = Add(x, w) }", (8,), ()),
    ],
)
def test_blocks_run_along_what_is_summed(text: str, weight: tuple[int, ...], axes: tuple[tuple[int, int], ...]) -> None:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(graph(text, w=normal(*weight))))
    (node,) = model.graph
    assert summed_axes(node) == axes


@pytest.mark.parametrize("name", BLOCK_FORMATS)
@pytest.mark.parametrize("length", [64, 40, 5])
def test_the_portable_functions_round_as_the_kernel(name: str, length: int) -> None:
    """Columns of the identity pick what was rounded out of the product. NVFP4 has one more scale for each sample."""
    source = prepare(graph(f"g (float[n,3,{length}] x) => (float[n,3,{length}] y) {{ y = MatMul(x, w) }}",
                           w=np.eye(length, dtype=np.float32)))  # fmt: skip
    (node,) = source.graph
    written = written_rounded(source, {}, {(node.name or "", 0): get_format(name)})
    x = spread(4, 3, length, seed=2)
    want = np.stack([round_to(sample, name) for sample in x])
    np.testing.assert_array_equal(run(written, {"x": x}), want)
    taps = strip_emulation(written)
    (got,) = StagedSession(written, taps).run({"x": x})
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_blocks_of_a_grouped_convolution_start_anew_with_each_group(name: str) -> None:
    source = prepare(
        graph(
            "g (float[n,80,2,3] x) => (float[n,2,2,3] y) { y = Conv <group=2> (x, w) }", w=spread(2, 40, 1, 1, seed=3)
        )
    )
    written = written_rounded(source, {}, operands(source, name))
    x = spread(3, 80, 2, 3, seed=4)
    rounded = np.stack([round_to(sample.reshape(2, 40, 2, 3), name, axis=1) for sample in x])
    weight = round_to(spread(2, 40, 1, 1, seed=3), name, axis=1)
    want = (rounded.astype(np.float64) * weight[None, :, :, :, :]).sum(2)
    np.testing.assert_allclose(run(written, {"x": x}), want, rtol=1e-5, atol=1e-4)
    whole = round_to(x.reshape(3, 80, 2, 3), name, axis=1).reshape(3, 2, 40, 2, 3)
    assert (whole != rounded).any(), "blocks across the border would round otherwise"


@pytest.mark.parametrize("name", ["mxfp8_e4m3", "nvfp4"])
def test_no_sample_depends_on_its_batch(name: str) -> None:
    source = prepare(graph("g (float[n,48] x) => (float[n,7] y) { y = MatMul(x, w) }", w=spread(48, 7, seed=5)))
    written = written_rounded(source, {}, operands(source, name))
    x = spread(6, 48, seed=6) * np.exp2(np.arange(0, 60, 10, dtype=np.float32))[:, None]
    together = run(written, {"x": x})
    for index in range(6):
        np.testing.assert_array_equal(together[index : index + 1], run(written, {"x": x[index : index + 1]}))


def test_strip_gives_back_the_operands() -> None:
    source = prepare(
        graph("g (float[n,48] x) => (float[n,7] y) { a = Tanh(x)  h = MatMul(a, w)  y = Relu(h) }", w=normal(48, 7))
    )
    written = written_rounded(source, {"a": get_format("bfloat16")}, operands(source, "mxfp4"))
    assert sum(node.domain == DOMAIN for node in written.graph) == 1
    stripped = ir.from_proto(onnx.ModelProto.FromString(ir.to_proto(written).SerializeToString()))
    found = strip_rounding(stripped)
    assert found == {"a": Blocks(-1, 0, get_format("mxfp4"), get_format("bfloat16"))}
    assert [node.op_type for node in stripped.graph] == [node.op_type for node in source.graph]


def test_what_reads_no_blocks_is_refused() -> None:
    source = prepare(graph("g (float[n,48] x) => (float[n,48] y) { y = Tanh(x) }"))
    with pytest.raises(InputError, match=r"input 0 of node .* is no operand"):
        written_rounded(source, {}, {(source.graph[0].name or "", 0): get_format("mxfp4")})
