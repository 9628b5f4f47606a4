"""What drawn detectors share: how confident they are, and reading columns of boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.references.generators._network import Network, Tensor

__all__ = ["columns", "rarely_above"]

Array = NDArray[Any]


def rarely_above(threshold: float, share: float) -> Callable[[Array], Array]:
    """For `Network.measured_conv`: lift all channels alike so that `share` of their values lie above `threshold`."""

    def shift(logits: Array) -> Array:
        return np.full(logits.shape[1], threshold - np.quantile(logits, 1 - share), np.float32)

    return shift


def columns(net: Network, x: Tensor, start: int, end: int, name: str) -> Tensor:
    """x[:, :, start:end]."""
    bounds = [
        net.constant(f"{name}/{key}", np.array([value], np.int64))
        for key, value in (("starts", start), ("ends", end), ("axes", 2))
    ]
    return net.add("Slice", [x, *bounds], name)
