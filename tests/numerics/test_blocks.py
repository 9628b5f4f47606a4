"""Block formats against gfloat (MX) and an NVFP4 written with ml_dtypes."""

from __future__ import annotations

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat.formats import all_block_formats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from oracles import GFLOAT_MODES, Floats

from quantbench.numerics import round_to

MX = {("mxfp4" if info.name == "mxfp4_e2m1" else info.name): info for info in all_block_formats}


def spread_values(rows: int, length: int, seed: int) -> Floats:
    """Rows of normal values on scales from far below float32's normal range to near its top."""
    generator = np.random.default_rng(seed)
    scales = np.exp2(np.linspace(-148, 124, rows))[:, None]
    return (generator.standard_normal((rows, length)) * scales).astype(np.float32)


def by_gfloat(name: str, blocks: Floats, rounding: str) -> Floats:
    rounded = [
        gfloat.quantize_block(MX[name], block.astype(np.float64), gfloat.compute_scale_amax, GFLOAT_MODES[rounding])
        for block in blocks
    ]
    return np.stack(rounded).astype(np.float32)


@pytest.mark.parametrize("rounding", GFLOAT_MODES)
@pytest.mark.parametrize("name", MX)
def test_mx_by_gfloat(name: str, rounding: str) -> None:
    blocks = spread_values(60, 32, seed=1)
    theirs = by_gfloat(name, blocks, rounding)
    if name == "mxint8":  # we leave the code of -2 unused, as the specification allows
        scales = np.array([gfloat.compute_scale_amax(0, block.astype(np.float64)) for block in blocks])[:, None]
        theirs = np.maximum(theirs, (-127 / 64 * scales).astype(np.float32))
    ours = round_to(blocks, name, rounding=rounding)  # type: ignore[arg-type]
    np.testing.assert_array_equal(ours, theirs)


def test_the_mxint8_step_and_its_symmetry() -> None:
    """Largest 1.999: scale 1, steps of 1/64, and ±127/64 at the ends."""
    block = np.array([1.999, -1.999, 0.0234375, 0.0078125, 1.0], np.float32)
    assert round_to(block, "mxint8").tolist() == [127 / 64, -127 / 64, 2 / 64, 0.0, 1.0]


def test_an_mxfp4_block_by_hand() -> None:
    """Largest 7: scale 2^(2 - 2) = 1; values 0, 0.5, 1, 1.5, 2, 3, 4, 6; 5 is a tie to the even 4."""
    block = np.array([7.0, 5.0, -2.5, 0.25, 0.3, -0.0], np.float32)
    result = round_to(block, "mxfp4")
    assert result.tolist() == [6, 4, -2, 0, 0.5, 0]
    assert np.signbit(result[-1])
    assert round_to(block * np.float32(2.0**-100), "mxfp4").tolist() == [2.0**-100 * v for v in [6, 4, -2, 0, 0.5, 0]]


@pytest.mark.parametrize("length", [1, 5, 31, 33, 64, 100])
@pytest.mark.parametrize("name", ["mxfp8_e4m3", "mxint8", "nvfp4"])
def test_a_last_block_may_be_shorter(name: str, length: int) -> None:
    """Zeros that fill the last block change neither its largest value nor the rest."""
    rows = np.random.default_rng(2).standard_normal((3, length)).astype(np.float32)
    filled = np.zeros((3, -(-length // 32) * 32), np.float32)
    filled[:, :length] = rows
    np.testing.assert_array_equal(round_to(rows, name), round_to(filled, name)[:, :length])


@pytest.mark.parametrize("axis", [0, 1, 2, -3])
@pytest.mark.parametrize("shape", [(64, 32, 96), (33, 7, 50)])
def test_blocks_along_an_axis(axis: int, shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    lines = np.ascontiguousarray(np.moveaxis(x, axis, -1)).reshape(-1, shape[axis])
    each = np.stack([round_to(line, "mxfp6_e2m3") for line in lines[:200]])
    ours = np.moveaxis(round_to(x, "mxfp6_e2m3", axis=axis), axis, -1).reshape(-1, shape[axis])
    np.testing.assert_array_equal(ours[:200], each)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", [*MX, "nvfp4"])
def test_nan_and_infinity_spoil_their_block_alone(name: str, bad: float) -> None:
    x = np.random.default_rng(4).standard_normal(96).astype(np.float32)
    spoilt = x.copy()
    spoilt[40] = bad
    result = round_to(spoilt, name)
    first, last = (32, 48) if name == "nvfp4" else (32, 64)
    assert np.isnan(result[first:last]).all()
    assert not np.isnan(np.delete(result, range(first, last))).any()


@pytest.mark.parametrize("name", [*MX, "nvfp4"])
def test_zeros_stay_zeros(name: str) -> None:
    assert round_to(np.zeros((2, 40), np.float32), name).tolist() == np.zeros((2, 40)).tolist()


def nvfp4_by_ml_dtypes(x: Floats) -> Floats:
    """NVFP4 of whole blocks: E4M3 scales of 16 values under one float32 scale."""
    tensor_scale = np.float32(np.abs(x).max()) / np.float32(6 * 448)
    blocks = x.reshape(-1, 16)
    wanted = np.abs(blocks).max(axis=1) / np.float32(6) / tensor_scale
    scale = np.minimum(wanted, np.float32(448)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) * tensor_scale
    divisor = np.where(scale == 0, np.float32(1), scale)[:, None]
    elements = (blocks / divisor).astype(ml_dtypes.float4_e2m1fn).astype(np.float32)
    return (elements * scale[:, None]).reshape(x.shape)


@pytest.mark.parametrize("spread", [0, 4, 12])
def test_nvfp4_by_ml_dtypes(spread: int) -> None:
    """With a spread of 2^±12 some blocks have subnormal E4M3 scales, some zero."""
    generator = np.random.default_rng(5)
    scales = np.exp2(generator.integers(-spread, spread + 1, (500, 1)))
    x = (generator.standard_normal((500, 48)) * scales).astype(np.float32)
    np.testing.assert_array_equal(round_to(x, "nvfp4"), nvfp4_by_ml_dtypes(x))


def test_stochastic_blocks_stay_unbiased() -> None:
    """A block of 4 and of 2.25: scale 1; 2.25 lies between 2 and 3 at a quarter. n = 310,000."""
    x = np.full((10_000, 32), 2.25, np.float32)
    x[:, 0] = 4
    result = round_to(x, "mxfp4", rounding="stochastic", seed=1)[:, 1:]
    assert set(np.unique(result)) == {2.0, 3.0}
    assert abs((result == 3).mean() - 0.25) < 0.004


blocks = arrays(np.float32, st.integers(1, 70), elements=st.floats(-(2.0**100), 2.0**100, width=32))


@given(x=blocks, name=st.sampled_from(list(MX)), rounding=st.sampled_from(list(GFLOAT_MODES)))
def test_mx_twice_changes_nothing(x: Floats, name: str, rounding: str) -> None:
    once = round_to(x, name, rounding=rounding)  # type: ignore[arg-type]
    np.testing.assert_array_equal(round_to(once, name, rounding=rounding), once)  # type: ignore[arg-type]


@given(x=blocks, name=st.sampled_from([*MX, "nvfp4"]))
def test_blocks_are_symmetric(x: Floats, name: str) -> None:
    np.testing.assert_array_equal(round_to(-x, name), -round_to(x, name))
    up, down = round_to(x, name, rounding="up"), round_to(-x, name, rounding="down")
    np.testing.assert_array_equal(up, -down)
