"""From counts to ranges: each calibrator is one file with one function, registered by its name here.

A calibrator takes an `Observation` and the number of quantization levels, and returns the range (low, high) to keep.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from weakref import WeakKeyDictionary

from quantbench.calibration.calibrators.entropy import entropy
from quantbench.calibration.calibrators.minmax import minmax
from quantbench.calibration.calibrators.mse import mse
from quantbench.calibration.calibrators.percentile import percentile
from quantbench.calibration.histogram import Observation
from quantbench.errors import InputError

__all__ = ["CALIBRATORS", "get_calibrator"]

Calibrator = Callable[[Observation, int], tuple[float, float]]


def _remembered(calibrator: Calibrator) -> Calibrator:
    """The calibrator, which looks at each observation once: a search plans the same tensors again and again."""
    known: WeakKeyDictionary[Observation, dict[int, tuple[float, float]]] = WeakKeyDictionary()

    def of(observation: Observation, levels: int) -> tuple[float, float]:
        ranges = known.setdefault(observation, {})
        if levels not in ranges:
            ranges[levels] = calibrator(observation, levels)
        return ranges[levels]

    return of


CALIBRATORS: dict[str, Calibrator] = {
    "minmax": _remembered(minmax),
    "percentile": _remembered(percentile),
    "entropy": _remembered(entropy),
    "mse": _remembered(mse),
}


def get_calibrator(name: str) -> Calibrator:
    """The calibrator of that name.

    Raises:
        InputError: there is none.
    """
    if name not in CALIBRATORS:
        near = get_close_matches(name, CALIBRATORS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(CALIBRATORS)}"
        raise InputError(f"unknown calibrator {name!r}; {hint}")
    return CALIBRATORS[name]
