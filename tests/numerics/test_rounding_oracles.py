"""Rounding against ml_dtypes and gfloat: every code, its neighbours and midpoints, and random patterns."""

from __future__ import annotations

import gfloat
import ml_dtypes
import numpy as np
import pytest
from oracles import (
    GFLOAT,
    GFLOAT_MODES,
    ML_DTYPES,
    assert_same,
    by_gfloat,
    by_ml_dtypes,
    gfloat_ieee,
    random_patterns,
    telling_inputs,
)

from quantbench.numerics import all_formats, get_format, round_to


def gfloat_values(name: str) -> np.ndarray:
    """Every finite value of a format by gfloat; of TF32, which has half a million, those of some binades."""
    info = GFLOAT[name]
    codes = np.arange(2**info.bits, dtype=np.uint32)
    if info.bits > 16:
        codes = np.unique(np.concatenate([codes[:4096], codes[2**17 - 4096 : 2**17 + 4096], codes[-4096:]]))
    values = gfloat.decode_ndarray(info, codes)
    return np.asarray(values[np.isfinite(values)], np.float32)


@pytest.mark.parametrize("saturate", [False, True])
@pytest.mark.parametrize("rounding", GFLOAT_MODES)
@pytest.mark.parametrize("name", GFLOAT)
def test_every_code_its_neighbours_and_midpoints(name: str, rounding: str, saturate: bool) -> None:
    inputs = telling_inputs(gfloat_values(name))
    ours = round_to(inputs, name, rounding=rounding, saturate=saturate)  # type: ignore[arg-type]
    assert_same(ours, by_gfloat(inputs, name, rounding, saturate=saturate), inputs)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_every_code_its_neighbours_and_midpoints_by_ml_dtypes(name: str) -> None:
    dtype = np.dtype(ML_DTYPES[name])
    codes = np.arange(2 ** get_format(name).bits, dtype=np.uint16 if dtype.itemsize == 2 else np.uint8)
    values = codes.view(dtype).astype(np.float32)
    inputs = telling_inputs(values[np.isfinite(values)])
    assert_same(round_to(inputs, name), by_ml_dtypes(inputs, name), inputs)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_ten_million_random_patterns_by_ml_dtypes(name: str) -> None:
    inputs = random_patterns(10_000_000, seed=1)
    assert_same(round_to(inputs, name), by_ml_dtypes(inputs, name), inputs)


@pytest.mark.parametrize("rounding", GFLOAT_MODES)
def test_ten_million_random_patterns_of_fp11_by_gfloat(rounding: str) -> None:
    """FP11 is in no other library. gfloat takes a second for so many, too long to do the same for every format."""
    for part in np.split(random_patterns(10_000_000, seed=8), 20):  # what stays in the cache is sooner done
        ours = round_to(part, "fp11", rounding=rounding)  # type: ignore[arg-type]
        assert_same(ours, by_gfloat(part, "fp11", rounding, saturate=False), part)


@pytest.mark.parametrize("rounding", GFLOAT_MODES)
@pytest.mark.parametrize("name", GFLOAT)
def test_random_patterns_by_gfloat(name: str, rounding: str) -> None:
    inputs = random_patterns(100_000, seed=2)
    ours = round_to(inputs, name, rounding=rounding)  # type: ignore[arg-type]
    assert_same(ours, by_gfloat(inputs, name, rounding, saturate=False), inputs)


@pytest.mark.parametrize("exponent_bits", range(2, 9))
@pytest.mark.parametrize("mantissa_bits", [1, 2, 5, 7, 10])
def test_parsed_formats(exponent_bits: int, mantissa_bits: int) -> None:
    name = f"e{exponent_bits}m{mantissa_bits}"
    GFLOAT[name] = gfloat_ieee(exponent_bits, mantissa_bits)
    inputs = random_patterns(20_000, seed=3)
    for rounding in GFLOAT_MODES:
        ours = round_to(inputs, name, rounding=rounding)  # type: ignore[arg-type]
        assert_same(ours, by_gfloat(inputs, name, rounding, saturate=False), inputs)


def test_fp32_changes_nothing() -> None:
    inputs = random_patterns(1_000_000, seed=4)
    for rounding in GFLOAT_MODES:
        assert_same(round_to(inputs, "fp32", rounding=rounding), inputs, inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("rounding", GFLOAT_MODES)
@pytest.mark.parametrize("name", [entry.name for entry in all_formats() if entry.kind == "int"])
def test_integers_by_numpy(name: str, rounding: str) -> None:
    bits, signed = int(name.lstrip("uint")), name.startswith("int")
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    whole = np.arange(low - 2, high + 3).astype(np.float32)
    finite = random_patterns(50_000, seed=5)
    inputs = np.concatenate([telling_inputs(whole), finite])
    numpy_rounding = {
        "nearest-even": np.rint,
        "nearest-away": lambda x: np.copysign(np.floor(np.abs(x) + 0.5), x),
        "toward-zero": np.trunc,
        "up": np.ceil,
        "down": np.floor,
    }[rounding]
    with np.errstate(all="ignore"):
        theirs = np.clip(numpy_rounding(inputs.astype(np.float64)), low, high).astype(np.float32)
    theirs[theirs == 0] = 0.0  # integers have no -0
    assert_same(round_to(inputs, name, rounding=rounding), theirs, inputs)  # type: ignore[arg-type]


def test_e8m0_by_gfloat() -> None:
    inputs = np.concatenate([telling_inputs(POWERS), random_patterns(200_000, seed=6)])
    inside = inputs[(inputs >= 2.0**-127) & (inputs <= 2.0**127)]
    info = gfloat.formats.format_info_ocp_e8m0
    for rounding, mode in GFLOAT_MODES.items():
        rounded = gfloat.round_ndarray(info, inside.astype(np.float64), mode).astype(np.float32)
        assert_same(round_to(inside, "e8m0", rounding=rounding), rounded, inside)  # type: ignore[arg-type]


def test_e8m0_by_ml_dtypes() -> None:
    """Zero and negative values are NaN there too. ml_dtypes 0.6 takes ties up, and what lies above 2^-127 to 2^-126."""
    inputs = np.concatenate([telling_inputs(POWERS), random_patterns(200_000, seed=7)])
    tie = np.frexp(np.where(np.isfinite(inputs), inputs, 0))[0] == 0.75
    inputs = inputs[~tie & ~((inputs > 2.0**-127) & (inputs < 2.0**-126))]
    with np.errstate(all="ignore"):
        theirs = inputs.astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)
    assert_same(round_to(inputs, "e8m0"), theirs, inputs)


POWERS = np.exp2(np.arange(-127, 128, dtype=np.float64)).astype(np.float32)
