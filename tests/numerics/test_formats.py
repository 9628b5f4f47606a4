"""The table of formats against ml_dtypes, gfloat and ONNX Runtime."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import gfloat
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from oracles import GFLOAT, ML_DTYPES

from quantbench.errors import InputError
from quantbench.numerics import all_formats, contains, decode, encode, format_names, get_format, pack, storage_dtype
from quantbench.numerics.formats import ONNX_TYPES
from quantbench.numerics.page import formats_page

SCALARS = [entry.name for entry in all_formats() if entry.kind != "block"]


@pytest.mark.parametrize("name", GFLOAT)
def test_the_facts_by_gfloat(name: str) -> None:
    entry, info = get_format(name), GFLOAT[name]
    assert (entry.bits, entry.exponent_bits, entry.mantissa_bits) == (info.bits, info.expBits, info.tSignificandBits)
    assert entry.bias == info.bias
    assert (entry.max, entry.min) == (info.max, info.min)
    assert entry.min_normal == info.smallest_normal
    assert entry.min_subnormal == info.smallest_subnormal
    assert entry.has_inf == (info.num_infs > 0)
    assert entry.has_nan == (info.num_nans > 0)
    assert entry.has_negative_zero == info.has_nz


@pytest.mark.parametrize("name", ML_DTYPES)
def test_the_facts_by_ml_dtypes(name: str) -> None:
    entry, info = get_format(name), ml_dtypes.finfo(ML_DTYPES[name])
    assert (entry.bits, entry.mantissa_bits) == (info.bits, info.nmant)
    assert (entry.max, entry.min) == (float(info.max), float(info.min))
    assert (entry.min_normal, entry.min_subnormal) == (float(info.tiny), float(info.smallest_subnormal))


@pytest.mark.parametrize("name", [name for name in SCALARS if get_format(name).bits <= 16])
def test_the_extremes_are_those_of_the_codes(name: str) -> None:
    entry = get_format(name)
    codes = np.arange(2**entry.bits, dtype=np.uint32)
    values = decode(codes, name)
    finite = values[np.isfinite(values)].astype(np.float64)
    assert (finite.max(), finite.min()) == (entry.max, entry.min)
    assert finite[finite > 0].min() == entry.min_subnormal
    assert np.isinf(values).any() == entry.has_inf
    assert np.isnan(values).any() == entry.has_nan
    assert (0 in finite) == entry.has_zero
    assert bool(np.signbit(finite[finite == 0]).any()) == entry.has_negative_zero


def test_mlperf_v05_lists_nine_formats() -> None:
    """MLPerf Inference v0.5, closed division: the numerics it allows."""
    listed = {entry.name for entry in all_formats() if entry.mlperf_v05}
    assert listed == {"int4", "int8", "int16", "uint8", "uint16", "fp11", "fp16", "bfloat16", "fp32"}


def test_names_and_aliases_are_found_in_any_case() -> None:
    for entry in all_formats():
        for name in (entry.name, entry.name.upper(), entry.name.replace("_", "-"), *entry.aliases):
            assert get_format(name) is entry
    names = [name for entry in all_formats() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    assert format_names() == tuple(entry.name for entry in all_formats())


def test_shapes_are_formats() -> None:
    assert get_format("e5m5") is get_format("fp11")
    assert get_format("E5M2") is get_format("fp8_e5m2")
    assert get_format("e8m7") is get_format("bf16")
    assert get_format("e4m3") != get_format("fp8_e4m3fn")
    assert get_format("e4m3b7") == get_format("e4m3")
    assert get_format("e5m10b15") is get_format("fp16")
    assert get_format("e4m3b-2").bias == -2
    assert len({get_format("e6m4"), get_format("E6M4"), get_format("e6m4b31")}) == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fp12", "fp11"),
        ("bfloat61", "bfloat16"),
        ("mxfp44", "mxfp4"),
        ("", "quantbench formats"),
        ("e9m2", "2 to 8"),
        ("e1m2", "2 to 8"),
        ("e5m24", "1 to 23"),
        ("e5m0", "1 to 23"),
        ("e4m3b128", "-113 to 127"),
        ("e4m3b-114", "-113 to 127"),
    ],
)
def test_unknown_names_offer_the_nearest(name: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        get_format(name)
    assert words in str(caught.value)


def test_contains_by_the_values_themselves() -> None:
    """Of every pair of small formats, and of the small ones in the 16-bit ones."""
    names = [name for name in SCALARS if get_format(name).bits <= 9] + [
        "fp11",
        "e4m3",
        "e3m4",
        "e2m1",
        "e4m3b11",
        "e2m5",
    ]
    outer_names = [*names, "fp16", "bfloat16", "int12", "uint16"]

    def values(name: str) -> set[str]:
        codes = np.arange(2 ** get_format(name).bits, dtype=np.uint32)
        return {float(value).hex() for value in decode(codes, name)}  # hex tells -0 from 0

    sets = {name: values(name) for name in outer_names}
    for outer, inner in itertools.product(outer_names, names):
        assert contains(outer, inner) == (sets[inner] <= sets[outer]), (outer, inner)


def test_contains_refuses_blocks() -> None:
    with pytest.raises(InputError, match="block"):
        contains("fp32", "mxfp4")


@pytest.mark.parametrize("dtype", sorted({storage_dtype(entry) for entry in all_formats()}))
def test_onnxruntime_casts_storage_exactly(dtype: str) -> None:
    """All values of every format stored so come out of a Cast to float on the CPU as they went in."""
    stored = next(name for onnx_name, name in ONNX_TYPES if onnx_name == dtype)
    held = [name for name in SCALARS if storage_dtype(name) == dtype and get_format(name).bits <= 16]
    kinds = [decode(np.arange(2 ** get_format(name).bits, dtype=np.uint32), name) for name in held]
    values = np.concatenate([*kinds, np.array([1.0, 0.0], np.float32)] if stored != "e8m0" else kinds)
    raw = pack(encode(values, stored), stored)
    tensor = onnx.TensorProto(name="w", data_type=getattr(TensorProto, dtype), dims=[values.size], raw_data=raw)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [values.size])
    graph = helper.make_graph(
        [helper.make_node("Cast", ["w"], ["y"], to=TensorProto.FLOAT)], "g", [], [output], [tensor]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 25)], ir_version=13)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {})[0], values)


def test_storage_of_some() -> None:
    expected = {"fp11": "FLOAT16", "bf16": "BFLOAT16", "int3": "INT4", "fp4_e2m1": "FLOAT8E4M3FN", "tf32": "FLOAT"}
    assert {name: storage_dtype(name) for name in expected} == expected
    assert storage_dtype("mxfp8_e4m3") == "FLOAT"


def test_the_page_is_current() -> None:
    page = Path(__file__).parents[2] / "docs" / "formats.md"
    assert page.read_text(encoding="utf-8") == formats_page(), (
        "run python -m quantbench.numerics.page > docs/formats.md"
    )


def test_looking_a_format_up_does_not_load_the_compiler() -> None:
    check = (
        "import sys; from quantbench.numerics import get_format; get_format('fp11'); assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", check], check=True)


def test_gfloat_is_the_oracle_that_was_meant() -> None:
    """A format that gfloat would understand otherwise than its name says would make every comparison worthless."""
    assert gfloat.decode_float(GFLOAT["fp11"], 0x1E0).fval == 1.0
    assert GFLOAT["fp8_e4m3fnuz"].max == 240
