"""What does not depend on the inputs is computed once, to what ONNX Runtime gives when it computes it each time."""

from __future__ import annotations

import sys

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, operators, run, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import clean, fold_constants


def test_a_chain_of_constants_becomes_one():
    before = graph(
        """
        g (float[n,6] x) => (float[n,6] y)
        <int64[1] six = {6}, int64[2] perm = {1, 0}>
        { t = Transpose <perm=[1,0]> (w)  e = Exp(t)  r = Reshape(e, six)  y = Mul(x, r) }
        """,
        w=normal(2, 3),
    )
    after = rewrite(before, [clean, fold_constants], {"x": normal(2, 6)})
    assert operators(after) == ["Mul"]
    (values,) = weights_of(after).values()
    np.testing.assert_allclose(values, np.exp(normal(2, 3).T).reshape(6), rtol=1e-6)


def test_shapes_of_inputs_are_not_constants():
    text = (
        "g (float[n,6] x) => (float[m] y) <int64[1] minus = {-1}> { s = Shape(x)  f = Size(x)  y = Reshape(x, minus) }"
    )
    after = rewrite(graph(text), [clean, fold_constants], {"x": normal(2, 6)})
    assert operators(after) == ["Reshape"]


def test_random_values_are_drawn_anew_each_time():
    before = graph(
        "g (float[2,3] x) => (float[2,3] y) { r = RandomUniformLike <seed = 1.0> (w)  y = Add(x, r) }", w=normal(2, 3)
    )
    after = ir.to_proto(fold_constants(ir.from_proto(before)))
    assert operators(after) == ["RandomUniformLike", "Add"]


def test_several_outputs_of_one_node():
    before = graph(
        "g (float[n,2] x) => (float[n,2] y) { a, b = Split <axis=0, num_outputs=2> (w)  c = Mul(x, a)  y = Sub(c, b) }",
        w=normal(2, 2),
    )
    after = rewrite(before, [clean, fold_constants], {"x": normal(5, 2)})
    assert operators(after) == ["Mul", "Sub"]
    assert sorted(array.tolist() for array in weights_of(after).values()) == sorted(
        row.tolist() for row in np.split(normal(2, 2), 2)
    )


def test_a_constant_output_keeps_its_name_and_value():
    before = graph(
        "g (float[n,2] x) => (float[n,2] y, float[2] z) { z = Neg(w)  t = Neg(z)  y = Mul(x, t) }", w=normal(2)
    )
    after = rewrite(before, [clean, fold_constants], {"x": normal(5, 2)})
    assert operators(after) == ["Neg", "Mul"]


def test_a_constant_that_a_branch_reads():
    before = graph(
        """
        g (float[n,3] x, bool k) => (float[n,3] y)
        {
          c = Exp(w)
          y = If(k) <then_branch = t () => (float[n,3] o) { o = Add(x, c) },
                     else_branch = e () => (float[n,3] p) { p = Mul(x, c) }>
        }
        """,
        w=normal(3),
    )
    for choice in (True, False):
        after = rewrite(before, [clean, fold_constants], {"x": normal(2, 3), "k": np.array(choice)})
        assert operators(after) == ["If"]


def test_a_huge_constant_is_left_to_be_computed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules["quantbench.graphs.passes.fold_constants"], "_LARGEST", 100)
    before = graph(
        "g (float[1] x) => (float[n] y) <int64[1] size = {101}> { c = ConstantOfShape(size)  y = Add(c, x) }"
    )
    feeds = {"x": normal(1)}
    after = rewrite(before, [clean, fold_constants], feeds)
    assert operators(after) == ["ConstantOfShape", "Add"]
    assert run(after, feeds)[0].shape == (101,)
