"""Operations that change nothing go; those that only look like it stay."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import HEADER, graph, normal, operators, run
from rewriting import rewrite

from quantbench.graphs.load import prepare
from quantbench.graphs.passes import clean, simplify

NUMBERS = "<float one = {1.0}, float zero = {0.0}>"


@pytest.mark.parametrize(
    "last", ["Mul(r, one)", "Mul(one, r)", "Div(r, one)", "Add(r, zero)", "Add(zero, r)", "Sub(r, zero)"]
)
def test_neutral_elements_go(last: str):
    before = graph(f"g (float[n,3] x) => (float[n,3] y) {NUMBERS} {{ r = Relu(x)  a = {last}  y = Exp(a) }}")
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Relu", "Exp"]


@pytest.mark.parametrize("last", ["Mul(r, zero)", "Div(one, r)", "Sub(zero, r)", "Add(r, one)", "Sub(r, one)"])
def test_others_stay(last: str):
    before = graph(f"g (float[n,3] x) => (float[n,3] y) {NUMBERS} {{ r = Exp(x)  a = {last}  y = Exp(a) }}")
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Exp", last[:3], "Exp"]


def test_a_one_that_enlarges_the_tensor_stays():
    before = graph("g (float[n,3] x) => (float[1,n,3] y) { r = Relu(x)  y = Mul(r, one) }", one=np.ones((1, 1, 1)))
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Relu", "Mul"]


def test_the_last_operation_gives_its_name_to_the_one_before():
    before = graph(f"g (float[n,3] x) => (float[n,3] y) {NUMBERS} {{ r = Relu(x)  y = Mul(r, one) }}")
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Relu"]


def test_between_input_and_output_it_stays():
    before = graph(f"g (float[n,3] x) => (float[n,3] y) {NUMBERS} {{ y = Mul(x, one) }}")
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Mul"]


def test_between_two_outputs_it_stays():
    before = graph(f"g (float[n,3] x) => (float[n,3] r, float[n,3] y) {NUMBERS} {{ r = Relu(x)  y = Add(r, zero) }}")
    assert operators(rewrite(before, [clean, simplify], {"x": normal(4, 3)})) == ["Relu", "Add"]


@pytest.mark.parametrize(("axis", "kept"), [(2, False), (-1, False), (1, True)])
def test_what_the_opset_converter_puts_around_softmax_goes_where_it_means_the_last_axis(axis: int, kept: bool):
    """Before opset 13, Softmax(axis=1) normalises over everything behind axis 0 at once."""
    text = f"g (float[n,4,5] x) => (float[n,4,5] y) {{ r = Relu(x)  s = Softmax <axis={axis}> (r)  y = Exp(s) }}"
    before, feeds = onnx.parser.parse_model(HEADER.replace("21", "11") + text), {"x": normal(2, 4, 5)}
    after = ir.to_proto(prepare(before))
    assert ("Flatten" in operators(after)) == kept
    assert kept or operators(after) == ["Relu", "Softmax", "Exp"]
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-6)
