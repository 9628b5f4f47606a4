"""Hard-swish without a session: the bits of ONNX Runtime, which stages qualify, and whose memory it takes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_models import graph, normal, run

from quantbench.graphs.hard_swish_stage import hard_swish_stage
from quantbench.graphs.stages import cut
from quantbench.graphs.staging import StagedSession, Tap

HARD_SWISH = "g (float[n,4] x) => (float[n,4] y) { y = HardSwish(x) }"


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.floats(width=32), min_size=8, max_size=8), st.booleans())
def test_same_bits_as_onnxruntime(numbers: list[float], overwrite: bool) -> None:
    model = graph(HARD_SWISH)
    x = np.array(numbers, np.float32).reshape(2, 4)
    (wanted,) = run(model, {"x": x})
    (stage,) = cut(ir.from_proto(model), {}).stages
    compute = hard_swish_stage(stage, () if overwrite else ("x",), threads=1)
    assert compute is not None
    fed = x.copy()
    values = {"x": fed}
    assert compute(values)
    np.testing.assert_array_equal(values["y"], wanted)
    np.testing.assert_array_equal(np.signbit(values["y"][~np.isnan(wanted)]), np.signbit(wanted[~np.isnan(wanted)]))
    if overwrite:
        assert np.shares_memory(values["y"], fed)
    else:
        np.testing.assert_array_equal(fed, x)


@pytest.mark.parametrize(
    "nodes",
    [
        "y = HardSigmoid(x)",
        "h = HardSigmoid(x) y = Add(x, h)",
        "h = HardSigmoid(x) y = Mul(h, h)",
        "h = HardSigmoid(x) y = Mul(x, h) z = Neg(y)",
    ],
)
def test_other_stages_are_left_to_sessions(nodes: str) -> None:
    made = "z" if " z " in nodes else "y"
    model = graph(f"g (float[n,4] x) => (float[n,4] {made}) {{ {nodes} }}")
    (stage,) = cut(ir.from_proto(model), {}).stages
    assert hard_swish_stage(stage, (), threads=1) is None


def test_what_something_else_reads_is_kept() -> None:
    model = graph("g (float[n,4] x) => (float[n,4] z) { a = Exp(x) y = HardSwish(a) z = Sub(y, a) }")
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    (wanted,) = run(model, {"x": x})
    (got,) = StagedSession(ir.from_proto(model), {"a": Tap(lambda _: None), "y": Tap(lambda _: None)}, 1).run({"x": x})
    np.testing.assert_array_equal(got, wanted)


def test_feeds_are_never_written_to() -> None:
    x = np.random.default_rng(0).normal(0, 1, (3, 4)).astype(np.float32)
    before = x.copy()
    StagedSession(ir.from_proto(graph(HARD_SWISH)), {"y": Tap(lambda _: None)}, 1).run({"x": x})
    np.testing.assert_array_equal(x, before)


def test_between_tensors_that_are_counted_it_is_a_stage_of_its_own() -> None:
    """Which goes through memory once, where two operations of ONNX Runtime go through it five times."""
    text = (
        "g (float[n,3,8,8] x) => (float[n,16,4,4] y) { a = Conv(x, w)  h = HardSwish(a)  b = Conv(h, v)  y = Relu(b) }"
    )
    model = ir.from_proto(graph(text, w=normal(32, 3, 3, 3), v=normal(16, 32, 3, 3)))
    counted = ("x", "a", "h", "b", "y")
    stages = [
        [node.op_type for node in stage.model.graph.node]
        for stage in cut(model, dict.fromkeys(counted, "values")).stages
    ]
    assert ["HardSigmoid", "Mul"] in stages and len(stages) == 3
    x, seen = normal(2, 3, 8, 8, seed=1), {}
    taps = {name: Tap(lambda values, name=name: seen.update({name: values.copy()}), "values") for name in counted}
    StagedSession(model, taps, 1).run({"x": x})
    (h,) = run(
        graph("g (float[n,32,6,6] a) => (float[n,32,6,6] h) { h = HardSwish(a) }"),
        {"a": seen["a"].reshape(2, 32, 6, 6)},
    )
    np.testing.assert_array_equal(seen["h"].ravel(), h.ravel())
