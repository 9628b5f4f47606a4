"""Which weights to hold in few bits: a knapsack over what each saves and what it does to the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "most_saved", "share_with_least_error"]


@dataclass(frozen=True)
class Candidate:
    """A weight that could be narrower.

    Attributes:
        name: of the initializer.
        elements: how many it has.
        error: squared error of the graph's outputs, as a share of their variance, when it alone is narrow. Errors of
            several weights add up, roughly, because their roundings are independent.
    """

    name: str
    elements: int
    error: float


def most_saved(candidates: Sequence[Candidate], budget: float) -> list[str]:
    """The weights with the most elements among those whose errors together stay within `budget`."""
    free = [candidate.name for candidate in candidates if candidate.error <= 0]
    costly = [candidate for candidate in candidates if 0 < candidate.error <= budget]
    if not costly:
        return free
    shares = _errors(costly) / budget  # in units that the solver's tolerance is small in
    return [*free, *_chosen(costly, shares, (-np.inf, 1.0), -_elements(costly))]


def share_with_least_error(candidates: Sequence[Candidate], share: float) -> list[str]:
    """The weights that hold at least this share of all elements at the least error together."""
    if not candidates:
        return []
    elements = _elements(candidates)
    return _chosen(candidates, elements / elements.sum(), (share, np.inf), _errors(candidates))


def _chosen(
    candidates: Sequence[Candidate],
    shares: NDArray[np.float64],
    within: tuple[float, float],
    cost: NDArray[np.float64],
) -> list[str]:
    """The cheapest candidates whose shares add up to something `within`: a 0-1 programme, solved by scipy's HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # a third of a second, which few conversions need

    constraint = LinearConstraint(shares, *within)
    scale = max(float(np.abs(cost).max()), 1e-300)
    found = milp(cost / scale, constraints=constraint, integrality=np.ones(len(candidates)), bounds=Bounds(0, 1))
    return [candidate.name for candidate, taken in zip(candidates, found.x, strict=True) if taken > 0.5]


def _errors(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    return np.array([candidate.error for candidate in candidates], np.float64)


def _elements(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
    return np.array([candidate.elements for candidate in candidates], np.float64)
