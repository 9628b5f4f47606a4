"""Samples kept in memory: the same samples, each prepared once, within the memory given, and a hash that tells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantbench.datasets.base import LazySamples
from quantbench.datasets.keeping import keep_samples

IDS = ["a", "b", "c", "d", "e"]


def samples(loaded: list[int] | None = None, **changed: Any) -> LazySamples:
    """Five samples of 24 bytes; `changed`: another input or truth, by id."""

    def load_input(index: int) -> NDArray[np.float32]:
        if loaded is not None:
            loaded.append(index)
        value = changed.get(f"input_{IDS[index]}")
        return np.full((2, 3), index, np.float32) if value is None else value

    return LazySamples(IDS, load_input, lambda index: changed.get(f"truth_{IDS[index]}", [[index, index]]))


def test_the_same_samples_prepared_once() -> None:
    loaded: list[int] = []
    kept = keep_samples(samples(loaded), 4, "")
    assert list(kept.ids) == IDS[:4] and len(kept) == 4
    for _ in range(3):
        for index in (3, 0, 1, 2):
            np.testing.assert_array_equal(kept.input(index), samples().input(index))
            assert kept.truth(index) == samples().truth(index)
    assert loaded == [0, 1, 2, 3]


def test_what_does_not_fit_is_prepared_again() -> None:
    loaded: list[int] = []
    kept = keep_samples(samples(loaded), 5, "", memory=2 * 24 + 23)
    del loaded[:]
    assert [float(kept.input(index)[0, 0]) for index in range(5)] == [0, 1, 2, 3, 4]
    assert [kept.truth(index) for index in range(5)] == [samples().truth(index) for index in range(5)]
    assert loaded == [2, 3, 4]


@pytest.mark.parametrize(
    "changed",
    [
        {"input_c": np.full((2, 3), 2.5, np.float32)},
        {"input_c": np.full((3, 2), 2, np.float32)},
        {"input_c": np.full((2, 3), 2, np.float32).view(np.int32)},
        {"truth_b": [[1, 2]]},
        {"truth_b": np.array([[1, 1]])},
        {"truth_b": np.array([[1, 1]], np.float32)},
    ],
    ids=["value", "shape", "dtype", "truth", "array", "dtype of truth"],
)
def test_the_hash_is_that_of_the_data(changed: dict[str, Any]) -> None:
    def digest(given: LazySamples, count: int = 5) -> str:
        return keep_samples(given, count, "").sha256()

    assert digest(samples()) == digest(samples())
    assert digest(samples(**changed)) != digest(samples())
    assert digest(samples(), 4) != digest(samples(), 5)


def test_long_arrays_of_truths_are_told_apart_in_the_middle() -> None:
    """NumPy's text of an array leaves out the middle of a long one."""
    boxes = np.zeros((2000, 4), np.float32)
    other = boxes.copy()
    other[1000, 2] = 1
    one, two = (keep_samples(samples(truth_a=truth), 1, "") for truth in (boxes, other))
    assert one.sha256() != two.sha256()
