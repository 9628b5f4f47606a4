"""Counting by bit pattern: every value in its bin, exact extremes, whatever the batches."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantbench.calibration import Histogram
from quantbench.calibration.histogram import BINS
from quantbench.errors import InputError

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = npst.arrays(np.float32, npst.array_shapes(max_dims=3, max_side=9), elements=FINITE)


def counted(*batches: np.ndarray):
    histogram = Histogram("t")
    for batch in batches:
        histogram.add(batch)
    return histogram.observation()


@given(st.lists(ARRAYS, min_size=1, max_size=4))
@settings(deadline=None)
def test_counts_and_extremes(batches: list[np.ndarray]):
    """The first 15 bits of the pattern, counted by numpy; one count for the batches together."""
    values = np.concatenate([batch.reshape(-1) for batch in batches])
    seen = counted(*batches)
    np.testing.assert_array_equal(seen.counts, np.bincount(values.view(np.uint32) >> 17, minlength=BINS))
    assert seen.counts.dtype == np.uint64 and seen.counts.sum() == values.size
    assert (seen.minimum, seen.maximum) == (values.min(), values.max())


@given(ARRAYS)
@settings(deadline=None)
def test_the_distribution_holds_every_value_in_a_bin_of_a_64th_of_it(values: np.ndarray):
    centres, widths, counts = counted(values).distribution()
    assert counts.sum() == values.size and (np.diff(centres) >= 0).all()
    assert centres.min() >= values.min() and centres.max() <= values.max()
    nearest = np.abs(values.reshape(-1, 1).astype(np.float64) - centres).min(axis=1)
    normal = np.abs(values.reshape(-1)) >= 2.0**-126
    assert (nearest <= np.where(normal, np.abs(values.reshape(-1)) / 64, 2.0**-126)).all()
    assert (widths <= np.maximum(np.abs(centres) / 63, 2.0**-126)).all()


def test_the_distribution_of_known_values():
    """1.0 to 1.0156 is one bin, from 1 up to 1 + 1/64; 0 has a centre of 0."""
    centres, widths, counts = counted(np.float32([0.0, -0.0, 1.0, 1.01, 1.02, -3.0])).distribution()
    assert counts.tolist() == [1, 1, 1, 2, 1]
    np.testing.assert_allclose(centres[[0, 1, 2]], [-3.0, 0, 0], atol=0)
    np.testing.assert_allclose(widths[[0, 3, 4]], [1 / 32, 1 / 64, 1 / 64], rtol=1e-4)
    np.testing.assert_allclose(centres[3], 1 + 1 / 128, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf, np.uint32(0x7F800001).view(np.float32)])
@pytest.mark.parametrize("place", [0, 5, 8])
def test_what_is_no_number_is_an_error_that_names_the_tensor(bad: float, place: int):
    """The last is a NaN whose leading mantissa bits look like infinity."""
    values = np.ones((3, 3), np.float32)
    values.reshape(-1)[place] = bad
    histogram = Histogram("conv7")
    histogram.add(np.ones(4, np.float32))
    with pytest.raises(InputError, match="tensor conv7 becomes NaN or infinite on the calibration samples"):
        histogram.add(values)


def test_nothing_seen_is_an_error_that_names_the_tensor():
    histogram = Histogram("boxes")
    histogram.add(np.zeros((0, 4), np.float32))
    with pytest.raises(InputError, match="tensor boxes holds no value"):
        histogram.observation()


def test_counters_are_emptied_before_they_overflow(monkeypatch: pytest.MonkeyPatch):
    """Counters of 8 bits and a capacity to match: 4000 equal values, in one batch and in many, overflow them."""
    module = sys.modules[Histogram.__module__]
    monkeypatch.setattr(module, "_CAPACITY", 255)
    monkeypatch.setattr(module._thread, "counters", np.zeros(module._counters().shape, np.uint8), raising=False)
    histogram = Histogram("t")
    histogram.add(np.full(2000, 2.5, np.float32))
    for _ in range(20):
        histogram.add(np.full(3, 2.5, np.float32))  # all land in one row of counters
        histogram.add(np.full(97, 2.5, np.float32))
    assert histogram.observation().counts.max() == 4000


def test_the_capacity_fits_the_counters():
    """All of a part may fall into one bin, a quarter of it and three more into one row of counters."""
    module = sys.modules[Histogram.__module__]
    assert np.iinfo(module._counters().dtype).max >= module._CAPACITY


def test_threads_count_into_one_histogram():
    histogram = Histogram("t")
    parts = np.random.default_rng(0).normal(size=(64, 10_000)).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(histogram.add, parts))
    np.testing.assert_array_equal(histogram.observation().counts, counted(*parts).counts)


def exact(values: np.ndarray) -> np.ndarray:
    return np.bincount(values.reshape(-1).view(np.uint32) >> 17, minlength=BINS)


LARGE = {
    "normal": lambda rng: rng.normal(size=(4, 5, 200, 200)),
    "after ReLU6": lambda rng: np.clip(rng.normal(1, 3, size=800_003), 0, 6),
    "all negative": lambda rng: -np.exp(rng.normal(size=(1000, 800))),
    "heavy tails": lambda rng: rng.standard_t(2, size=(1000, 1001)),
    "channels last, each of its own size": lambda rng: rng.normal(size=(4000, 320)) * np.geomspace(0.01, 100, 320),
    "one large channel": lambda rng: rng.normal(size=(64, 25_600)) * (1 + 99 * np.eye(64)[:, 9:10]),
}


@pytest.mark.parametrize("kind", LARGE)
def test_of_a_large_array_the_tails_are_exact_and_the_rest_is_close(kind: str):
    """The tails hold 0.02% of the values; close is what an independent sample of an eighth could be off by."""
    values = LARGE[kind](np.random.default_rng(1)).astype(np.float32)
    got, wanted = counted(values), exact(values)
    assert (got.minimum, got.maximum) == (values.min(), values.max())
    assert got.counts.sum() == values.size
    order = np.argsort((np.arange(BINS, dtype=np.uint32) << np.uint32(17)).view(np.float32), kind="stable")
    seen, true = got.counts[order].astype(np.int64), wanted[order]
    below, above = np.cumsum(true), np.cumsum(true[::-1])[::-1]
    tails = (below <= values.size * 1e-4) | (above <= values.size * 1e-4)
    np.testing.assert_array_equal(seen[tails], true[tails])
    off = np.abs(np.cumsum(seen) - below).max() / np.sqrt(values.size * 8)
    assert 0 < off < 1.2  # Kolmogorov-Smirnov: 1.36 in one of 20 samples drawn with replacement, 1.2 in one of 9
    np.testing.assert_array_equal(counted(values.reshape(-1)).counts, got.counts)


def test_small_arrays_are_counted_whole():
    values = np.random.default_rng(0).normal(size=(1 << 16) - 1).astype(np.float32)
    np.testing.assert_array_equal(counted(values).counts, exact(values))


@pytest.mark.parametrize("place", [0, 77_777, 100_000])
def test_one_value_of_a_large_array_that_is_no_number_is_an_error(place: int):
    values = np.random.default_rng(0).normal(size=100_001).astype(np.float32)
    values[place] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        counted(values)


def test_an_observation_is_not_changed_by_what_comes_later():
    histogram = Histogram("t")
    histogram.add(np.float32([1, 2]))
    first = histogram.observation()
    histogram.add(np.float32([1, -5]))
    assert first.counts.sum() == 2 and (first.minimum, first.maximum) == (1, 2)
    second = histogram.observation()
    assert second.counts.sum() == 4 and (second.minimum, second.maximum) == (-5, 2)


def test_strided_arrays():
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.testing.assert_array_equal(counted(values[:, ::2]).counts, counted(values[:, ::2].copy()).counts)
    np.testing.assert_array_equal(counted(values.T).counts, counted(values).counts)
