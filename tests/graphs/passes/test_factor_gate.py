"""x + x·g becomes x·(g + 1) where g is a gate, at the same results."""

from __future__ import annotations

import pytest
from onnx_models import graph, normal, operators, run
from rewriting import rewrite

from quantbench.graphs.passes import factor_gate, fold_affine

X = {"x": normal(2, 3, 5, 5)}


def after(lines: str, outputs: str = "float[n,3,5,5] y"):
    text = f"g (float[n,3,5,5] x) => ({outputs}) <float lo = {{0.0}}, float hi = {{1.0}}> {{ {lines} }}"
    return rewrite(graph(text, w=normal(3, 3, 1, 1)), [factor_gate, fold_affine], X)


@pytest.mark.parametrize("product", ["Mul(x, g)", "Mul(g, x)"])
@pytest.mark.parametrize("total", ["Add(x, m)", "Add(m, x)"])
def test_a_computed_gate(product: str, total: str):
    found = after(f"p = GlobalAveragePool(x)  g = Exp(p)  m = {product}  y = {total}")
    assert operators(found) == ["GlobalAveragePool", "Exp", "Add", "Mul"]


def test_a_bounded_gate_of_a_convolution_takes_the_shift_into_its_bias():
    found = after("p = GlobalAveragePool(x)  c = Conv(p, w)  g = Clip(c, lo, hi)  m = Mul(x, g)  y = Add(x, m)")
    assert operators(found) == ["GlobalAveragePool", "Conv", "Clip", "Mul"]
    (y,) = run(found, X)
    assert ((y / X["x"] > 0.999) & (y / X["x"] < 2.001)).all()


@pytest.mark.parametrize(
    ("lines", "outputs"),
    [
        ("g = Exp(x)  m = Mul(x, g)  y = Add(x, m)", "float[n,3,5,5] y"),
        ("p = GlobalAveragePool(x)  m = Mul(x, p)  y = Add(x, m)  z = Neg(p)", "float[n,3,5,5] y, float[n,3,1,1] z"),
        ("p = GlobalAveragePool(x)  m = Mul(x, p)  y = Add(x, m)  z = Neg(m)", "float[n,3,5,5] y, float[n,3,5,5] z"),
        ("p = GlobalAveragePool(x)  e = Exp(x)  m = Mul(x, p)  y = Add(e, m)", "float[n,3,5,5] y"),
    ],
)
def test_others_stay(lines: str, outputs: str):
    assert operators(after(lines, outputs)).count("Add") == 1 and "Mul" in operators(after(lines, outputs))
    assert operators(after(lines, outputs)).index("Mul") < operators(after(lines, outputs)).index("Add")
