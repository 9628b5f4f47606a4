"""gnmt-twin: a checkpoint with the arrays of the official GNMT, names and sizes alike, drawn from a seed.

The scales follow what trained LSTMs have, so that gates neither stick nor idle: embeddings and kernels of variance
1 / inputs, an attention that looks at few tokens, and a projection whose logits spread enough to prefer a word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.references.builders.gnmt import shapes

__all__ = ["SUFFIX", "VOCABULARY", "draw", "generate"]

Array = NDArray[Any]

SUFFIX = ".npz"

UNITS = 1024
VOCABULARY = 36548
"""Words of either side: 32,000 merges and the characters, as the official checkpoint's output projection has."""

_END = 2  # the id of </s>
_KERNEL_GAIN = 2.0
_ATTENTION_SHARPNESS = 12.0
_LOGIT_SPREAD = 6.0
_END_GAIN = 3.0
"""How much more the end's logit varies than a word's: among so many words it would never win otherwise."""


def generate(file: Path, seed: int) -> None:
    """Write the full-size checkpoint, about 0.8 GB."""
    arrays: dict[str, Any] = draw(seed)
    with file.open("wb") as target:
        np.savez(target, **arrays)


def draw(seed: int, *, units: int = UNITS, vocabulary: int = VOCABULARY) -> dict[str, Array]:
    """The arrays by name. Smaller sizes are for tests."""
    rng = np.random.Generator(np.random.PCG64(seed))
    arrays = {name: _array(rng, name, shape) for name, shape in shapes(units, vocabulary, vocabulary).items()}
    projection = next(array for name, array in arrays.items() if "output_projection" in name)
    projection[:, _END] *= _END_GAIN
    return arrays


def _array(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Array:
    kind = name.rsplit("/", 1)[-1]
    if kind == "attention_g":
        return np.array(_ATTENTION_SHARPNESS, np.float32)
    array = rng.standard_normal(shape, np.float32)
    if kind == "bias" or kind == "attention_b":
        return array * np.float32(0.1)
    if "output_projection" in name:
        return array * np.float32(_LOGIT_SPREAD / np.sqrt(shape[0]))
    if len(shape) == 2 and not kind.startswith("embedding"):
        return array * np.float32(_KERNEL_GAIN / np.sqrt(shape[0]))
    return array
