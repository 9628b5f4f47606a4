"""Scales and zero points: ranges are covered and zero is exact. That codes are ONNX Runtime's: graphs/test_qdq.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantbench.graphs.qdq import QuantizedTensor
from quantbench.quantization.affine import activation_affine, dequantize, integer_range, quantize, symmetric_affine

FORMATS = ["int4", "uint4", "int8", "uint8", "int16", "uint16"]
ENDS = st.floats(-1e6, 1e6, width=32)


@pytest.mark.parametrize("name", FORMATS[2:])
def test_integer_range_is_numpys(name: str):
    assert integer_range(name) == (np.iinfo(name).min, np.iinfo(name).max)


def test_integer_range_of_four_bits():
    assert integer_range("int4") == (-8, 7) and integer_range("uint4") == (0, 15)


@given(name=st.sampled_from(FORMATS), ends=st.tuples(ENDS, ENDS), fraction=st.floats(0, 1))
@example(name="uint8", ends=(-0.30000001192092896, 2.700000047683716), fraction=1.0)  # 25.5 codes below zero
@settings(deadline=None)
def test_zero_is_exact_and_all_of_a_range_within_half_a_step(name: str, ends: tuple[float, float], fraction: float):
    low, high = min(*ends, 0.0), max(*ends, 0.0)
    affine = activation_affine(min(ends), max(ends), name)
    smallest, largest = integer_range(name)
    assert smallest <= int(affine.zero_point) <= largest
    assert affine.scale.dtype == np.float32 and affine.scale.shape == () and affine.axis is None
    np.testing.assert_allclose(affine.scale, max((high - low) / (largest - smallest), 1e-30), rtol=1e-6)
    values = np.float32([0, low, high, low + fraction * (high - low)])
    got = dequantize(QuantizedTensor(quantize(values, affine), affine))
    assert got[0] == 0
    np.testing.assert_allclose(got, values, rtol=1e-5, atol=float(affine.scale) * 0.51)


@given(name=st.sampled_from(["uint8", "uint16"]), high=st.floats(2.0**-20, 2.0**20, width=32))
@settings(deadline=None)
def test_no_code_lies_beyond_the_end_of_a_one_sided_range(name: str, high: float):
    """Else ONNX Runtime would have to keep the Clip before it."""
    affine = activation_affine(0.0, high, name)
    largest = np.float32(integer_range(name)[1])
    assert int(affine.zero_point) == 0 and affine.scale * largest <= np.float32(high)
    assert np.nextafter(affine.scale, np.float32(np.inf)) * largest >= np.float32(high) * np.float32(1 - 1e-6)


def test_known_activation_parameters():
    affine = activation_affine(-1.0, 3.0, "uint8")
    assert int(affine.zero_point) == 64  # 255/4 = 63.75 codes below zero
    np.testing.assert_allclose(affine.scale, 4.0 / 255, rtol=1e-6)
    assert activation_affine(0.0, 0.0, "uint8").scale > 0


@given(
    name=st.sampled_from(FORMATS),
    weight=npst.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 9)), elements=st.floats(-1e4, 1e4, width=32)
    ),
    axis=st.sampled_from([None, 0, 1]),
)
@settings(deadline=None)
def test_a_symmetric_weight_is_within_half_a_step_and_uses_its_largest_code(
    name: str, weight: np.ndarray, axis: int | None
):
    amplitude = np.abs(weight).max(axis=None if axis is None else 1 - axis)
    affine = symmetric_affine(amplitude, name, axis)
    narrow = quantize(weight, affine)
    values = dequantize(QuantizedTensor(narrow, affine))
    assert narrow.itemsize <= max(int(name.lstrip("uint")), 8) // 8, "codes take no more than they need"
    codes = narrow.astype(np.int64)
    smallest, largest = integer_range(name)
    middle = (smallest + largest + 1) // 2
    assert (affine.zero_point == middle).all() and affine.scale.shape == amplitude.shape
    assert np.abs(codes - middle).max() <= largest - middle, "−128 is not used: the codes are symmetric"
    scale = affine.scale if axis is None else np.expand_dims(affine.scale, 1 - axis)
    assert (np.abs(values - weight) <= 0.501 * scale + 1e-30).all()
    assert not weight[np.abs(weight) > 1e-20].size or np.abs(codes - middle).max() == largest - middle
    np.testing.assert_array_equal(dequantize(QuantizedTensor(quantize(-weight, affine), affine)), -values)


def test_blocks_that_do_not_divide_the_axis():
    weight = np.float32([[1, 2, 30, 40, 500]])
    affine = symmetric_affine(np.float32([[2, 40, 500]]), "int8", axis=1, block_size=2)
    codes = quantize(weight, affine)
    assert codes.tolist() == [[64, 127, 95, 127, 127]]  # 1/(2/127) = 63.5, half to even
    np.testing.assert_allclose(dequantize(QuantizedTensor(codes, affine)), weight, rtol=0.02)
