"""Text recognition: one distribution over characters a column, read by greedy CTC decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.graphs.executor import Executor
from quantbench.references import Reference
from quantbench.tasks.batching import Group, Output, run_groups, scatter, stack

__all__ = ["RecognitionTask"]

Array = NDArray[Any]

_BLANK = 0


@dataclass(frozen=True)
class RecognitionTask:
    """The scored output is (n, columns, classes); class 0 is the CTC blank, `characters` names every class."""

    characters: tuple[str, ...]
    output: str | None = None
    name: str = "text-recognition"

    @classmethod
    def of(cls, reference: Reference, dataset: Dataset) -> RecognitionTask:
        """
        Raises:
            InputError: the data set does not say which character each class is.
        """
        if not dataset.prediction_space:
            raise InputError(
                f"reference {reference.name}: there is no character set to read the model's classes with; "
                "put it in the model's metadata under `character`, one a line"
            )
        return cls(tuple(dataset.prediction_space), reference.model.output)

    def feeds(self, executor: Executor, inputs: Sequence[Array]) -> list[Group]:
        return stack(executor, inputs)

    def infer(self, executor: Executor, feeds: list[Group]) -> list[Output]:
        return run_groups(executor, feeds, self.output)

    def predictions(self, raw: list[Output]) -> list[str]:
        """The text of each sample.

        Raises:
            InputError: the output is not (n, columns, classes) with as many classes as there are characters.
        """
        return scatter(raw, self._decode)

    def classes(self, raw: list[Output]) -> int | None:
        return None

    def to_bytes(self, prediction: str, index: int) -> bytes:
        """The text in UTF-8."""
        return prediction.encode()

    def from_bytes(self, data: bytes) -> str:
        return data.decode()

    def _decode(self, values: Array) -> list[str]:
        """Best class a column, repeats collapsed, then blanks dropped (Graves et al. 2006, section 3.2)."""
        if values.ndim != 3 or values.shape[2] != len(self.characters):
            raise InputError(
                f"the scored output has shape {values.shape}; text-recognition needs (n, columns, "
                f"{len(self.characters)}), one score for each character of the set and the blank"
            )
        best = values.argmax(axis=2)
        starts = np.ones(best.shape, bool)  # a column that does not repeat the one before
        starts[:, 1:] = best[:, 1:] != best[:, :-1]
        kept = starts & (best != _BLANK)
        return ["".join(self.characters[k] for k in row[keep]) for row, keep in zip(best, kept, strict=True)]
