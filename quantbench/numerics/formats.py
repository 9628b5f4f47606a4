"""The table of number formats: each is one entry, its oddities are data, and the kernels read the data."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from quantbench.errors import InputError

__all__ = [
    "ONNX_TYPES",
    "Format",
    "TopCodes",
    "all_formats",
    "check_accumulator",
    "contains",
    "format_names",
    "get_format",
    "storage_dtype",
]

Kind = Literal["float", "int", "block"]
TopCodes = Literal["inf-nan", "nan", "finite", "nan-is-negative-zero", "integer"]
"""What the largest codes of a format stand for.

inf-nan: the whole top exponent is infinity and NaN, as in IEEE 754. nan: only the code of all ones is NaN ("fn").
finite: every code is a number. nan-is-negative-zero: the code of −0 is the one NaN, the rest are numbers ("fnuz").
integer: two's complement, or unsigned.
"""


@dataclass(frozen=True, eq=False)
class Format:
    """A number format. Two formats of the same name are equal; a name says everything about a format.

    A block format holds its values in blocks of `block_size` consecutive elements of format `element`, each block
    under one `scale`, all under one float32 scale more where `tensor_scale` is true. Its exponent_bits, mantissa_bits,
    bias and top_codes are those of the element; its extremes count the scale in.
    """

    name: str
    kind: Kind
    bits: int
    """Bits of one value: of one element in a block format, without its share of the scale."""
    exponent_bits: int
    mantissa_bits: int
    """Explicit fraction bits; for an integer the bits of its magnitude."""
    bias: int
    max: float
    min: float
    """The most negative finite value (the smallest value where there is no sign)."""
    min_normal: float
    min_subnormal: float
    """The smallest positive value. Equal to `min_normal` where there are no subnormals."""
    has_inf: bool
    has_nan: bool
    top_codes: TopCodes
    signed: bool
    has_negative_zero: bool
    has_zero: bool
    mlperf_v05: bool
    """Whether MLPerf inference v0.5 lists the format for the closed division."""
    source: str
    aliases: tuple[str, ...] = ()
    element: Format | None = None
    block_size: int = 1
    scale: Format | None = None
    tensor_scale: bool = False

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Format) and self.name == other.name)

    def __hash__(self) -> int:
        return hash(self.name)

    def __str__(self) -> str:
        return self.name

    @property
    def has_subnormals(self) -> bool:
        """Whether there are values below `min_normal` besides zero."""
        return self.min_subnormal < self.min_normal

    @property
    def bits_per_value(self) -> float:
        """Bits of one value with its share of the block's scale (a tensor's one scale is not counted)."""
        return self.bits if self.scale is None else self.bits + self.scale.bits / self.block_size


def get_format(name: str | Format) -> Format:
    """The format of that name, in any case, or the format itself.

    Besides the table's names and aliases, `eXmY` (X exponent bits, Y mantissa bits) names a signed format with
    IEEE 754 rules: subnormals, and infinity and NaN in the top exponent; `eXmYbZ` also gives the bias. A plain eXmY
    is thus always IEEE-like (e4m3 has infinities; the OCP format is fp8_e4m3fn); only e8m0 names the scale format.

    Raises:
        InputError: there is no such format; the sentence offers the nearest names.
    """
    return name if isinstance(name, Format) else format_from_name(name)


@lru_cache(maxsize=1024)
def format_from_name(name: str) -> Format:
    """`get_format` of a name, remembered."""
    if not isinstance(name, str):
        raise InputError(f"a format is given by its name, not by {name!r}")
    key = name.strip().lower()
    if shape := _SHAPE.fullmatch(key):
        exponent_bits, mantissa_bits, bias = shape.groups()
        return _parsed(key, int(exponent_bits), int(mantissa_bits), None if bias is None else int(bias))
    known = _by_name()
    key = key.replace("-", "_")
    if key in known:
        return known[key]
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else "`quantbench formats` lists the names."
    raise InputError(f"unknown number format {name!r}; {offer} Any eXmY (e5m5, e4m3b9 …) works too")


def format_names() -> tuple[str, ...]:
    """The names of the table, in its order."""
    return tuple(entry.name for entry in _TABLE)


def all_formats() -> tuple[Format, ...]:
    """Every format of the table, in its order."""
    return _TABLE


def contains(outer: str | Format, inner: str | Format) -> bool:
    """Whether every value of `inner` is a value of `outer`: subnormals, infinities, NaN and −0 included.

    Raises:
        InputError: one of them is a block format, whose values depend on their neighbours.
    """
    big, small = get_format(outer), get_format(inner)
    for entry in (big, small):
        if entry.kind == "block":
            raise InputError(f"{entry.name} is a block format: it has no fixed set of values to compare")
    if (
        (small.has_inf and not big.has_inf)
        or (small.has_nan and not big.has_nan)
        or (small.has_negative_zero and not big.has_negative_zero)
        or (small.has_zero and not big.has_zero)
        or small.max > big.max
        or small.min < big.min
        or small.min_subnormal < big.min_subnormal
    ):
        return False
    power = small.min_subnormal
    while power <= max(small.max, -small.min):
        step = _step(small, power)
        # a binade whose only value is its power of two asks for no more than that power
        needed = step if power + step <= max(small.max, -small.min) else power
        if _step(big, power) > needed:
            return False
        power *= 2
    return True


def check_accumulator(format: str | Format) -> Format:  # noqa: A002 (named as in round_to)
    """The format of that name, if sums can be kept in it: a float format with a zero.

    Raises:
        InputError: there is no such format, or it is of another kind.
    """
    entry = get_format(format)
    if entry.kind != "float" or not entry.has_zero:
        raise InputError(f"nothing accumulates in {entry.name}; choose a float format, such as fp16")
    return entry


def storage_dtype(format: str | Format) -> str:  # noqa: A002 (named as in round_to)
    """The narrowest ONNX tensor type that holds every value of `format` exactly: its name in `onnx.TensorProto`.

    Only types that ONNX Runtime 1.32 casts to float on the CPU count: FLOAT4E2M1 and the FLOAT6 types are none of
    them. The scaled values of a block format need FLOAT.
    """
    return _storage_dtype(get_format(format))


@lru_cache(maxsize=4096)
def _storage_dtype(entry: Format) -> str:
    if entry.kind == "block":
        return "FLOAT"
    castable = ((dtype, name) for dtype, name in ONNX_TYPES if dtype not in _NOT_CAST_BY_ONNXRUNTIME)
    return next(dtype for dtype, name in castable if contains(name, entry))


ONNX_TYPES: Sequence[tuple[str, str]] = (
    ("UINT2", "uint2"),
    ("INT2", "int2"),
    ("UINT4", "uint4"),
    ("INT4", "int4"),
    ("FLOAT4E2M1", "fp4_e2m1"),
    ("FLOAT6E2M3", "fp6_e2m3"),
    ("FLOAT6E3M2", "fp6_e3m2"),
    ("UINT8", "uint8"),
    ("INT8", "int8"),
    ("FLOAT8E4M3FN", "fp8_e4m3fn"),
    ("FLOAT8E5M2", "fp8_e5m2"),
    ("FLOAT8E4M3FNUZ", "fp8_e4m3fnuz"),
    ("FLOAT8E5M2FNUZ", "fp8_e5m2fnuz"),
    ("FLOAT8E8M0", "e8m0"),
    ("UINT16", "uint16"),
    ("INT16", "int16"),
    ("FLOAT16", "fp16"),
    ("BFLOAT16", "bfloat16"),
    ("FLOAT", "fp32"),
)
"""The ONNX tensor types (onnx.TensorProto.DataType) and the formats they are, narrow ones first."""

_NOT_CAST_BY_ONNXRUNTIME = ("FLOAT4E2M1", "FLOAT6E2M3", "FLOAT6E3M2")


def _step(entry: Format, power: float) -> float:
    """The distance between neighbours from `power` (a power of two) up to the next one."""
    if entry.kind == "int":
        return entry.min_subnormal
    return max(entry.min_subnormal if entry.has_zero else 0.0, power * 2.0**-entry.mantissa_bits)


def _float(
    name: str,
    exponent_bits: int,
    mantissa_bits: int,
    source: str,
    *,
    bias: int | None = None,
    top_codes: TopCodes = "inf-nan",
    mlperf_v05: bool = False,
    scale_only: bool = False,
    aliases: tuple[str, ...] = (),
) -> Format:
    """A floating-point entry. `scale_only`: powers of two without sign, zero and subnormals (E8M0)."""
    if bias is None:
        bias = 2 ** (exponent_bits - 1) - 1
    top = 2 ** (exponent_bits + mantissa_bits) - 1
    largest = {"inf-nan": top - 2**mantissa_bits, "nan": top - 1, "finite": top, "nan-is-negative-zero": top}[top_codes]
    exponent, fraction = divmod(largest, 2**mantissa_bits)
    maximum = (1 + fraction * 2.0**-mantissa_bits) * 2.0 ** (exponent - bias)
    min_normal = 2.0 ** ((0 if scale_only else 1) - bias)
    return Format(
        name=name,
        kind="float",
        bits=exponent_bits + mantissa_bits + (0 if scale_only else 1),
        exponent_bits=exponent_bits,
        mantissa_bits=mantissa_bits,
        bias=bias,
        max=maximum,
        min=min_normal if scale_only else -maximum,
        min_normal=min_normal,
        min_subnormal=min_normal * 2.0**-mantissa_bits,
        has_inf=top_codes == "inf-nan",
        has_nan=top_codes != "finite",
        top_codes=top_codes,
        signed=not scale_only,
        has_negative_zero=not scale_only and top_codes != "nan-is-negative-zero",
        has_zero=not scale_only,
        mlperf_v05=mlperf_v05,
        source=source,
        aliases=aliases,
    )


def _integer(name: str, bits: int, *, signed: bool, step: float = 1.0, symmetric: bool = False) -> Format:
    """An integer entry, or a fixed-point one: multiples of `step`. `symmetric` leaves the most negative code unused."""
    magnitude_bits = bits - 1 if signed else bits
    top = 2**magnitude_bits - 1
    return Format(
        name=name,
        kind="int",
        bits=bits,
        exponent_bits=0,
        mantissa_bits=magnitude_bits,
        bias=0,
        max=top * step,
        min=-(top + (0 if symmetric else 1)) * step if signed else 0.0,
        min_normal=step,
        min_subnormal=step,
        has_inf=False,
        has_nan=False,
        top_codes="integer",
        signed=signed,
        has_negative_zero=False,
        has_zero=True,
        mlperf_v05=name in _MLPERF_V05_INTEGERS,
        source=_OCP_MX if symmetric else "two's complement" if signed else "unsigned binary",
    )


def _block(
    name: str, element: Format, scale: Format, block_size: int, source: str, *, tensor_scale: bool = False
) -> Format:
    """A block entry; its extremes are those of an element under the extreme scales."""
    largest_scale = scale.max * (_FLOAT32_MAX if tensor_scale else 1.0)
    smallest_scale = scale.min_subnormal * (2.0**-149 if tensor_scale else 1.0)
    return Format(
        name=name,
        kind="block",
        bits=element.bits,
        exponent_bits=element.exponent_bits,
        mantissa_bits=element.mantissa_bits,
        bias=element.bias,
        max=element.max * largest_scale,
        min=element.min * largest_scale,
        min_normal=element.min_normal * smallest_scale,
        min_subnormal=element.min_subnormal * smallest_scale,
        has_inf=False,
        has_nan=True,
        top_codes=element.top_codes,
        signed=True,
        has_negative_zero=element.has_negative_zero,
        has_zero=True,
        mlperf_v05=False,
        source=source,
        aliases=(f"{name}_e2m1",) if name == "mxfp4" else (),
        element=element,
        block_size=block_size,
        scale=scale,
        tensor_scale=tensor_scale,
    )


def _parsed(key: str, exponent_bits: int, mantissa_bits: int, bias: int | None) -> Format:
    """The IEEE-like format of an eXmY or eXmYbZ name, under its shortest name.

    Raises:
        InputError: the format is no float, or has values that float32 does not hold.
    """
    known = _by_name()
    if key in known:  # e8m0, and the plain names of table entries
        return known[key]
    if not 2 <= exponent_bits <= 8 or not 1 <= mantissa_bits <= 23:
        raise InputError(f"format {key!r}: eXmY needs 2 to 8 exponent bits and 1 to 23 mantissa bits")
    plain = f"e{exponent_bits}m{mantissa_bits}"
    usual = 2 ** (exponent_bits - 1) - 1
    if bias is None or bias == usual:
        return known[plain] if plain in known else _float(plain, exponent_bits, mantissa_bits, _IEEE_RULES)
    if not 2**exponent_bits - 2 - 127 <= bias <= 127:
        low = 2**exponent_bits - 2 - 127
        raise InputError(f"format {key!r}: float32 holds its values only for a bias from {low} to 127")
    return _float(f"{plain}b{bias}", exponent_bits, mantissa_bits, _IEEE_RULES, bias=bias)


@lru_cache(maxsize=1)
def _by_name() -> dict[str, Format]:
    """Every name and alias of the table."""
    return {name: entry for entry in _TABLE for name in (entry.name, *entry.aliases)}


_SHAPE = re.compile(r"e(\d{1,2})m(\d{1,2})(?:b(-?\d{1,3}))?")
_FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
_MLPERF_V05_INTEGERS = ("int4", "int8", "int16", "uint8", "uint16")

_IEEE = "IEEE 754-2019"
_IEEE_RULES = "IEEE 754-2019 rules on other widths"
_OCP_FP8 = "OCP 8-bit Floating Point Specification (OFP8) 1.0"
_OCP_MX = "OCP Microscaling Formats (MX) Specification 1.0"
_FNUZ = "Noune et al. 2022, 8-bit Numerical Formats for Deep Neural Networks (arXiv:2206.02915)"
_NVFP4 = "NVIDIA Blackwell: FP4 E2M1 in blocks of 16 under E4M3 scales and one FP32 tensor scale"

_E8M0 = _float("e8m0", 8, 0, _OCP_MX, top_codes="nan", scale_only=True, aliases=("float8_e8m0", "float8_e8m0fnu"))
_E4M3FN = _float(
    "fp8_e4m3fn", 4, 3, _OCP_FP8, top_codes="nan", aliases=("e4m3fn", "float8_e4m3fn", "float8e4m3fn", "fp8_e4m3")
)
_E5M2 = _float("fp8_e5m2", 5, 2, _OCP_FP8, aliases=("e5m2", "float8_e5m2", "float8e5m2"))
_FP6_E2M3 = _float("fp6_e2m3", 2, 3, _OCP_MX, top_codes="finite", aliases=("e2m3fn", "float6_e2m3fn"))
_FP6_E3M2 = _float("fp6_e3m2", 3, 2, _OCP_MX, top_codes="finite", aliases=("e3m2fn", "float6_e3m2fn"))
_FP4 = _float("fp4_e2m1", 2, 1, _OCP_MX, top_codes="finite", aliases=("fp4", "e2m1fn", "float4_e2m1fn", "float4e2m1"))
_MXINT8_ELEMENT = _integer("int8/64", 8, signed=True, step=2.0**-6, symmetric=True)

_TABLE: tuple[Format, ...] = (
    *(_integer(f"int{bits}", bits, signed=True) for bits in range(2, 17)),
    *(_integer(f"uint{bits}", bits, signed=False) for bits in range(2, 17)),
    _float("fp32", 8, 23, _IEEE, mlperf_v05=True, aliases=("float32", "e8m23", "float", "single")),
    _float("tf32", 8, 10, "NVIDIA A100 Tensor Core GPU Architecture, 2020", aliases=("e8m10", "tensorfloat32")),
    _float("fp16", 5, 10, _IEEE, mlperf_v05=True, aliases=("float16", "e5m10", "half")),
    _float("bfloat16", 8, 7, "Google Cloud TPU: bfloat16", mlperf_v05=True, aliases=("bf16", "e8m7")),
    _float("fp11", 5, 5, "MLPerf Inference Rules v0.5: FP11 (1-5-5)", mlperf_v05=True, aliases=("e5m5", "float11")),
    _E4M3FN,
    _E5M2,
    _float(
        "fp8_e4m3fnuz", 4, 3, _FNUZ, bias=8, top_codes="nan-is-negative-zero", aliases=("e4m3fnuz", "float8_e4m3fnuz")
    ),
    _float(
        "fp8_e5m2fnuz", 5, 2, _FNUZ, bias=16, top_codes="nan-is-negative-zero", aliases=("e5m2fnuz", "float8_e5m2fnuz")
    ),
    _FP6_E2M3,
    _FP6_E3M2,
    _FP4,
    _E8M0,
    _block("mxfp8_e4m3", _E4M3FN, _E8M0, 32, _OCP_MX),
    _block("mxfp8_e5m2", _E5M2, _E8M0, 32, _OCP_MX),
    _block("mxfp6_e2m3", _FP6_E2M3, _E8M0, 32, _OCP_MX),
    _block("mxfp6_e3m2", _FP6_E3M2, _E8M0, 32, _OCP_MX),
    _block("mxfp4", _FP4, _E8M0, 32, _OCP_MX),
    _block("mxint8", _MXINT8_ELEMENT, _E8M0, 32, _OCP_MX),
    _block("nvfp4", _FP4, _E4M3FN, 16, _NVFP4, tensor_scale=True),
)
