"""The last layer of a drawn classifier: one that tells the motifs apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "class_layer"]

Array = NDArray[Any]

CLASSES = 1001  # ImageNet's thousand, and background in front

_CERTAINTY = 12.0
"""The logit of a motif's own class."""
_SPREAD = 0.3
"""Standard deviation of the other classes' logits."""
_RIDGE = 0.1


def class_layer(rng: np.random.Generator, features: Array) -> tuple[Array, Array]:
    """Weights (features, 1001) and biases (1001,) of the layer that makes logits of features.

    Each motif has a class, drawn from all: by ridge regression (Hoerl and Kennard 1970) of the motifs' features, so
    that directions in which they hardly differ do not count. The other classes' weights are random. What all motifs
    have in common is taken out by the bias, or every image would be of the same class.

    Args:
        features: of the motifs, (motifs, features).
    """
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    weights = rng.normal(size=(features.shape[1], CLASSES))
    weights *= _SPREAD / (centred @ weights).std(axis=0)
    likeness = centred @ centred.T
    ridge = _RIDGE * np.trace(likeness) / len(likeness) * np.eye(len(likeness))
    chosen = rng.permutation(CLASSES)[: len(features)]
    weights[:, chosen] = _CERTAINTY * centred.T @ np.linalg.inv(likeness + ridge)
    return weights.astype(np.float32), (-mean @ weights).astype(np.float32)
