"""Rounding cases worked out by hand, each named after what goes wrong in a careless implementation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from quantbench.numerics import all_formats, decode, encode, round_to

SCALARS = [entry.name for entry in all_formats() if entry.kind != "block"] + ["e3m4", "e2m1", "e4m3b11"]
DETERMINISTIC = ["nearest-even", "nearest-away", "toward-zero", "up", "down"]


def rounded(value: float, name: str, **options: object) -> float:
    return float(round_to(np.array([value], np.float32), name, **options)[0])  # type: ignore[arg-type]


def test_midpoint_at_a_binade_boundary() -> None:
    """fp11 has 1008 and 1024 here, 1016 half way; x·(1 + 2^k) tricks give 1008 for 1023.99615."""
    assert rounded(1023.99615, "fp11") == 1024
    assert rounded(1016.0, "fp11") == 1024  # 1008 = 63 · 16 is odd
    assert rounded(np.nextafter(np.float32(1016), np.float32(0)), "fp11") == 1008
    assert rounded(1016.0, "fp11", rounding="toward-zero") == 1008
    assert rounded(1023.99615, "fp11", rounding="down") == 1008


@pytest.mark.parametrize(("name", "largest"), [("fp11", 64512.0), ("fp16", 65504.0), ("fp8_e5m2", 57344.0)])
def test_largest_value_and_overflow_threshold(name: str, largest: float) -> None:
    """The threshold is half a step above the largest value: 65536 is where the next one would be."""
    threshold = np.float32((largest + 65536) / 2)
    below = float(np.nextafter(threshold, np.float32(0)))
    assert rounded(largest, name) == largest
    assert rounded(below, name) == largest
    assert rounded(float(threshold), name) == np.inf  # the tie goes to the even 65536, which is infinity
    assert rounded(-float(threshold), name) == -np.inf
    assert rounded(float(threshold), name, saturate=True) == largest
    assert rounded(np.inf, name, saturate=True) == largest
    assert rounded(1e30, name, rounding="toward-zero") == largest
    assert rounded(np.inf, name, rounding="toward-zero") == np.inf
    assert rounded(1e30, name, rounding="down") == largest
    assert rounded(-1e30, name, rounding="down") == -np.inf
    assert rounded(-1e30, name, rounding="up") == -largest


def test_overflow_without_infinity() -> None:
    """E4M3FN ends at 448 = 14 · 32; 480 is NaN's code, so 464, half way, goes to the even 448."""
    assert rounded(464.0, "fp8_e4m3fn") == 448
    assert np.isnan(rounded(float(np.nextafter(np.float32(464), np.float32(500))), "fp8_e4m3fn"))
    assert np.isnan(rounded(np.inf, "fp8_e4m3fn"))
    assert rounded(-np.inf, "fp8_e4m3fn", saturate=True) == -448
    assert rounded(-1e9, "fp8_e4m3fn", rounding="toward-zero") == -448


def test_overflow_with_neither_infinity_nor_nan() -> None:
    assert rounded(1e9, "fp4_e2m1") == 6
    assert rounded(-np.inf, "fp6_e3m2") == -28
    assert rounded(1e9, "int8") == 127
    assert rounded(-1e9, "int8") == -128
    assert rounded(-5.0, "uint8") == 0


@pytest.mark.parametrize(
    ("name", "smallest"), [("fp11", 2.0**-19), ("bfloat16", 2.0**-133), ("fp8_e4m3fn", 2.0**-9), ("fp4_e2m1", 0.5)]
)
def test_smallest_subnormal_and_its_half(name: str, smallest: float) -> None:
    half = np.float32(smallest / 2)
    above = float(np.nextafter(half, np.float32(1)))
    assert rounded(smallest, name) == smallest
    assert rounded(float(half), name) == 0  # the tie goes to the even zero
    assert rounded(above, name) == smallest
    assert rounded(float(half), name, rounding="nearest-away") == smallest
    assert rounded(1e-45, name, rounding="up") == smallest
    assert rounded(-1e-45, name, rounding="down") == -smallest
    assert rounded(1.5 * smallest, name) == 2 * smallest
    assert np.signbit(rounded(-float(half), name))
    assert np.signbit(rounded(-1e-45, name, rounding="up"))


