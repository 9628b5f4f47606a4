"""What a metric finds for each sample, kept so that the metric of any resample can be had without scoring again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["MeanOutcomes", "Outcomes"]

Array = NDArray[Any]


class Outcomes(Protocol):
    """The outcomes of n samples."""

    def __len__(self) -> int: ...

    @property
    def value(self) -> float:
        """The metric over the samples, each once; a fraction of 1."""

    def resampled(self, counts: Array) -> Array:
        """The metric of resamples: `counts` (resamples, n) int, how often each sample was drawn → (resamples,) float64.

        A sample drawn twice counts as two samples that happen to be alike. NaN where nothing drawn can be scored.
        """


@dataclass(frozen=True, eq=False)
class MeanOutcomes:
    """A metric that is the mean of one number a sample, such as 1 for right and 0 for wrong."""

    per_sample: Array  # (n,) float64

    @classmethod
    def of(cls, per_sample: list[bool]) -> MeanOutcomes:
        return cls(np.array(per_sample, np.float64))

    def __len__(self) -> int:
        return len(self.per_sample)

    @property
    def value(self) -> float:
        return float(self.per_sample.sum() / len(self.per_sample))

    def resampled(self, counts: Array) -> Array:
        means: Array = counts @ self.per_sample / counts.sum(axis=1)
        return means
