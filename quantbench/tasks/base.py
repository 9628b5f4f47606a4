"""What a task is: from prepared samples through the graphs to predictions, and into LoadGen's bytes and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from quantbench.graphs.executor import Executor

__all__ = ["Task"]

Array = NDArray[Any]


class Task(Protocol):
    """One file a task. A task object is made by `make_task(reference, dataset)` and holds no session."""

    name: str

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> Any:
        """Stack prepared samples into what `infer` takes. Not timed."""

    def infer(self, executor: Executor, feeds: Any) -> Any:
        """Run the graphs (and the loop, where there is one). This alone is what `seconds` counts."""

    def predictions(self, raw: Any) -> list[Any]:
        """One prediction a sample: an int class, a str, a (k, 6) float32 array of x1, y1, x2, y2, score, class."""

    def to_bytes(self, prediction: Any, index: int) -> bytes:
        """The response LoadGen logs for sample `index` (layout: the reference implementation's, where it has one)."""

    def from_bytes(self, data: bytes) -> Any:
        """The prediction again; `from_bytes(to_bytes(p))` scores exactly as `p`."""
