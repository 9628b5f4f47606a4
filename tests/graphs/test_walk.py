"""Walking through a graph: each stop sees what ONNX Runtime computes for the whole graph with all shifts before it."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run

from quantbench.graphs.passes import clean
from quantbench.graphs.walk import walk

STOPS = {"a": 1, "b": 1, "e": 1, "z": -1}
FEEDS = [{"x": normal(size, 3, 6, 6, seed=size)} for size in (4, 4, 1)]


def network() -> onnx.ModelProto:
    """A residual network: `r` is read by two branches and again at the end."""
    return graph(
        """
        g (float[n,3,6,6] x) => (float[n,5] y)
        {
          a = Conv(x, w1, b1)  r = Relu(a)  b = Conv(r, w2, b2)  t = Tanh(b)  s = Add(t, r)
          e = Conv(s, w3, b3)  m = Mul(e, r)
          p = GlobalAveragePool(m)  f = Flatten(p)  z = MatMul(f, w4)  y = Add(z, b4)
        }
        """,
        w1=normal(8, 3, 3, 3), b1=normal(8, seed=1), w2=normal(8, 8, 1, 1, seed=2), b2=normal(8, seed=3),
        w3=normal(8, 8, 1, 1, seed=4), b3=normal(8, seed=5), w4=normal(8, 5, seed=6), b4=normal(5, seed=7),
    )  # fmt: skip


def model(proto: onnx.ModelProto) -> ir.Model:
    """With the shapes and node names that prepared graphs have."""
    return clean(ir.from_proto(onnx.shape_inference.infer_shapes(proto)))


def copied(name: str, values: np.ndarray) -> np.ndarray:
    return values.copy()


def tensors(proto: onnx.ModelProto, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    """These tensors, computed by ONNX Runtime in one run of the whole graph."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names)
    return run(copy, feed)[len(proto.graph.output) :]


def test_every_stop_is_visited_once_in_order_with_all_batches():
    seen: dict[str, list[np.ndarray]] = {}

    def visit(name: str, batches: list[np.ndarray]) -> None:
        assert name not in seen
        seen[name] = batches

    walk(model(network()), FEEDS, dict(reversed(STOPS.items())), copied, visit)
    assert list(seen) == list(STOPS)
    for batch, feed in enumerate(FEEDS):
        for name, expected in zip(STOPS, tensors(network(), list(STOPS), feed), strict=True):
            np.testing.assert_allclose(seen[name][batch], expected, rtol=1e-5, atol=1e-5)


def test_a_shift_reaches_everything_behind_it():
    """Adding to a Conv's output what could have been added to its bias."""
    shifts = {"a": normal(8, seed=11), "b": normal(8, seed=12), "e": normal(8, seed=13)}
    biased = network()
    for name, bias in (("a", "b1"), ("b", "b2"), ("e", "b3")):
        (tensor,) = (each for each in biased.graph.initializer if each.name == bias)
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + shifts[name], bias))
    before: dict[str, list[np.ndarray]] = {}

    def visit(name: str, batches: list[np.ndarray]) -> np.ndarray | None:
        before[name] = batches
        return shifts.get(name)

    walk(model(network()), FEEDS, STOPS, copied, visit)
    for batch, feed in enumerate(FEEDS):
        for name, after in zip(STOPS, tensors(biased, list(STOPS), feed), strict=True):
            own = shifts[name][:, None, None] if name in shifts else 0
            np.testing.assert_allclose(before[name][batch] + own, after, rtol=1e-4, atol=1e-4)


def test_the_model_and_the_feeds_stay_as_they_are():
    given = model(network())
    text = ir.to_proto(given).SerializeToString()
    copies = [{name: values.copy() for name, values in feed.items()} for feed in FEEDS]
    walk(given, FEEDS, STOPS, copied, lambda name, batches: np.ones(batches[0].shape[STOPS[name]]))
    assert ir.to_proto(given).SerializeToString() == text
    for feed, copy in zip(FEEDS, copies, strict=True):
        np.testing.assert_array_equal(feed["x"], copy["x"])


