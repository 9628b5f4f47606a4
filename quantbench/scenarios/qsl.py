"""The query sample library: prepared samples, loaded and dropped when LoadGen says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from quantbench.datasets.base import Samples

__all__ = ["SampleLibrary"]


class SampleLibrary:
    """The samples that are in memory now, by their index in the scored list.

    Args:
        samples: where they come from.
        prepare: applied to each sample as it is loaded, outside the timed part; what it returns is kept.
    """

    def __init__(self, samples: Samples, prepare: Callable[[Any], Any] = lambda sample: sample) -> None:
        self._samples = samples
        self._prepare = prepare
        self._loaded: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._loaded[index]

    def load(self, indices: Sequence[int]) -> None:
        """Prepare the samples that are not in memory yet.

        Raises:
            MissingError, InputError: a sample is missing or cannot be read.
        """
        for index in indices:
            if index not in self._loaded:  # LoadGen repeats some to fill MultiStream's last query
                self._loaded[index] = self._prepare(self._samples.input(index))

    def unload(self, indices: Sequence[int]) -> None:
        for index in indices:
            self._loaded.pop(index, None)
