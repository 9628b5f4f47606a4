"""A table times the matrix behind it is one table, and computes the same."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, operators, run

from quantbench.quantization.transforms import fold_tables

IDS = {"i": np.array([4, 0, 4, 2], np.int64)}


def folded(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    model = ir.from_proto(proto)
    for node in model.graph:
        node.name = node.outputs[0].name
    names = fold_tables(model)
    return ir.to_proto(model), names


@pytest.mark.parametrize(
    "product",
    [
        "y = MatMul(x, w)",
        "y = Gemm(x, w, b)",
        "y = Gemm <alpha=0.5, beta=3.0> (x, w, b)",
        "y = Gemm <transB=1> (x, wt, b)",
    ],
)
def test_outputs_stay_and_the_product_is_gone(product: str):
    weights = {"t": normal(5, 16), "w": normal(16, 24, seed=1), "wt": normal(24, 16, seed=2), "b": normal(24, seed=3)}
    used = {
        name: array
        for name, array in weights.items()
        if name == "t" or f" {name}," in product or f" {name})" in product
    }
    proto = graph(f"g (int64[n] i) => (float[n,24] y) {{ x = Gather(t, i)  {product} }}", **used)
    after, names = folded(proto)
    assert names == ("y",) and operators(after) == ["Gather"]
    assert [initializer.dims for initializer in after.graph.initializer] == [[5, 24]]
    np.testing.assert_allclose(run(after, IDS)[0], run(proto, IDS)[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("body", "table"),
    [
        ("x = Gather(t, i)  y = MatMul(x, w)", (50, 4)),  # 50 × 24 > 50 × 4 + 4 × 24: larger
        ("x = Gather(t, i)  y = MatMul(x, w)  z = Relu(x)", (5, 16)),  # x has another reader
        ("x = Gather(t, i)  xt = Transpose(x)  y = Gemm <transA=1> (xt, w)", (5, 16)),
        ("x = Gather(t, i)  y = MatMul(w2, x)", (5, 16)),  # the lookup is on the right
    ],
)
def test_what_does_not_pay_or_fit_stays(body: str, table: tuple[int, int]):
    outputs = "float y, float z" if "z =" in body else "float y"
    weights = {"t": normal(*table), "w": normal(table[1], 24, seed=1), "w2": normal(3, 4, seed=2)}
    used = {name: array for name, array in weights.items() if f"({name}," in body or f", {name})" in body}
    proto = graph(f"g (int64[n] i) => ({outputs}) {{ {body} }}", **used)
    after, names = folded(proto)
    assert names == () and operators(after) == operators(proto)
