"""What stays in FP32 by what it is, in small graphs, against lists written by hand."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from quantbench.graphs.exact import stays_exact
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.quantization.placement import place_activations, weight_uses


def exact(text: str) -> set[str]:
    """Names of the float values that stay exact."""
    model = prepared(text)
    return {value.name or "" for value in stays_exact(model.graph) if value.dtype == ir.DataType.FLOAT}


def prepared(text: str) -> ir.Model:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]>\n{text}')
    return ir.from_proto(onnx.shape_inference.infer_shapes(model))


HEAD = """
  c = Conv(x, w)
  r = Relu(c)
  loc = Conv(r, wl)
  conf = Conv(r, wc)
  lt = Reshape(loc, box_shape)
  ct = Reshape(conf, class_shape)
  scores = Sigmoid(ct)
  scaled = Mul(lt, variance)
  boxes = Add(scaled, anchors)
"""
WEIGHTS = """
  float[2,2,1,1] w = {1,0,0,1}, float[4,2,1,1] wl = {1,0,0,1,1,0,0,1}, float[3,2,1,1] wc = {1,0,0,1,1,0},
  int64[3] box_shape = {1,-1,4}, int64[3] class_shape = {1,3,-1}, float[1] variance = {0.1},
  float[1,4,4] anchors = {0,0,1,1,0,0,1,1,0,0,1,1,0,0,1,1}
"""


def test_a_detector_from_the_last_convolutions_to_its_outputs() -> None:
    """The backbone and the heads' convolutions are layers; decoding, suppression and picking are not."""
    found = exact(
        f"""
        g (float[1,2,2,2] x) => (float[n,4] kept, float[n] kept_scores, float[n] labels)
        <{WEIGHTS}, int64 most = {{10}}, float iou = {{0.5}}, int64 two = {{2}}, int64 one = {{1}},
         float size = {{300.0}}, int64[2] rows = {{-1,4}}, int64[1] flat = {{-1}}, float first = {{1.0}}>
        {{
          {HEAD}
          picked = NonMaxSuppression(boxes, scores, most, iou)
          number = Gather <axis=1> (picked, two)
          box_rows = Reshape(boxes, rows)
          some = Gather(box_rows, number)
          kept = Div(some, size)
          score_rows = Reshape(scores, flat)
          kept_scores = Gather(score_rows, number)
          label = Gather <axis=1> (picked, one)
          as_float = Cast <to=1> (label)
          labels = Add(as_float, first)
        }}
        """
    )
    assert found == {
        *("lt", "ct", "scores", "scaled", "boxes"),  # c, r, loc and conf are the network's
        *("box_rows", "some", "kept", "score_rows", "kept_scores", "as_float", "labels"),
    }


DETECTOR = f"""
  g (float[1,2,2,2] x) => (float[1,4,4] boxes, int64[n,3] picked)
  <{WEIGHTS}, int64 most = {{10}}>
  {{ {HEAD}  picked = NonMaxSuppression(boxes, scores, most) }}
"""


def test_boxes_are_not_rounded() -> None:
    model = prepared(DETECTOR)
    assert rounding_points(model) == ["x", "r", "loc", "conf"]
    assert float_weights(model) == ["w", "wl", "wc"]


def test_boxes_carry_no_codes() -> None:
    model = prepared(DETECTOR)
    for index, node in enumerate(model.graph):
        node.name = f"node{index}"
    placed = place_activations(model)
    assert set(placed.tensors) == {"x", "r", "loc", "conf"}
    assert set(weight_uses(model)) == {"w", "wl", "wc"}


def test_suppression_inside_a_loop() -> None:
    """What a body takes from the graph around it leads into its suppression, too."""
    found = exact(
        f"""
        g (float[1,2,2,2] x) => (int64[n,3] all)
        <{WEIGHTS}, int64 once = {{1}}, bool yes = {{1}}, int64 most = {{10}}>
        {{
          {HEAD}
          all = Loop (once, yes) <body = inner (int64 i, bool on) => (bool go_on, int64[n,3] found) {{
              go_on = Identity(on)
              found = NonMaxSuppression(boxes, scores, most)
          }}>
        }}
        """
    )
    assert found == {"lt", "ct", "scores", "scaled", "boxes"}


def test_a_network_without_boxes_or_indices() -> None:
    assert not exact(
        """
        g (float[1,2] x) => (float[1,2] y, int64[1,1] best)
        <float[2,2] w = {1,0,0,1}>
        { a = MatMul(x, w)  y = Softmax(a)  best = ArgMax(y) }
        """
    )


def test_numbers_made_of_indices_are_exact_and_what_they_are_added_to_is_not() -> None:
    found = exact(
        """
        g (float[n,4] x) => (float[n,4] y, float[1] length)
        <float[4,4] w = {1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}, float half = {0.5}, float[1,4] table = {1,2,3,4}>
        {
          a = MatMul(x, w)
          best = ArgMax <axis=1, keepdims=1> (a)
          position = Cast <to=1> (best)
          place = Mul(position, half)
          moved = Add(a, place)
          rows = ArgMax <axis=1, keepdims=0> (a)
          embedded = Gather(table, rows)
          sum = Add(moved, embedded)
          y = MatMul(sum, w)
          shape = Shape <end=1> (x)
          length = Cast <to=1> (shape)
        }
        """
    )
    assert found == {"position", "place", "length"}  # a lookup of learned rows is the network's


def test_constants_looked_up_for_boxes() -> None:
    """Default boxes picked by the suppression's result, and nothing but shifted boxes read them."""
    found = exact(
        f"""
        g (float[1,2,2,2] x) => (float[n,4] y)
        <{WEIGHTS}, int64 most = {{10}}, int64 two = {{2}}, float[1,4] defaults = {{0,0,1,1}}, int64[2] rows = {{-1,4}}>
        {{
          {HEAD}
          picked = NonMaxSuppression(boxes, scores, most)
          number = Gather <axis=1> (picked, two)
          base = Gather(defaults, number)
          box_rows = Reshape(boxes, rows)
          some = Gather(box_rows, number)
          y = Add(some, base)
        }}
        """
    )
    assert {"base", "some", "y"} <= found


def test_a_second_stage_is_the_network_again() -> None:
    """Features cut out where the boxes lie are features."""
    found = exact(
        f"""
        g (float[1,2,2,2] x) => (float[n,2,1,1] y)
        <{WEIGHTS}, int64 most = {{10}}, int64 two = {{2}}, int64 zero = {{0}}, int64[2] rows = {{-1,4}}>
        {{
          {HEAD}
          picked = NonMaxSuppression(boxes, scores, most)
          number = Gather <axis=1> (picked, two)
          image = Gather <axis=1> (picked, zero)
          box_rows = Reshape(boxes, rows)
          some = Gather(box_rows, number)
          features = RoiAlign(r, some, image)
          y = Conv(features, w)
        }}
        """
    )
    assert "some" in found and not {"features", "y", "r"} & found
