"""Every tensor gets the shape that ONNX's own inference gives it, also where the file says something of some."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal

from quantbench.graphs.passes import infer_shapes


def network() -> onnx.ModelProto:
    return graph(
        "g (float[n,3,6,6] x) => (float[n,8,4,4] y) { a = Conv(x, w)  r = Relu(a)  y = Neg(r) }", w=normal(8, 3, 3, 3)
    )


@pytest.mark.parametrize("sizes", [None, ["n", 8, 4, None], ["n", 8, 4, "conv_width"], ["n", 8, 4, 4]])
def test_sizes_follow_from_the_inputs(sizes: list[int | str | None] | None):
    """An exporter may have left tensors without a shape, or with sizes that it gave names of its own."""
    given = network()
    if sizes is not None:
        given.graph.value_info.extend(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name in "ar"
        )
    shapes = {
        output.name: [size if isinstance(size, int) else size.value for size in output.shape or ()]
        for node in infer_shapes(ir.from_proto(given)).graph
        for output in node.outputs
    }
    inferred = onnx.shape_inference.infer_shapes(network()).graph
    for value in (*inferred.value_info, *inferred.output):
        expected = [dim.dim_value or dim.dim_param for dim in value.type.tensor_type.shape.dim]
        assert shapes[value.name] == expected
