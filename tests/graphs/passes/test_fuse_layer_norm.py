"""Layer normalization written out becomes LayerNormalization; what only resembles it stays."""

from __future__ import annotations

import pytest
from onnx_models import graph, normal, operators
from rewriting import rewrite

from quantbench.graphs.passes import clean, fuse_layer_norm

WRITTEN_OUT = (
    "m = ReduceMean(r, axis)  c = Sub(r, m)  s = Pow(c, two)  v = ReduceMean(s, axis)"
    "  e = Add(v, eps)  d = Sqrt(e)  n1 = Div(c, d)  g1 = Mul(n1, gamma)  y = Add(g1, beta)"
)


def after(
    lines: str, outputs: str = "float[n,5,8] y", axis: int = -1, gamma: tuple = (8,), beta: tuple = (8,)
) -> list[str]:
    text = f"""
        g (float[n,5,8] x) => ({outputs})
        <int64[1] axis = {{{axis}}}, int64[1] first = {{1}},
         float eps = {{0.01}}, float two = {{2.0}}, float three = {{3.0}}>
        {{ r = Neg(x)  {lines} }}
    """
    before = graph(text, gamma=normal(*gamma, seed=1), beta=normal(*beta, seed=2))
    return operators(rewrite(before, [clean, fuse_layer_norm], {"x": normal(2, 5, 8)}))


@pytest.mark.parametrize("axis", [-1, 2])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("", ""),
        ("Pow(c, two)", "Mul(c, c)"),
        ("Add(v, eps)", "Add(eps, v)"),
        ("Mul(n1, gamma)", "Mul(gamma, n1)"),
        ("Add(g1, beta)", "Add(beta, g1)"),
    ],
)
def test_fused(axis: int, old: str, new: str):
    assert after(WRITTEN_OUT.replace(old, new) if old else WRITTEN_OUT, axis=axis) == ["Neg", "LayerNormalization"]


def test_in_the_middle_of_a_graph():
    assert after(WRITTEN_OUT.replace("y =", "z =") + "  y = Relu(z)") == ["Neg", "LayerNormalization", "Relu"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("s = Pow(c, two)", "a = Abs(c)  s = Pow(a, three)"),
        ("e = Add(v, eps)", "a = Abs(v)  e = Add(a, eps)"),
        ("Sub(r, m)", "Sub(m, r)"),
        ("m = ReduceMean(r, axis)", "m = ReduceMean(x, axis)"),
        ("m = ReduceMean(r, axis)", "m = ReduceMean(r, first)"),
        ("Div(c, d)", "Div(r, d)"),
        ("Add(g1, beta)", "Sub(g1, beta)"),
    ],
)
def test_other_functions_stay(old: str, new: str):
    assert "LayerNormalization" not in after(WRITTEN_OUT.replace(old, new))


def test_over_another_axis_stays():
    assert "LayerNormalization" not in after(WRITTEN_OUT, axis=1)


@pytest.mark.parametrize(("gamma", "beta"), [((5, 1), (8,)), ((8,), (5, 8)), ((), (8,)), ((8,), ())])
def test_factors_that_are_no_vector_of_the_axis_stay(gamma: tuple[int, ...], beta: tuple[int, ...]):
    assert "LayerNormalization" not in after(WRITTEN_OUT, gamma=gamma, beta=beta)


def test_inner_tensors_that_something_else_reads_stay():
    assert "LayerNormalization" not in after(WRITTEN_OUT + "  z = Neg(c)", "float[n,5,8] y, float[n,5,8] z")
    assert "LayerNormalization" not in after(WRITTEN_OUT, "float[n,5,8] y, float[n,5,8] n1")
