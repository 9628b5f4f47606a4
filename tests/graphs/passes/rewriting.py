"""What every test of a rewrite pass does: the same model before and after, checked and run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as common
from onnx_models import run


def rewrite(
    proto: onnx.ModelProto, passes: Sequence[Callable[[ir.Model], ir.Model]], feeds: dict[str, np.ndarray]
) -> onnx.ModelProto:
    """The model after the passes, as the preparation runs them: checked, with the interface and the results it had."""
    model = ir.from_proto(proto)
    for each in passes:
        common.ShapeInferencePass()(model)
        assert each(model) is model
    after = ir.to_proto(model)
    onnx.checker.check_model(after)
    initial = {tensor.name for tensor in proto.graph.initializer}
    assert [v.name for v in after.graph.input] == [v.name for v in proto.graph.input if v.name not in initial]
    assert [v.name for v in after.graph.output] == [v.name for v in proto.graph.output]
    for old, new in zip(run(proto, feeds), run(after, feeds), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-5, strict=True)
    return after
