"""The last layer of a drawn classifier: one that tells the sample images apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CLASSES", "class_layer"]

Array = NDArray[Any]

CLASSES = 1001  # ImageNet's thousand, and background in front

_LOGIT_SPREAD = 4.0


def class_layer(rng: np.random.Generator, features: Array, classes: int = CLASSES) -> tuple[Array, Array]:
    """Weights (features, classes) and biases (classes,) of the layer that makes logits of features.

    What all images have in common is taken out by the bias, or every image would be of the same class. The logits vary
    from image to image with a standard deviation of 4, about as those of a trained network.

    Args:
        features: of the sample images, (images, features).
    """
    centred = features - features.mean(axis=0)
    weights = rng.normal(size=(features.shape[1], classes))
    weights *= _LOGIT_SPREAD / (centred @ weights).std(axis=0)
    return weights.astype(np.float32), (-features.mean(axis=0) @ weights).astype(np.float32)
