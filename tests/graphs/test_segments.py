"""Running a graph piece by piece, and on from any piece: the outputs are those of the whole."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run

from quantbench.graphs.segments import Segments


def branching() -> onnx.ModelProto:
    """The input, `a` and `c` are read again late; `i` is no float; `y1` is there early."""
    text = """g (float[n,3,6,6] x) => (float[n,4,6,6] y1, float[n,4,6,6] y2) {
        a = Conv<pads=[1,1,1,1]>(x, w1)  y1 = Relu(a)  i = Shape(x)
        b = Conv<pads=[1,1,1,1]>(y1, w2)  c = Tanh(b)
        d = Conv<pads=[1,1,1,1]>(c, w2)  e = Add(d, a)  f = Add(e, c)
        m = ReduceMean<keepdims=1>(x)  h = Mul(f, m)  k = Cast<to=1>(i)  l = ReduceMax<keepdims=0>(k)  y2 = Mul(h, l)
    }"""
    return graph(text, w1=normal(4, 3, 3, 3, seed=1), w2=normal(4, 4, 3, 3, seed=2))


def named() -> ir.Model:
    model = ir.from_proto(onnx.shape_inference.infer_shapes(branching()))
    for node in model.graph:
        node.name = node.outputs[0].name
    return model


def same(piece: ir.Model) -> ir.Model:
    return piece


@pytest.mark.parametrize("firsts", [[], ["b"], ["a", "b", "d", "h"], ["y2"]])
def test_from_every_piece_to_the_end(firsts: list[str]):
    x = normal(2, 3, 6, 6)
    names = ["x", *(node.name for node in named().graph)]
    everything = branching()
    del everything.graph.output[:]
    everything.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names[1:])
    tensors = {"x": x, **dict(zip(names[1:], run(everything, {"x": x}), strict=True))}
    segments = Segments(named(), firsts, ["y1", "y2"], same)
    assert len(segments.taken) == len(firsts) + 2
    for first, taken in enumerate(segments.taken):
        given = {name: tensors[name] for name in taken}
        for name, values in zip(("y1", "y2"), segments.rest(given, first), strict=True):
            np.testing.assert_allclose(values, tensors[name], rtol=1e-5, atol=1e-5)
        if first <= len(firsts):
            got = segments.step(given, first)
            assert set(got) == set(segments.taken[first + 1])
            for name, values in got.items():
                np.testing.assert_allclose(values, tensors[name], rtol=1e-5, atol=1e-5)


def test_a_wrong_shape_within_does_not_matter():
    model, x = named(), normal(2, 3, 6, 6)
    wanted = Segments(model, ["d"], ["y1", "y2"], same).rest({"x": x}, 0)
    for node in model.graph:
        if node.name in ("a", "c"):
            node.outputs[0].shape = ir.Shape([1, 4, 6, 6])
    for got, values in zip(Segments(model, ["d"], ["y1", "y2"], same).rest({"x": x}, 0), wanted, strict=True):
        np.testing.assert_array_equal(got, values)


def test_a_piece_takes_what_it_and_those_after_it_need():
    assert Segments(named(), ["b", "d", "h"], ["y1", "y2"], same).taken == [
        ("x",),
        ("a", "i", "x", "y1"),
        ("a", "c", "i", "x", "y1"),
        ("f", "i", "m", "y1"),
        ("y1", "y2"),
    ]


def test_changed_tensors_go_on_from_where_they_are_put_in():
    x = normal(2, 3, 6, 6)
    segments = Segments(named(), ["d"], ["y2"], same)
    changed = {"a": normal(2, 4, 6, 6, seed=5), "c": normal(2, 4, 6, 6, seed=6), "x": x, "i": np.array([2, 3, 6, 6])}
    (got,) = segments.rest({name: changed[name] for name in segments.taken[1]}, 1)
    (d,) = run(
        graph(
            "g (float[n,4,6,6] c) => (float[n,4,6,6] d) { d = Conv<pads=[1,1,1,1]>(c, w) }",
            w=normal(4, 4, 3, 3, seed=2),
        ),
        {"c": changed["c"]},
    )
    np.testing.assert_allclose(got, (d + changed["a"] + changed["c"]) * x.mean() * 6, rtol=1e-4, atol=1e-5)


def test_the_other_version_of_a_piece():
    """The piece of `b` with a factor of 3 in place of Tanh, by its names."""
    x = normal(2, 3, 6, 6)

    def linear(piece: ir.Model) -> ir.Model:
        for node in piece.graph:
            if node.op_type == "Tanh":
                assert [value.name for value in piece.graph.outputs] == ["c"]
                three = ir.Node("", "Constant", [], [ir.AttrFloat32("value_float", 3.0)])
                piece.graph.insert_before(node, [three])
                node.op_type = "Mul"
                node.resize_inputs(2)
                node.replace_input_with(1, three.outputs[0])
        return piece

    segments = Segments(named(), ["b", "d"], ["y2"], linear)
    before = segments.step({"x": x}, 0)
    exact, changed = segments.step(before, 1), segments.step(before, 1, changed=True)
    np.testing.assert_allclose(np.tanh(changed["c"] / 3), exact["c"], rtol=1e-4, atol=1e-5)
    for name in set(segments.taken[2]) - {"c"}:
        assert changed[name] is before[name]
