"""Samples that know what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Samples

__all__ = ["HashedSamples", "add_array"]

Array = NDArray[Any]


def add_array(digest: hashlib._Hash, array: Array) -> None:
    """Let a hash go on over an array's type, shape and values."""
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


class HashedSamples:
    """`Samples` that hash each prepared input when it is first asked for, so that none is prepared to be hashed alone.

    Safe to ask from several threads.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples
        self._digests: dict[int, bytes] = {}

    @property
    def ids(self) -> Sequence[str]:
        return self._samples.ids

    def __len__(self) -> int:
        return len(self._samples)

    def input(self, index: int) -> Array:
        array = self._samples.input(index)
        if index not in self._digests:
            digest = hashlib.sha256()
            add_array(digest, array)
            self._digests[index] = digest.digest()
        return array

    def truth(self, index: int) -> Any:
        return self._samples.truth(index)

    def inputs_sha256(self, count: int) -> str:
        """Over the first `count` inputs, so that changed data under the same names counts as changed."""
        for index in range(count):
            if index not in self._digests:
                self.input(index)
        return hashlib.sha256(b"".join(self._digests[index] for index in range(count))).hexdigest()
