"""What runs graphs: the protocol that tasks drive, and the plain ONNX Runtime executor behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from quantbench.errors import InputError

__all__ = [
    "Executor",
    "PassingExecutor",
    "SessionExecutor",
    "TensorSpec",
    "element_type",
    "session_options",
    "tensor_specs",
]

Array = NDArray[Any]

_NUMPY_NAMES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}


@dataclass(frozen=True)
class TensorSpec:
    """A graph input or output. Unknown sizes are None."""

    name: str
    dtype: str  # numpy name: float32, uint8, int64 …
    shape: tuple[int | None, ...]


class Executor(Protocol):
    """One opened variant: its graphs by name ("model", or "encoder" and "decoder")."""

    @property
    def execution(self) -> str:
        """`native` (one session a graph) or `emulated` (staged, rounded between stages)."""

    def calls_at_once(self) -> int:
        """How many calls at once go through most samples a second, and be ready for as many.

        1 where a call keeps the cores busy by itself. Asked after the first call, while none is under way.
        """

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]: ...

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]: ...

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        """Run one graph. Returns every output, in the order of `outputs(graph)`. Safe to call from threads."""


class SessionExecutor:
    """Plain ONNX Runtime: one CPU session a graph.

    Args:
        models: graph name to a serialized model or the path of one.
        threads: intra-op threads; None leaves ONNX Runtime's default (one a core).

    Raises:
        InputError: ONNX Runtime cannot load a graph.
    """

    def __init__(self, models: Mapping[str, bytes | Path], threads: int | None = None) -> None:
        self._sessions = {name: _open(name, model, threads) for name, model in models.items()}
        self._inputs = {name: tensor_specs(session.get_inputs()) for name, session in self._sessions.items()}
        self._outputs = {name: tensor_specs(session.get_outputs()) for name, session in self._sessions.items()}

    @property
    def execution(self) -> str:
        return "native"

    def calls_at_once(self) -> int:
        return 1

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._inputs[graph]

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._outputs[graph]

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        outputs: Sequence[Array] = self._sessions[graph].run(None, feeds)
        return outputs


class PassingExecutor:
    """Passes everything on to another executor. What watches calls is derived from it."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    @property
    def execution(self) -> str:
        return self._executor.execution

    def calls_at_once(self) -> int:
        return self._executor.calls_at_once()

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.inputs(graph)

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]:
        return self._executor.outputs(graph)

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        return self._executor.run(feeds, graph)


def session_options(threads: int | None = None) -> ort.SessionOptions:
    """Options shared by every session: errors only in the log, and the number of threads."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def tensor_specs(arguments: Sequence[ort.NodeArg]) -> tuple[TensorSpec, ...]:
    """What a session says of its inputs or outputs."""
    return tuple(
        TensorSpec(
            name=argument.name,
            dtype=_NUMPY_NAMES.get(argument.type, np.dtype(object).name),
            shape=tuple(size if isinstance(size, int) and size >= 0 else None for size in argument.shape or ()),
        )
        for argument in arguments
    )


def element_type(argument: ort.NodeArg) -> int:
    """The number in onnx.TensorProto of an ONNX Runtime type such as tensor(float)."""
    return int(onnx.TensorProto.DataType.Value(argument.type.removeprefix("tensor(").removesuffix(")").upper()))


def _open(name: str, model: bytes | Path, threads: int | None) -> ort.InferenceSession:
    source = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(source, session_options(threads), providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own exceptions share no base class
        place = name if isinstance(model, bytes) else model
        raise InputError(f"ONNX Runtime cannot open graph {place}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
