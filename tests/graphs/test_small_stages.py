"""Small stages computed by numpy: the bits of ONNX Runtime, and which stages qualify."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, run

from quantbench.graphs.small_stages import SMALL, small_stage
from quantbench.graphs.stages import cut
from quantbench.graphs.staging import StagedSession, Tap

GATES = """
    g (float[n,6] x, float[n,2] s) => (float[n,2] y, float[n,2] b)
    { a, b, c = Split <axis=-1, num_outputs=3> (x)  p = Mul(a, s)  q = Sub(one, p)  r = Add(q, c)  y = Mul(r, r) }
"""


@settings(deadline=None)  # opens a session
@given(st.lists(st.floats(width=32), min_size=8, max_size=8), st.integers(1, 3))
def test_same_bits_as_onnxruntime(numbers: list[float], rows: int) -> None:
    model = graph(GATES, one=np.float32(1))
    values = np.tile(np.array(numbers, np.float32), (rows, 1))
    feeds = {"x": np.ascontiguousarray(values[:, :6]), "s": np.ascontiguousarray(values[:, 6:])}
    (stage,) = cut(ir.from_proto(model), {}).stages
    compute = small_stage(stage, {})
    assert compute is not None
    got = dict(feeds)
    with np.errstate(all="ignore"):
        assert compute(got)
    assert got.keys() == {*feeds, *stage.outputs}
    for name, want in zip(("y", "b"), run(model, feeds), strict=True):
        np.testing.assert_array_equal(got[name], want)  # equal bits but for the sign and payload of NaN
        np.testing.assert_array_equal(np.signbit(got[name][~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))


@pytest.mark.parametrize(
    ("split", "shape"),
    [
        ("a, b, c = Split <axis=1, num_outputs=3> (x)", (2, 7)),  # the last one is smaller
        ("a, b, c = Split <axis=1> (x, sizes)", (2, 7)),
        ("a, b, c = Split (x, sizes)", (7, 2)),
    ],
)
def test_split_as_onnxruntime(split: str, shape: tuple[int, ...]) -> None:
    text = (
        f"g (float[n,m] x) => (float[i,j] a, float[k,l] b, float[o,p] c) <int64[3] sizes = {{1, 4, 2}}> {{ {split} }}"
    )
    model = graph(text)
    x = np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)
    (stage,) = cut(ir.from_proto(model), {}).stages
    compute = small_stage(stage, {})
    assert compute is not None
    values = {"x": x}
    assert compute(values)
    for name, want in zip(stage.outputs, run(model, {"x": x}), strict=True):
        np.testing.assert_array_equal(values[name], want)
        assert values[name].flags.carray and not np.shares_memory(values[name], x)


@pytest.mark.parametrize("operation", ["Exp(x)", "Div(x, x)", "Relu(x)", "MatMul(x, x)"])
def test_other_operations_are_left_to_sessions(operation: str) -> None:
    model = graph(f"g (float[2,2] x) => (float[2,2] y) {{ a = Add(x, x)  y = {operation} }}")
    (stage,) = cut(ir.from_proto(model), {}).stages
    assert small_stage(stage, {}) is None


@pytest.mark.parametrize("size", [8, SMALL + 8])
def test_changing_one_part_changes_no_other(size: int) -> None:
    model = graph(
        """
        g (float[n] x) => (float[n] x2, float[m] s)
        { x2 = Add(x, x)  a, b = Split <num_outputs=2> (x2)  s = Sub(a, b) }
        """
    )
    x = np.arange(size, dtype=np.float32)

    def negate(values: np.ndarray) -> None:
        values *= -1

    taps = {"x2": Tap(lambda values: None), "a": Tap(negate)}
    x2, s = StagedSession(ir.from_proto(model), taps).run({"x": x})
    np.testing.assert_array_equal(x2, 2 * x)
    np.testing.assert_array_equal(s, -2 * x[: size // 2] - 2 * x[size // 2 :])
