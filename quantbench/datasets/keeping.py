"""Samples whose prepared inputs stay in memory, for what scores the same ones many times."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.datasets.base import Samples
from quantbench.datasets.hashing import add_array
from quantbench.numerics.threads import cores, in_order
from quantbench.support import progress

__all__ = ["KeptSamples", "keep_samples"]

Array = NDArray[Any]


def keep_samples(samples: Samples, count: int, what: str, memory: int = 1 << 30) -> KeptSamples:
    """The first `count` samples, as many of them as fit prepared in memory.

    Args:
        samples: at least `count`; prepared here, each once.
        what: said beside the progress bar.
        memory: bytes of inputs to hold; the inputs beyond are prepared again whenever they are asked for.

    Raises:
        InputError, MissingError: a sample's file cannot be read or is not there.
    """
    inputs: list[Array] = []
    truths: list[Any] = []
    held = 0
    for array, truth in progress(_prepared(samples, count), count, what):
        held += array.nbytes
        if held > memory:
            break
        inputs.append(array)
        truths.append(truth)
    return KeptSamples(list(samples.ids[:count]), samples, inputs, truths)


@dataclasses.dataclass(frozen=True)
class KeptSamples:
    """`Samples` of which the first have their prepared inputs, and their truths, in memory."""

    ids: Sequence[str]
    source: Samples
    inputs: Sequence[Array]
    truths: Sequence[Any]

    def __len__(self) -> int:
        return len(self.ids)

    def input(self, index: int) -> Array:
        return self.inputs[index] if index < len(self.inputs) else self.source.input(index)

    def truth(self, index: int) -> Any:
        return self.truths[index] if index < len(self.truths) else self.source.truth(index)

    def sha256(self) -> str:
        """Over the ids of all samples and the inputs and truths of those in memory: the same data has the same hash."""
        digest = hashlib.sha256("".join(f"{name}\n" for name in self.ids).encode())
        for array, truth in zip(self.inputs, self.truths, strict=True):
            add_array(digest, array)
            digest.update(_bytes(truth))
        return digest.hexdigest()


def _prepared(samples: Samples, count: int) -> Iterator[tuple[Array, Any]]:
    """Input and truth of each sample in turn, a few prepared ahead, side by side."""

    def prepare(index: int) -> tuple[Array, Any]:
        return samples.input(index), samples.truth(index)

    return in_order(prepare, range(count), cores())


def _bytes(truth: Any) -> bytes:
    """What tells truths apart: an array's values, those of a dataclass's attributes, another's text."""
    if dataclasses.is_dataclass(truth):
        return b"".join(_bytes(getattr(truth, field.name)) for field in dataclasses.fields(truth))
    if isinstance(truth, np.ndarray):
        return f"{truth.dtype.str}{truth.shape}".encode() + truth.tobytes()
    return repr(truth).encode()