def test_every_operation_is_computed_once(monkeypatch: pytest.MonkeyPatch):
    module = sys.modules[walk.__module__]
    open_piece, computed = module._open, []

    def counting(piece: onnx.ModelProto) -> object:
        computed.extend(node.output[0] for node in piece.graph.node)
        return open_piece(piece)

    monkeypatch.setattr(module, "_open", counting)
    walk(model(network()), FEEDS, STOPS, copied, lambda name, batches: None)
    assert sorted(computed) == sorted(["a", "r", "b", "t", "s", "e", "m", "p", "f", "z"])


def test_what_a_branch_takes_from_outside():
    proto = graph(
        """
        g (float[n,3,6,6] x, bool k) => (float[n,8,4,4] y)
        {
          a = Conv(x, w1)  r = Relu(a)
          q = If(k) <then_branch = t () => (float[n,8,4,4] o) { o = Neg(r) },
                     else_branch = e () => (float[n,8,4,4] p) { p = Tanh(a) }>
          y = Conv(q, w2)
        }
        """,
        w1=normal(8, 3, 3, 3), w2=normal(8, 8, 1, 1, seed=2),
    )  # fmt: skip
    feeds = [{"x": normal(2, 3, 6, 6), "k": np.array(choice)} for choice in (True, False)]
    seen: list[np.ndarray] = []
    walk(
        model(proto), feeds, {"a": 1, "y": 1}, copied, lambda name, batches: seen.extend(batches if name == "y" else [])
    )
    for got, feed in zip(seen, feeds, strict=True):
        np.testing.assert_allclose(got, run(proto, feed)[0], rtol=1e-5, atol=1e-5)


def test_an_output_that_is_read_on_has_a_type_too():
    """As the states of an LSTM's step are: put out, and read by the next layer; a piece that starts there needs it."""
    proto = network()
    proto.graph.output.append(onnx.helper.make_tensor_value_info("r", onnx.TensorProto.FLOAT, ["n", 8, 4, 4]))
    seen: list[str] = []
    walk(model(proto), FEEDS, STOPS, copied, lambda name, batches: seen.append(name))
    assert seen == list(STOPS)


def test_what_several_pieces_read_is_kept_in_codes(monkeypatch: pytest.MonkeyPatch):
    """A quarter of the memory, and the same values."""
    proto = graph(
        """
        g (float[n,3,6,6] x) => (float[n,8,4,4] y)
        {
          a = Conv(x, w1)  c = QuantizeLinear(a, s, z)  d = DequantizeLinear(c, s, z)
          b = Conv(d, w2)  y = Add(b, d)
        }
        """,
        w1=normal(8, 3, 3, 3), w2=normal(8, 8, 1, 1, seed=2), s=np.float32(0.1), z=np.uint8(128),
    )  # fmt: skip
    module = sys.modules[walk.__module__]
    open_piece, starts = module._open, []

    def noting(piece: onnx.ModelProto) -> object:
        starts.append({value.name: value.type.tensor_type.elem_type for value in piece.graph.input})
        return open_piece(piece)

    monkeypatch.setattr(module, "_open", noting)
    seen: dict[str, list[np.ndarray]] = {}
    stops = {"a": 1, "b": 1, "y": 1}
    walk(model(proto), FEEDS, stops, copied, lambda name, batches: seen.update({name: batches}))
    assert starts[1] == {"a": onnx.TensorProto.FLOAT}
    assert starts[2] == {"b": onnx.TensorProto.FLOAT, "c": onnx.TensorProto.UINT8}
    for batch, feed in enumerate(FEEDS):
        np.testing.assert_allclose(seen["y"][batch], run(proto, feed)[0], rtol=1e-5, atol=1e-5)
