"""What runs graphs: the protocol that tasks drive, and the plain ONNX Runtime executor behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Executor", "TensorSpec"]

Array = NDArray[Any]


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
        """"native" (one session a graph) or "emulated" (staged, rounded between stages)."""

    def inputs(self, graph: str = "model") -> Sequence[TensorSpec]: ...

    def outputs(self, graph: str = "model") -> Sequence[TensorSpec]: ...

    def run(self, feeds: Mapping[str, Array], graph: str = "model") -> Sequence[Array]:
        """Run one graph. Returns every output, in the order of `outputs(graph)`. Safe to call from threads."""
