"""Values and roundings of number formats from ml_dtypes and gfloat, which this project did not write."""

from __future__ import annotations

from typing import Any

import gfloat
import ml_dtypes
import numpy as np
from gfloat.formats import (
    format_info_bfloat16,
    format_info_binary16,
    format_info_ocp_e2m1,
    format_info_ocp_e2m3,
    format_info_ocp_e3m2,
    format_info_ocp_e4m3,
    format_info_ocp_e5m2,
)
from numpy.typing import NDArray

Floats = NDArray[np.float32]

ML_DTYPES: dict[str, Any] = {
    "fp16": np.float16,
    "bfloat16": ml_dtypes.bfloat16,
    "fp8_e4m3fn": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp6_e2m3": ml_dtypes.float6_e2m3fn,
    "fp6_e3m2": ml_dtypes.float6_e3m2fn,
    "fp4_e2m1": ml_dtypes.float4_e2m1fn,
    "e4m3": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
}
"""Formats that ml_dtypes (or numpy) rounds to, to nearest even and without saturation."""


def gfloat_ieee(exponent_bits: int, mantissa_bits: int, bias: int | None = None) -> gfloat.FormatInfo:
    """gfloat's description of an IEEE-like format."""
    return gfloat.FormatInfo(
        f"e{exponent_bits}m{mantissa_bits}",
        k=1 + exponent_bits + mantissa_bits,
        precision=mantissa_bits + 1,
        bias=2 ** (exponent_bits - 1) - 1 if bias is None else bias,
        is_signed=True,
        domain=gfloat.Domain.Extended,
        has_nz=True,
        num_high_nans=2**mantissa_bits - 1,
        has_subnormals=True,
        is_twos_complement=False,
    )


def gfloat_fnuz(exponent_bits: int, mantissa_bits: int) -> gfloat.FormatInfo:
    """gfloat's description of a format whose one NaN is the code of -0."""
    return gfloat.FormatInfo(
        f"e{exponent_bits}m{mantissa_bits}fnuz",
        k=1 + exponent_bits + mantissa_bits,
        precision=mantissa_bits + 1,
        bias=2 ** (exponent_bits - 1),
        is_signed=True,
        domain=gfloat.Domain.Finite,
        has_nz=False,
        num_high_nans=0,
        has_subnormals=True,
        is_twos_complement=False,
    )


GFLOAT: dict[str, gfloat.FormatInfo] = {
    "fp16": format_info_binary16,
    "bfloat16": format_info_bfloat16,
    "tf32": gfloat_ieee(8, 10),
    "fp11": gfloat_ieee(5, 5),
    "fp8_e4m3fn": format_info_ocp_e4m3,
    "fp8_e5m2": format_info_ocp_e5m2,
    "fp8_e4m3fnuz": gfloat_fnuz(4, 3),
    "fp8_e5m2fnuz": gfloat_fnuz(5, 2),
    "fp6_e2m3": format_info_ocp_e2m3,
    "fp6_e3m2": format_info_ocp_e3m2,
    "fp4_e2m1": format_info_ocp_e2m1,
    "e2m1": gfloat_ieee(2, 1),
    "e4m3b11": gfloat_ieee(4, 3, bias=11),
    "e3m9b-60": gfloat_ieee(3, 9, bias=-60),
    "e7m4": gfloat_ieee(7, 4),
    "e8m1": gfloat_ieee(8, 1),
    "e6m9": gfloat_ieee(6, 9),
}

GFLOAT_MODES: dict[str, gfloat.RoundMode] = {
    "nearest-even": gfloat.RoundMode.TiesToEven,
    "nearest-away": gfloat.RoundMode.TiesToAway,
    "toward-zero": gfloat.RoundMode.TowardZero,
    "up": gfloat.RoundMode.TowardPositive,
    "down": gfloat.RoundMode.TowardNegative,
}


def by_ml_dtypes(x: Floats, name: str) -> Floats:
    """x rounded to nearest even by ml_dtypes or numpy. A NaN that the format lacks is put back."""
    with np.errstate(all="ignore"):
        rounded = x.astype(ML_DTYPES[name]).astype(np.float32)
    return np.where(np.isnan(x), np.float32(np.nan), rounded)


def by_gfloat(x: Floats, name: str, rounding: str, *, saturate: bool) -> Floats:
    """x rounded by gfloat, which knows neither NaN nor overflow in formats without NaN and infinity."""
    info = GFLOAT[name]
    nan = np.isnan(x)
    without = np.where(nan, np.float32(0), x)
    bounded = saturate or (info.num_infs == 0 and info.num_nans == 0)
    with np.errstate(all="ignore"):
        rounded = gfloat.round_ndarray(info, without.astype(np.float64), GFLOAT_MODES[rounding], sat=bounded)
    return np.where(nan, np.float32(np.nan), rounded.astype(np.float32))


def telling_inputs(values: Floats) -> Floats:
    """Where rounding to a set of values can go wrong: the values, the points half way, and what lies beside them.

    `values`: finite, of any order and sign. Past the largest one: where one more step would be, and half way there.
    """
    ordered = np.unique(values.astype(np.float64))
    beyond = 2 * ordered[[0, -1]] - ordered[[1, -2]]
    points = np.concatenate([[beyond[0]], ordered, [beyond[1]]])
    halves = (points[1:] + points[:-1]) / 2
    with np.errstate(over="ignore"):
        centres = np.concatenate([points, halves]).astype(np.float32)
    around = [centres, np.nextafter(centres, np.float32(np.inf)), np.nextafter(centres, np.float32(-np.inf))]
    specials = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4028235e38, -3.4028235e38, 1e-45, -1e-45], np.float32)
    return np.concatenate([*around, specials])


def random_patterns(count: int, seed: int) -> Floats:
    """float32 values from random bits: every exponent, subnormals, infinities and NaN payloads among them."""
    return np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32).view(np.float32)


def assert_same(ours: Floats, theirs: Floats, inputs: Floats) -> None:
    """Equal to the bit, but for the payload and sign of NaN."""
    same = (ours.view(np.uint32) == theirs.view(np.uint32)) | (np.isnan(ours) & np.isnan(theirs))
    wrong = np.flatnonzero(~same)
    first = [(inputs[i].item().hex(), ours[i].item(), theirs[i].item()) for i in wrong[:5]]
    assert not wrong.size, f"{wrong.size} differ; (input, ours, theirs): {first}"
