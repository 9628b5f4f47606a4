"""The plain form of a graph: constants lifted, nothing unused, everything named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_models import graph, normal, operators, run, weights_of
from rewriting import rewrite

from quantbench.graphs.passes import clean


def test_constants_become_initializers_and_what_nothing_reads_goes():
    before = graph(
        """
        g (float[n,3] x) => (float[n,3] y)
        {
          c = Constant <value = float[3] {1.0, 2.0, 3.0}> ()
          s = Constant <value_float = 2.5> ()
          unused = Mul(x, c)
          i = Identity(x)  a = Add(i, c)  j = Identity(a)  y = Mul(j, s)
        }
        """,
        spare=normal(7),
    )
    after = rewrite(before, [clean], {"x": normal(2, 3)})
    assert operators(after) == ["Add", "Mul"]
    assert sorted(weights_of(after)) == ["c", "s"]
    assert weights_of(after)["c"].tolist() == [1, 2, 3] and weights_of(after)["s"].tolist() == 2.5


def test_an_initializer_that_is_also_an_input_is_an_initializer_alone():
    """ONNX of IR version 3 lists every weight among the inputs."""
    before = graph("g (float[n,3] x, float[3,2] w) => (float[n,2] y) { y = MatMul(x, w) }", w=normal(3, 2))
    after = rewrite(before, [clean], {"x": normal(4, 3)})
    assert [value.name for value in after.graph.input] == ["x"] and list(weights_of(after)) == ["w"]


def test_nodes_are_named_after_their_first_outputs_in_topological_order():
    before = graph("g (float[1,4] x) => (float[1,2] y) { a, b = Split <axis=1, num_outputs=2> (x)  y = Relu(b) }")
    for node, name in zip(before.graph.node, ("y", ""), strict=True):
        node.name = name
    before.graph.node.sort(key=lambda node: node.op_type)
    after = rewrite(before, [clean], {"x": normal(1, 4)})
    assert [(node.op_type, node.name) for node in after.graph.node] == [("Split", "a"), ("Relu", "y")]


def test_local_functions_are_inlined_with_unique_names():
    before = onnx.parser.parse_model(
        """
        <ir_version: 10, opset_import: ["" : 21, "local" : 1]>
        g (float[n,3] x) => (float[n,3] y) { a = local.twice(x)  y = local.twice(a) }
        <domain: "local", opset_import: ["" : 21]> twice (x) => (y) { t = Add(x, x)  y = Relu(t) }
        """
    )
    after = rewrite(before, [clean], {"x": normal(2, 3)})
    assert operators(after) == ["Add", "Relu", "Add", "Relu"] and not after.functions
    produced = [name for node in after.graph.node for name in node.output]
    assert len(set(produced)) == 4 and [node.name for node in after.graph.node] == produced


def test_an_identity_from_input_to_output_stays():
    """The interface has two names for it, so something has to stand in between."""
    after = rewrite(graph("g (float[n,3] x) => (float[n,3] y) { y = Identity(x) }"), [clean], {"x": normal(2, 3)})
    assert operators(after) == ["Identity"]


def test_two_outputs_of_one_value_stay_two():
    before = graph("g (float[n,3] x) => (float[n,3] r, float[n,3] y) { r = Relu(x)  y = Identity(r) }")
    rewrite(before, [clean], {"x": normal(2, 3)})


@pytest.mark.parametrize("choice", [True, False])
def test_constants_inside_a_branch_stay_usable(choice: bool):
    before = graph(
        """
        g (float[n,3] x, bool k) => (float[n,3] y)
        {
          y = If(k) <
            then_branch = t () => (float[n,3] o) { c = Constant <value = float[1] {4.0}> ()  o = Add(x, c) },
            else_branch = e () => (float[n,3] p) { p = Neg(x) }
          >
        }
        """
    )
    x = normal(2, 3)
    feeds = {"x": x, "k": np.array(choice)}
    np.testing.assert_array_equal(run(rewrite(before, [clean], feeds), feeds)[0], x + 4 if choice else -x)
