"""What a task is: from prepared samples through the graphs to predictions, and into LoadGen's bytes and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from quantbench.graphs.executor import Executor

__all__ = ["Task"]

Array = NDArray[Any]


class Task(Protocol):
    """One file a task. A task object is made by `make_task(reference, dataset)` and holds no session.

    A sample's prediction does not depend on the batch it sits in, as far as the runtime's float kernels allow.
    Every method is safe to call from several threads.
    """

    @property
    def name(self) -> str:
        """As the reference file's `task` says it."""

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> Any:
        """Stack any number of prepared samples into what `infer` takes. Not timed.

        Raises:
            InputError: a sample's shape or values do not fit the graph's input.
        """

    def infer(self, executor: Executor, feeds: Any) -> Any:
        """Run the graphs (and the loop, where there is one). This alone is what `seconds` counts."""

    def predictions(self, raw: Any) -> list[Any]:
        """One prediction a sample, in the order of the inputs.

        An int class, a str, or a (k, 6) float32 array of x1, y1, x2, y2, score, class; boxes are in pixels of the
        input, or in fractions of the image where the truths are `LabelledBoxes`.
        """

    def classes(self, raw: Any) -> int | None:
        """How many classes the outputs choose from; None where a truth is no class number or the outputs do not say."""

    def to_bytes(self, prediction: Any, index: int) -> bytes:
        """The response LoadGen logs for sample `index` (layout: the reference implementation's, where it has one)."""

    def from_bytes(self, data: bytes) -> Any:
        """The prediction again; `from_bytes(to_bytes(p, i))` scores exactly as `p`."""
