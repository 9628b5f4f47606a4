"""Which weights stay narrow when a budget turns out too large, or fits at once."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.quantization.mixing import choose_narrow
from quantbench.quantization.precision import Candidate

WEIGHTS = {
    "model": [Candidate(f"w{i}", 100 * (i + 1), 0.001 * 2.0**i) for i in range(8)],
    "other": [Candidate("v", 50, 0.002)],
}


def cost(chosen: dict[str, frozenset[str]]) -> float:
    return sum(each.error for name, own in WEIGHTS.items() for each in own if each.name in chosen[name])


@pytest.mark.parametrize("limit", [0.3, 0.1, 0.03, 0.01, 0.004])
def test_what_is_chosen_fits_and_no_weight_more_would(limit: float):
    """Errors that add up, against the most elements of all subsets that fit."""
    asked: list[float] = []

    def excess(chosen: dict[str, frozenset[str]]) -> float:
        asked.append(cost(chosen) / limit)
        return asked[-1]

    chosen = choose_narrow(WEIGHTS, 1.0, excess)
    assert cost(chosen) <= limit and len(asked) <= 8
    everything = [each for own in WEIGHTS.values() for each in own]
    best = 0
    for subset in range(1 << len(everything)):
        taken = [each for k, each in enumerate(everything) if subset >> k & 1]
        if sum(each.error for each in taken) <= limit:
            best = max(best, sum(each.elements for each in taken))
    got = sum(each.elements for name, own in WEIGHTS.items() for each in own if each.name in chosen[name])
    assert got >= 0.6 * best


def test_all_are_narrow_where_all_fit():
    chosen = choose_narrow(WEIGHTS, 1.0, lambda chosen: 0.5)
    assert chosen == {name: frozenset(each.name for each in own) for name, own in WEIGHTS.items()}


def test_none_is_narrow_where_none_fits():
    chosen = choose_narrow(WEIGHTS, 1.0, lambda chosen: np.inf)
    assert chosen == {"model": frozenset(), "other": frozenset()}
