"""The memory that all stages share (`graphs.staging`) keeps what it once took, until it is told to let go."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort

from quantbench.graphs.executor import session_options

__all__ = ["shrink_shared_arena"]


def shrink_shared_arena() -> None:
    """Free what no session uses of the arena that sessions with `session.use_env_allocators` draw on.

    ONNX Runtime shrinks an arena at the end of a run that asks for it, so a session of one operation is run. Without
    such an arena nothing happens.
    """
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "shrink", [x], [y])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    options = session_options(1)
    options.add_session_config_entry("session.use_env_allocators", "1")
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    run = ort.RunOptions()
    run.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    session.run(None, {"x": np.zeros(1, np.float32)}, run)
