"""How long a tensor is held, worked out by hand for a chain of residual blocks."""

from __future__ import annotations

import onnx_ir as ir
from onnx_models import graph, normal

from quantbench.graphs.liveness import last_steps


def test_a_chain_of_residual_blocks():
    """r1 and r2 are kept: what they were made of is not needed once they are there, however long the chain."""
    model = ir.from_proto(
        graph(
            """
            g (float[n,4,5,5] x) => (float[n,4,5,5] y)
            {
              a = Conv(x, w)  r1 = Add(a, x)
              b = Conv(r1, w)  r2 = Add(b, r1)
              c = Conv(r2, w)  t = Relu(c)  y = Add(t, r2)
            }
            """,
            w=normal(4, 4, 1, 1),
        )
    )
    assert last_steps(list(model.graph), ["a", "b", "c", "y"], {"r1", "r2"}) == {
        "x": 1,  # by r1, on the way to b
        "a": 1,
        "r1": 2,  # by r2, on the way to c
        "b": 2,
        "r2": 3,
        "c": 3,
        "t": 3,
        "y": 3,
        "w": 2,
    }
    forgetful = last_steps(list(model.graph), ["a", "b", "c", "y"], {"r2"})
    assert forgetful["x"] == forgetful["a"] == 2, "where r1 is not kept, c's piece makes it again"


def test_a_stop_that_comes_up_again_and_a_node_with_two_outputs():
    model = ir.from_proto(
        graph(
            """
            g (float[4,6] x) => (float[4,3] y, float[4,3] z)
            { t = Tanh(x)  p, q = Split <axis=1, num_outputs=2> (t)  y = Neg(p)  z = Neg(q) }
            """
        )
    )
    steps = last_steps(list(model.graph), ["t", "y", "t", "z"], {"p"})
    assert steps["x"] == 0 and steps["p"] == 1
    assert steps["t"] == 3, "q is not kept, so Split runs once more, for z"
