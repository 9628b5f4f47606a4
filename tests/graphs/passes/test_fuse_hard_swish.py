"""Every way exporters write hard-swish becomes HardSwish; what only resembles it stays."""

from __future__ import annotations

import pytest
from onnx_models import graph, normal, operators
from rewriting import rewrite

from quantbench.graphs.passes import clean, fuse_hard_swish

X = {"x": 4 * normal(5, 7)}
NUMBERS = (
    "<float zero = {0.0}, float three = {3.0}, float six = {6.0}, float[1] sixth = {0.16666667}, float other = {2.0}>"
)


def after(lines: str, outputs: str = "float[n,7] y") -> list[str]:
    text = f"g (float[n,7] x) => ({outputs}) {NUMBERS} {{ r = Neg(x)  {lines} }}"
    return operators(rewrite(graph(text), [clean, fuse_hard_swish], X))


@pytest.mark.parametrize("add", ["Add(r, three)", "Add(three, r)"])
@pytest.mark.parametrize(
    "rest",
    [
        "d = Div(c, six)  y = Mul(r, d)",
        "d = Div(c, six)  y = Mul(d, r)",
        "d = Mul(c, sixth)  y = Mul(r, d)",
        "d = Mul(sixth, c)  y = Mul(r, d)",
        "m = Mul(r, c)  y = Div(m, six)",
        "m = Mul(c, r)  y = Mul(m, sixth)",
    ],
)
def test_clip(add: str, rest: str):
    assert after(f"a = {add}  c = Clip(a, zero, six)  {rest}") == ["Neg", "HardSwish"]


@pytest.mark.parametrize("product", ["Mul(r, h)", "Mul(h, r)"])
def test_hard_sigmoid(product: str):
    assert after(f"h = HardSigmoid <alpha=0.16666667> (r)  y = {product}") == ["Neg", "HardSwish"]


def test_in_the_middle_of_a_graph():
    assert after("h = HardSigmoid <alpha=0.16666667> (r)  m = Mul(h, r)  y = Exp(m)") == ["Neg", "HardSwish", "Exp"]


@pytest.mark.parametrize(
    "lines",
    [
        "h = HardSigmoid(r)  y = Mul(r, h)",  # ONNX's default slope is 0.2
        "h = HardSigmoid <alpha=0.16666667, beta=0.4> (r)  y = Mul(r, h)",
        "h = HardSigmoid <alpha=0.16666667> (r)  y = Mul(x, h)",
        "h = HardSigmoid <alpha=0.16666667> (r)  y = Add(r, h)",
        "a = Add(r, other)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(r, d)",
        "a = Add(r, three)  c = Clip(a, other, six)  d = Div(c, six)  y = Mul(r, d)",
        "a = Add(r, three)  c = Clip(a, zero, three)  d = Div(c, six)  y = Mul(r, d)",
        "a = Add(r, three)  c = Clip(a, zero)  d = Div(c, six)  y = Mul(r, d)",
        "a = Add(r, three)  c = Clip(a, zero, six)  d = Div(c, three)  y = Mul(r, d)",
        "a = Add(r, three)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(x, d)",
        "a = Add(r, three)  c = Clip(a, zero, six)  d = Div(six, c)  y = Mul(r, d)",
    ],
)
def test_other_functions_stay(lines: str):
    assert "HardSwish" not in after(lines)


def test_an_inner_tensor_that_something_else_reads_stays():
    lines = "a = Add(r, three)  c = Clip(a, zero, six)  d = Div(c, six)  y = Mul(r, d)"
    assert "HardSwish" not in after(lines, "float[n,7] y, float[n,7] d")
    assert "HardSwish" not in after(lines + "  z = Neg(c)", "float[n,7] y, float[n,7] z")
