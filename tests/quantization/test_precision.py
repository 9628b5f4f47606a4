"""The knapsack against trying every subset."""

from __future__ import annotations

from itertools import chain, combinations

import numpy as np
import pytest

from quantbench.quantization.precision import Candidate, most_saved, share_with_least_error


def some(count: int, seed: int) -> list[Candidate]:
    random = np.random.default_rng(seed)
    elements = random.integers(1, 100_000, count)
    errors = 10.0 ** random.uniform(-9, -2, count)
    return [Candidate(f"w{i}", int(n), float(e)) for i, (n, e) in enumerate(zip(elements, errors, strict=True))]


def subsets(candidates: list[Candidate]) -> list[tuple[Candidate, ...]]:
    return list(chain.from_iterable(combinations(candidates, size) for size in range(len(candidates) + 1)))


def total(chosen: list[str], candidates: list[Candidate]) -> tuple[int, float]:
    taken = [candidate for candidate in candidates if candidate.name in chosen]
    return sum(each.elements for each in taken), sum(each.error for each in taken)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("budget", [0.0, 1e-6, 1e-3, 1.0])
def test_no_subset_within_the_budget_saves_more(seed: int, budget: float):
    candidates = some(10, seed)
    elements, error = total(most_saved(candidates, budget), candidates)
    best = max(sum(e.elements for e in part) for part in subsets(candidates) if sum(e.error for e in part) <= budget)
    assert error <= budget * (1 + 1e-6)
    assert elements == best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.0, 0.5, 0.8, 1.0])
def test_no_subset_of_that_share_errs_less(seed: int, share: float):
    candidates = some(10, seed)
    needed = share * sum(candidate.elements for candidate in candidates)
    elements, error = total(share_with_least_error(candidates, share), candidates)
    best = min(sum(e.error for e in part) for part in subsets(candidates) if sum(e.elements for e in part) >= needed)
    assert elements >= needed
    assert error == pytest.approx(best, rel=1e-3, abs=1e-9)


def test_without_candidates_nothing_is_chosen():
    assert most_saved([], 1.0) == share_with_least_error([], 0.8) == []
