"""Bit codes and ONNX packing against ml_dtypes, gfloat and onnx."""

from __future__ import annotations

import gfloat
import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from oracles import GFLOAT, ML_DTYPES

from quantbench.errors import InputError
from quantbench.numerics import decode, encode, get_format, onnx_type, pack, unpack
from quantbench.numerics.formats import ONNX_TYPES

INTEGERS = {
    "int2": ml_dtypes.int2,
    "uint2": ml_dtypes.uint2,
    "int4": ml_dtypes.int4,
    "uint4": ml_dtypes.uint4,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
}
NUMPY_TYPES = {**ML_DTYPES, **INTEGERS, "e8m0": ml_dtypes.float8_e8m0fnu, "fp32": np.float32}


def all_codes(name: str) -> np.ndarray:
    bits = get_format(name).bits
    if bits == 32:
        return np.random.default_rng(0).integers(0, 2**32, 100_001, dtype=np.uint32)
    return np.arange(2**bits, dtype=np.uint8 if bits <= 8 else np.uint16)


@pytest.mark.parametrize("name", NUMPY_TYPES)
def test_every_code_by_ml_dtypes(name: str) -> None:
    codes = all_codes(name)
    theirs = codes.view(NUMPY_TYPES[name]).astype(np.float32)
    ours = decode(codes, name)
    np.testing.assert_array_equal(ours, theirs)
    number = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(ours[number]), np.signbit(theirs[number]))
    np.testing.assert_array_equal(encode(ours[number], name), codes[number])


@pytest.mark.parametrize("name", GFLOAT)
def test_every_code_by_gfloat(name: str) -> None:
    codes = np.arange(2 ** get_format(name).bits, dtype=np.uint32)[:: 1 if name != "tf32" else 7]
    theirs = gfloat.decode_ndarray(GFLOAT[name], codes).astype(np.float32)
    ours = decode(codes, name)
    np.testing.assert_array_equal(ours, theirs)
    number = ~np.isnan(theirs)
    np.testing.assert_array_equal(encode(ours[number], name), codes[number])


@pytest.mark.parametrize("name", [name for name in NUMPY_TYPES if name not in ("fp6_e2m3", "fp6_e3m2", "fp4_e2m1")])
def test_nan_has_a_code(name: str) -> None:
    if not get_format(name).has_nan:
        with pytest.raises(InputError, match="NaN"):
            encode(np.array([1.0, np.nan], np.float32), name)
    else:
        codes = encode(np.array([np.nan, -np.nan], np.float32), name)
        assert np.isnan(codes.view(NUMPY_TYPES[name]).astype(np.float32)).all()


def test_codes_take_the_narrowest_dtype_and_the_shape() -> None:
    x = np.ones((2, 3), np.float32)
    for name, dtype in (("int4", np.uint8), ("fp11", np.uint16), ("tf32", np.uint32)):
        codes = encode(x, name)
        assert codes.dtype == dtype
        assert decode(codes, name).tolist() == x.tolist()
    assert encode(np.array([-1.0], np.float32), "int4").tolist() == [15]
    assert encode(np.float32(1.0), "fp11").shape == ()  # type: ignore[arg-type]


def test_bad_codes_are_refused() -> None:
    with pytest.raises(InputError, match="16 does not fit"):
        decode(np.array([16], np.uint8), "int4")
    with pytest.raises(InputError, match="unsigned"):
        decode(np.array([1], np.int8), "int4")
    with pytest.raises(InputError, match="block"):
        encode(np.ones(32, np.float32), "mxfp4")
    with pytest.raises(InputError, match="4 bits"):
        pack(np.array([16], np.uint8), "int4")
    with pytest.raises(InputError, match="fp11"):
        pack(np.array([16], np.uint16), "fp11")
    with pytest.raises(InputError, match="3 bytes"):
        unpack(b"abc", "int4", (2, 2))


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 7, 16, 101])
@pytest.mark.parametrize(("dtype", "name"), ONNX_TYPES)
def test_packing_by_onnx(dtype: str, name: str, length: int) -> None:
    generator = np.random.default_rng(length)
    codes = generator.choice(all_codes(name), length)
    tensor = numpy_helper.from_array(codes.view(NUMPY_TYPES[name]))
    assert onnx_type(name) == dtype
    assert tensor.data_type == getattr(onnx.TensorProto, dtype)
    assert pack(codes, name) == tensor.raw_data
    np.testing.assert_array_equal(unpack(tensor.raw_data, name, (length,)), codes, strict=True)


def test_packing_keeps_the_shape_and_the_order_of_rows() -> None:
    codes = np.arange(15, dtype=np.uint8).reshape(3, 5)
    assert unpack(pack(codes.T, "uint4"), "uint4", (5, 3)).tolist() == codes.T.tolist()
