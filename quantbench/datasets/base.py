"""What every kind of data set offers: samples with ids, prepared inputs and truths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Dataset", "LazySamples", "Samples"]

Array = NDArray[Any]


class Samples(Protocol):
    """An ordered, fixed list of samples. Loading is lazy: nothing is read before `input` is called."""

    @property
    def ids(self) -> Sequence[str]:
        """A stable name for each sample: a file name, a word, `rendered-000123`."""

    def __len__(self) -> int: ...

    def input(self, index: int) -> Array:
        """The prepared model input of one sample, without the batch axis.

        Raises:
            MissingError: a file of the sample is missing.
            InputError: a file of the sample cannot be read.
        """

    def truth(self, index: int) -> Any:
        """What the metric compares with: an int class, a str, a tuple of accepted str, boxes (k, 4) …"""


@dataclass(frozen=True)
class Dataset:
    """A data set as one reference uses it. The two lists never share a sample."""

    calibration: Samples
    scored: Samples
    prediction_space: Any = None
    """What a task needs to decode outputs besides the model: e.g. the phoneme table. Often None."""
    calibration_sha256: str = ""
    """sha256 of the calibration ids, one a line."""
    labelled: bool = True
    """False where nobody has said what is right; `tasks.open_with_truths` then takes what the FP32 model says."""
    scored_sha256: str = ""


@dataclass(frozen=True)
class LazySamples:
    """`Samples` from two functions of the index; `datasets/*.py` build theirs with it."""

    ids: Sequence[str]
    load_input: Callable[[int], Array]
    load_truth: Callable[[int], Any]

    def __len__(self) -> int:
        return len(self.ids)

    def input(self, index: int) -> Array:
        return self.load_input(index)

    def truth(self, index: int) -> Any:
        return self.load_truth(index)