def test_the_sign_of_zero() -> None:
    assert np.signbit(rounded(-0.0, "fp11"))
    assert not np.signbit(rounded(-0.0, "fp8_e4m3fnuz"))
    assert not np.signbit(rounded(-1e-30, "int8"))


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("saturate", [False, True])
def test_nan_payloads_stay_nan(name: str, saturate: bool) -> None:
    """A payload in the low bits alone becomes infinity when the bits are cut off, one of all ones becomes -0."""
    patterns = np.array([0x7F800001, 0x7FFFFFFF, 0x7FC00000, 0xFF800001, 0xFFFFFFFF, 0x7F801000], np.uint32)
    for rounding in DETERMINISTIC:
        result = round_to(patterns.view(np.float32), name, rounding=rounding, saturate=saturate)  # type: ignore[arg-type]
        assert np.isnan(result).all()
    assert np.isnan(round_to(patterns.view(np.float32), name, rounding="stochastic", seed=1, saturate=saturate)).all()


def test_integers_round_half_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, -128.5, -129.0], np.float32)
    assert round_to(x, "int8").tolist() == [0, 2, 2, 0, -2, 126, 127, -128, -128]


def test_e8m0_has_neither_zero_nor_sign() -> None:
    x = np.array([0.0, -0.0, -1.0, 1e-45, 3.0, 6.0, np.inf, 2.0**127], np.float32)
    assert_equal = np.testing.assert_array_equal
    # 3 is half way from 2 (code 128, even) to 4; 6 from 4 (code 129) to 8
    assert_equal(round_to(x, "e8m0"), np.array([np.nan, np.nan, np.nan, 2.0**-127, 2, 8, np.nan, 2.0**127]))


bits = arrays(np.uint32, st.integers(1, 40), elements=st.integers(0, 2**32 - 1))
near_one = arrays(np.float32, st.integers(1, 40), elements=st.floats(-600, 600, width=32))
values = st.one_of(bits.map(lambda array: array.view(np.float32)), near_one)


def symmetric(name: str) -> bool:
    return not (name.startswith(("int", "uint")) or name == "e8m0")


@given(x=values, name=st.sampled_from(SCALARS), rounding=st.sampled_from(DETERMINISTIC), saturate=st.booleans())
def test_rounding_twice_changes_nothing(x: np.ndarray, name: str, rounding: str, saturate: bool) -> None:
    once = round_to(x, name, rounding=rounding, saturate=saturate)  # type: ignore[arg-type]
    for again in DETERMINISTIC:
        twice = round_to(once, name, rounding=again, saturate=saturate)  # type: ignore[arg-type]
        np.testing.assert_array_equal(twice, once)
    np.testing.assert_array_equal(round_to(once, name, rounding="stochastic", seed=1, saturate=saturate), once)


@given(x=values, name=st.sampled_from(SCALARS), rounding=st.sampled_from(DETERMINISTIC))
def test_rounding_is_monotone(x: np.ndarray, name: str, rounding: str) -> None:
    positive_only = name == "e8m0"
    x = x[~np.isnan(x) & ((x > 0) | (not positive_only))]
    result = round_to(np.sort(x), name, rounding=rounding, saturate=True)  # type: ignore[arg-type]
    assert (np.diff(result) >= 0).all()


@given(x=values, name=st.sampled_from([name for name in SCALARS if symmetric(name)]), saturate=st.booleans())
def test_rounding_is_symmetric(x: np.ndarray, name: str, saturate: bool) -> None:
    mirrored = {
        "nearest-even": "nearest-even",
        "nearest-away": "nearest-away",
        "toward-zero": "toward-zero",
        "up": "down",
    }
    for rounding, other in mirrored.items():
        left = -round_to(x, name, rounding=rounding, saturate=saturate)  # type: ignore[arg-type]
        right = round_to(-x, name, rounding=other, saturate=saturate)  # type: ignore[arg-type]
        np.testing.assert_array_equal(left, right)


@given(x=values, name=st.sampled_from(SCALARS), rounding=st.sampled_from(DETERMINISTIC), saturate=st.booleans())
def test_decoding_the_code_is_rounding(x: np.ndarray, name: str, rounding: str, saturate: bool) -> None:
    result = round_to(x, name, rounding=rounding, saturate=saturate)  # type: ignore[arg-type]
    if name.startswith(("int", "uint", "fp6", "fp4")):  # no code for NaN
        x, result = x[~np.isnan(x)], result[~np.isnan(x)]
    decoded = decode(encode(x, name, rounding=rounding, saturate=saturate), name)  # type: ignore[arg-type]
    np.testing.assert_array_equal(decoded, result)
    number = ~np.isnan(result)
    np.testing.assert_array_equal(np.signbit(decoded[number]), np.signbit(result[number]))
