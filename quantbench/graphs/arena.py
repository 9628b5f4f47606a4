"""Memory for sessions: one arena that many draw on, so that it goes from one to the next, and arrays to lend them.

The arena keeps what it once took until it is told to let go.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.graphs.executor import session_options

__all__ = ["LINE", "aligned", "share_arena", "shrink_shared_arena"]

LINE = 64
"""Bytes of a cache line, at whose start processors like arrays to start."""
_REGISTERING = threading.Lock()


def share_arena(options: ort.SessionOptions) -> None:
    """Let a session draw on the arena that all such sessions of the process share, on nothing but what it needs."""
    with _REGISTERING:
        _register_arena()
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_env_allocators", "1")


def shrink_shared_arena() -> None:
    """Free what no session uses of the shared arena.

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


@lru_cache(maxsize=1)
def _register_arena() -> None:
    memory = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(memory, None)


def aligned(shape: Sequence[int]) -> NDArray[np.float32]:
    """An array of that shape, not filled, that starts at a cache line."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + size].view(np.float32).reshape(shape)
