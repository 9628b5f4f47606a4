"""Running sums rounded at every step, against a loop over numpy and ml_dtypes."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from quantbench.errors import InputError
from quantbench.numerics import running_sum

DTYPES = {"fp16": np.float16, "bfloat16": ml_dtypes.bfloat16, "fp8_e5m2": ml_dtypes.float8_e5m2}


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 40), (2, 1, 3, 4), (2, 9, 700, 50)])
@pytest.mark.parametrize("threads", [None, 3])
def test_it_is_the_loop(name: str, shape: tuple[int, ...], threads: int | None) -> None:
    partials = np.random.default_rng(0).normal(0, 10, shape).astype(np.float32)
    want = np.empty_like(partials)
    accumulator = np.zeros((shape[0], *shape[2:]), np.float32)
    for step in range(shape[1]):
        accumulator = (accumulator + partials[:, step]).astype(DTYPES[name]).astype(np.float32)
        want[:, step] = accumulator
    running_sum(partials, name, threads=threads)
    np.testing.assert_array_equal(partials, want)


def test_small_steps_are_lost_and_large_ones_overflow() -> None:
    ones = np.ones((1, 5000), np.float32)
    running_sum(ones, "fp16")
    assert ones[0, 2047] == 2048 == ones[0, -1]  # 2048 + 1 ties to the even 2048: the accumulator stands still
    large = np.full((1, 3), 40000, np.float32)
    running_sum(large, "fp16")
    np.testing.assert_array_equal(large, [[40000, np.inf, np.inf]])


def test_the_accumulator_begins_with_positive_zero() -> None:
    zeros = np.full((1, 1), -0.0, np.float32)
    running_sum(zeros, "fp16")
    assert not np.signbit(zeros[0, 0])


@pytest.mark.parametrize("array", [np.ones(3, np.float32), np.ones((2, 2)), np.ones((4, 4), np.float32)[:, ::2]])
def test_other_arrays_are_refused(array: Any) -> None:
    with pytest.raises(InputError, match="running_sum takes"):
        running_sum(array, "fp16")


@pytest.mark.parametrize("name", ["int8", "e8m0", "mxfp4"])
def test_other_formats_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"nothing accumulates in {name}"):
        running_sum(np.ones((1, 1), np.float32), name)
