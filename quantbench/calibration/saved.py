"""Observations in a file, so that what has been seen once can be turned into other ranges."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np

from quantbench.calibration.histogram import BINS, Observation
from quantbench.calibration.observe import Observations
from quantbench.support import atomic_file

__all__ = ["load_observations", "save_observations"]


def save_observations(path: Path, observations: Observations, key: str) -> None:
    """Write observations to a numpy archive: for each tensor its extremes and its filled bins.

    Args:
        key: a hash over everything that they depend on.

    Raises:
        InputError: the file cannot be written.
    """
    names = [(graph, name) for graph, named in observations.items() for name in named]
    seen = [observations[graph][name] for graph, name in names]
    filled = [np.flatnonzero(each.counts) for each in seen]
    with atomic_file(path, "--observations") as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            key=np.array(key),
            names=np.array(json.dumps(names)),
            extremes=np.array([(each.minimum, each.maximum) for each in seen], np.float64).reshape(-1, 2),
            sizes=np.array([len(bins) for bins in filled], np.int64),
            bins=np.concatenate([*filled, np.zeros(0, np.int64)]).astype(np.uint16),
            counts=np.concatenate([*(each.counts[bins] for each, bins in zip(seen, filled, strict=True)), _NOTHING]),
        )


def load_observations(path: Path, key: str) -> Observations | None:
    """The observations in a file, or None where there is no such file or it holds others than those of `key`."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["key"]) != key:
                return None
            names = json.loads(str(archive["names"]))
            extremes, sizes, bins, counts = (archive[part] for part in ("extremes", "sizes", "bins", "counts"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    observations: Observations = {graph: {} for graph, _ in names}
    ends = np.cumsum(sizes)
    for (graph, name), (low, high), end, size in zip(names, extremes, ends, sizes, strict=True):
        full = np.zeros(BINS, np.uint64)
        full[bins[end - size : end]] = counts[end - size : end]
        observations[graph][name] = Observation(float(low), float(high), full)
    return observations


_NOTHING = np.zeros(0, np.uint64)
