"""An executor and a task small enough to run through LoadGen in a test: four classes, the largest input wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from quantbench.graphs.executor import TensorSpec

SAMPLES = 40
CLASSES = 4


class TinyExecutor:
    """One ONNX Runtime session, one thread; counts its calls."""

    execution = "native"

    def __init__(self, model: onnx.ModelProto) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(model.SerializeToString(), options)
        self.batches: list[int] = []

    def calls_at_once(self) -> int:
        return 1

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return [TensorSpec("x", "float32", (None, CLASSES))]

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return [TensorSpec("y", "float32", (None, CLASSES))]

    def run(self, feeds: Mapping[str, Any], graph: str = "model") -> Sequence[Any]:
        self.batches.append(len(feeds["x"]))
        return self._session.run(None, dict(feeds))


class TinyTask:
    """Argmax, after a wait that stands for a model's time; `before` may raise."""

    name = "image-classification"

    def __init__(self, seconds: float = 0.0, before: Callable[[], None] = lambda: None) -> None:
        self.seconds = seconds
        self.before = before

    def feeds(self, executor: TinyExecutor, inputs: Sequence[Any]) -> Any:
        return {"x": np.stack(list(inputs))}

    def infer(self, executor: TinyExecutor, feeds: Any) -> Any:
        self.before()
        time.sleep(self.seconds)
        return executor.run(feeds)[0]

    def predictions(self, raw: Any) -> list[int]:
        return [int(k) for k in raw.argmax(axis=1)]

    def classes(self, raw: Any) -> int | None:
        return CLASSES

    def to_bytes(self, prediction: int, index: int) -> bytes:
        return np.array(prediction, "<f4").tobytes()

    def from_bytes(self, data: bytes) -> int:
        return int(np.frombuffer(data, "<f4")[0])
