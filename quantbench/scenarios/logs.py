"""Reading back what LoadGen wrote: its detail log, its trace and its accuracy log."""

from __future__ import annotations

import json
import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quantbench.errors import InputError

__all__ = ["Detail", "Timing", "detail", "responses", "timing"]

PREFIX = "mlperf_log_"

_SAMPLE = re.compile(
    rb'"ts":([\d.]+),"args":\{"sample_seq":\d+,"query_seq":(\d+),"sample_idx":\d+,'
    rb'"issue_start_ns":-?\d+,"complete_ns":(-?\d+)'
)


@dataclass(frozen=True)
class Timing:
    """When the samples of a run were due and done.

    `latencies` has one value in nanoseconds a query, or a sample where queries hold samples of their own time
    (Offline): the values that LoadGen takes its percentiles from.
    """

    latencies: NDArray[np.float64]
    queries: int
    samples: int
    seconds: float

    def percentile(self, fraction: float) -> float:
        """Nanoseconds, by LoadGen's definition: of n values in order, the one at position floor(n · fraction)."""
        return float(np.sort(self.latencies)[int(len(self.latencies) * fraction)])


def timing(folder: Path, *, by_query: bool) -> Timing:
    """The latency of each query (its last sample counts), or of each sample, from LoadGen's trace.

    Raises:
        InputError: the trace is missing or has no samples.
    """
    path = folder / f"{PREFIX}trace.json"
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            found = _SAMPLE.findall(text)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise InputError(f"LoadGen wrote no trace to {path}: {error}; is the disk full?") from error
    if not found:
        raise InputError(f"LoadGen's trace {path} holds no samples; is the disk full?")
    columns = np.array(found).astype(np.float64)
    due, query, latency = columns[:, 0] * 1e3, columns[:, 1], columns[:, 2]
    seconds = (due + latency).max() - due.min()
    numbers, places = np.unique(query, return_inverse=True)
    slowest = np.full(len(numbers), -np.inf)
    np.maximum.at(slowest, places, latency)
    return Timing(slowest if by_query else latency, len(numbers), len(latency), float(seconds) * 1e-9)


@dataclass(frozen=True)
class Detail:
    """LoadGen's detail log: the last value of each key, and what it calls errors."""

    values: dict[str, Any]
    errors: list[str]

    def result(self, key: str) -> Any:
        """
        Raises:
            InputError: LoadGen logged no such result.
        """
        if key not in self.values:
            raise InputError(f"LoadGen logged no {key}; " + ("; ".join(self.errors) or "look into its detail log"))
        return self.values[key]


def detail(folder: Path) -> Detail:
    """Read the detail log.

    Raises:
        InputError: the log is missing or cut off.
    """
    path = folder / f"{PREFIX}detail.txt"
    marker = ":::MLLOG "
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        entries = [json.loads(line[len(marker) :], strict=False) for line in lines if line.startswith(marker)]
        return Detail(
            values={entry["key"]: entry["value"] for entry in entries},
            errors=[str(entry["value"]) for entry in entries if entry["metadata"]["is_error"]],
        )
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"cannot read LoadGen's log {path}: {error}; is the disk full?") from error


def responses(folder: Path) -> dict[int, bytes]:
    """The logged response of each sample, by its index, from LoadGen's accuracy log.

    Raises:
        InputError: the log is missing or cut off.
    """
    path = folder / f"{PREFIX}accuracy.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        return {int(entry["qsl_idx"]): bytes.fromhex(entry["data"]) for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot read LoadGen's accuracy log {path}: {error}; run the accuracy mode again") from error
