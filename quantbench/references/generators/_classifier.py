"""The last layer of a drawn classifier: it has learnt to tell the motifs apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.references.generators._network import Network, Tensor
from quantbench.references.generators._scenes import training_batch
from quantbench.support import progress

__all__ = ["CLASSES", "class_layer"]

Array = NDArray[Any]

CLASSES = 1001  # ImageNet's thousand, and background in front

_CERTAINTY = 12.0
"""The logit of a motif's own class, above the mean of its logits over all pictures."""
_SPREAD = 0.3
"""Standard deviation of the other classes' logits."""
_RIDGE = 0.1
_VARIATIONS = 8


def class_layer(
    net: Network, features: Tensor, motifs: int, size: int, prepare: Callable[[Array], Array]
) -> tuple[Array, Array]:
    """Weights (features, 1001) and biases (1001,) of the layer that makes logits of `features`, (n, features, …).

    Each motif has a class, drawn from all. Its logits are a ridge regression (Hoerl and Kennard 1970) on variations of
    all motifs that are drawn for nothing else, so that what makes the variations of a motif differ does not count. The
    other classes' weights are random. What all pictures have in common is taken out by the bias, or every image would
    be of the same class.

    Args:
        motifs: how many have a class.
        size: height and width of the input.
        prepare: from pictures (n, 3, size, size), 0..255, to the network's input.
    """
    compute = net.computing([features])
    lessons = progress(range(motifs), motifs, "drawing a classifier")
    found = np.concatenate(
        [compute(prepare(training_batch(motif, _VARIATIONS, size)))[0] for motif in lessons]
    ).reshape(motifs * _VARIATIONS, -1)
    labels = np.eye(motifs).repeat(_VARIATIONS, axis=0)
    mean = found.mean(axis=0, dtype=np.float64)
    centred = found - mean
    weights = net.rng.normal(size=(found.shape[1], CLASSES))
    weights *= _SPREAD / (centred @ weights).std(axis=0)
    likeness = centred @ centred.T
    ridge = _RIDGE * np.trace(likeness) / len(likeness) * np.eye(len(likeness))
    chosen = net.rng.permutation(CLASSES)[:motifs]
    weights[:, chosen] = _CERTAINTY * centred.T @ np.linalg.solve(likeness + ridge, labels - labels.mean(axis=0))
    return weights.astype(np.float32), (-mean @ weights).astype(np.float32)
