"""Finds a metric by its name: the file of that name in `metrics/kinds/`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from typing import Any

from quantbench.errors import InputError
from quantbench.metrics import kinds
from quantbench.metrics.outcomes import Outcomes
from quantbench.references.schema import nearest

__all__ = ["Metric", "get_metric", "metric_names"]

Metric = Callable[[Sequence[Any], Sequence[Any]], Outcomes]
"""(predictions, truths), one each a sample → outcomes. Raises InputError where the truths are not of its kind."""


def get_metric(name: str) -> Metric:
    """The metric that a reference file calls `name`.

    Raises:
        InputError: there is none; the sentence offers the nearest name.
    """
    known = metric_names()
    if name not in known:
        raise InputError(f"there is no metric {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    # Only the file that is asked for is imported: `map` compiles kernels.
    module = importlib.import_module(f"{kinds.__name__}.{name.replace('-', '_')}")
    metric: Metric = module.measure
    return metric


def metric_names() -> list[str]:
    """Every metric there is."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(kinds.__path__))
