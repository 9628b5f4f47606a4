"""Ranges from counts, against the same question asked of the raw values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantbench.calibration import CALIBRATORS, Histogram, Observation, get_calibrator
from quantbench.errors import InputError

SHAPES: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "normal": lambda r, n: r.normal(0.5, 1, n),
    "relu": lambda r, n: np.maximum(r.normal(0, 1, n), 0),
    "heavy tails": lambda r, n: r.standard_t(3, n),
    "outlier": lambda r, n: np.append(r.normal(0, 1, n - 1), 80),
    "uniform": lambda r, n: r.uniform(-2, 5, n),
    "negative": lambda r, n: -np.abs(r.normal(0, 1, n)),
}


@cache
def values_of(shape: str, count: int = 100_000) -> np.ndarray:
    return SHAPES[shape](np.random.default_rng(3), count).astype(np.float32)


def observed(values: np.ndarray) -> Observation:
    histogram = Histogram("t")
    histogram.add(values)
    return histogram.observation()


@pytest.mark.parametrize("shape", SHAPES)
def test_minmax_is_exact(shape: str):
    values = values_of(shape)
    assert get_calibrator("minmax")(observed(values), 256) == (values.min(), values.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_percentile_is_numpys_within_a_bin(shape: str):
    values = values_of(shape, 2_000_000)
    got = get_calibrator("percentile")(observed(values), 256)
    for end, percent in zip(got, (0.0005, 99.9995), strict=True):
        below, above = (np.percentile(values, percent, method=method) for method in ("lower", "higher"))
        assert below - abs(below) / 64 <= end <= above + abs(above) / 64
    assert got[0] > values.min() or shape in ("relu",)
    assert got[1] < values.max() or shape in ("negative",)


def quantization_error(values: np.ndarray, low: float, high: float, levels: int) -> float:
    """Mean squared error of rounding to `levels` codes over [low, high], with 0 among them."""
    step = (high - low) / (levels - 1)
    zero_point = np.rint(-low / step)
    codes = np.clip(np.rint(values / step) + zero_point, 0, levels - 1)
    return float((((codes - zero_point) * step - values) ** 2).mean())


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize("shape", SHAPES)
def test_mse_is_close_to_the_best_of_a_brute_force_search(shape: str, levels: int):
    """Both ends over 40 fractions of the extremes each, every candidate rounded for real."""
    values = values_of(shape, 2_000).astype(np.float64)
    low, high = get_calibrator("mse")(observed(values.astype(np.float32)), levels)
    assert min(values.min(), 0) <= low <= 0 <= high <= max(values.max(), 0)
    fractions = np.geomspace(0.02, 1, 40)
    lows = fractions * values.min() if values.min() < 0 else [0.0]
    highs = fractions * values.max() if values.max() > 0 else [0.0]
    best = min(quantization_error(values, a, b, levels) for a in lows for b in highs)
    # With 16 codes up to an outlier of 80 all else rounds to 0, which costs less than the step²/12 of the estimate.
    allowed = 1.4 if (shape, levels) == ("outlier", 16) else 1.15
    assert quantization_error(values, low, high, levels) <= allowed * best


def test_mse_of_few_levels_clips_an_outlier_that_minmax_keeps():
    seen = observed(values_of("outlier"))
    assert get_calibrator("mse")(seen, 16)[1] < 0.2 * get_calibrator("minmax")(seen, 16)[1]


def divergence(magnitudes: np.ndarray, threshold: float, levels: int) -> float:
    """Kullback–Leibler divergence of the raw magnitudes, clipped, from their version in `levels` / 2 even groups."""
    edges = np.linspace(0, magnitudes.max(), 2049)
    counts = np.histogram(magnitudes, edges)[0].astype(float)
    kept = round(threshold / magnitudes.max() * 2048)
    clipped = counts[:kept].copy()
    clipped[-1] += counts[kept:].sum()
    spread = np.zeros(kept)
    for part in np.array_split(np.arange(kept), levels // 2):
        filled = part[counts[part] > 0]
        spread[filled] = counts[part].sum() / max(len(filled), 1)
    spread[(clipped > 0) & (spread == 0)] = 1e-9 * spread.sum()
    return float(scipy.stats.entropy(clipped, spread))


@pytest.mark.parametrize("shape", ["normal", "heavy tails", "uniform", "outlier"])
def test_entropy_is_close_to_the_best_of_a_direct_computation(shape: str):
    values = values_of(shape)
    low, high = get_calibrator("entropy")(observed(values), 256)
    assert values.min() <= low < high <= values.max()
    magnitudes = np.abs(values.astype(np.float64))
    threshold = max(-low, high)
    candidates = magnitudes.max() * np.arange(128, 2049, 16) / 2048
    best = min(divergence(magnitudes, candidate, 256) for candidate in candidates)
    assert divergence(magnitudes, threshold, 256) <= best + 0.02


def test_entropy_does_not_shrink_the_range_for_zeros():
    """Behind ReLU6 most values are 0, and many are 6."""
    above = np.clip(np.abs(values_of("normal")) * 3, 0, 6)
    sparse = np.append(above, np.zeros(9 * above.size, np.float32))
    assert get_calibrator("entropy")(observed(sparse), 256) == get_calibrator("entropy")(observed(above), 256)
    assert get_calibrator("entropy")(observed(sparse), 256)[1] == 6.0


def test_entropy_clips_an_outlier_and_keeps_what_is_even():
    assert get_calibrator("entropy")(observed(values_of("outlier")), 256)[1] < 20
    low, high = get_calibrator("entropy")(observed(values_of("uniform")), 256)
    assert high > 4.9 and low < -1.99


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("levels", [4, 16, 256, 65536])
@given(
    values=npst.arrays(np.float32, st.integers(1, 30), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
)
@settings(max_examples=20, deadline=None)
def test_any_values_give_a_finite_range_within_them(name: str, levels: int, values: np.ndarray):
    low, high = get_calibrator(name)(observed(values), levels)
    assert np.isfinite([low, high]).all() and low <= high
    assert low >= min(values.min(), 0) and high <= max(values.max(), 0)


@pytest.mark.parametrize("name", CALIBRATORS)
@pytest.mark.parametrize("value", [0.0, 3.5, -2.0, 1e-40])
def test_one_value_alone(name: str, value: float):
    low, high = get_calibrator(name)(observed(np.full(100, value, np.float32)), 256)
    value = float(np.float32(value))
    assert min(low, 0) <= value <= max(high, 0) or abs(value) < 1e-38


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(InputError, match="unknown calibrator 'entrpy'; did you mean entropy"):
        get_calibrator("entrpy")
    with pytest.raises(InputError, match="unknown calibrator 'x'; known: minmax, percentile, entropy, mse"):
        get_calibrator("x")
