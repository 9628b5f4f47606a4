"""A Min moved behind its QuantizeLinear gives the same codes, to the bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, operators, run

from quantbench.graphs.code_bounds import bound_codes

TEXT = """
    g (float[n,4,5,5] x) => (float[n,4,5,5] y) {
      r = Relu(x)  m = Min(r, bound)  q = QuantizeLinear(m, scale, zero)  y = DequantizeLinear(q, scale, zero) EXTRA }
"""


def moved(extra: str = "", **constants: object) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    text = TEXT.replace("EXTRA", extra)
    if extra:
        text = text.replace("float[n,4,5,5] y)", "float[n,4,5,5] y, float[n,4,5,5] z)", 1)
    before = graph(text, **constants)
    after = ir.to_proto(bound_codes(ir.from_proto(before)))
    onnx.checker.check_model(after, full_check=True)
    return before, after


@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 0), (np.uint8, 37), (np.int8, -128), (np.int8, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_the_same_codes(dtype: type, zero: int, seed: int):
    rng = np.random.default_rng(seed)
    bound = rng.uniform(0.05, 2, (4, 1, 1)).astype(np.float32)
    scale = np.float32(rng.uniform(0.002, 0.01))
    before, after = moved(bound=bound, scale=scale, zero=dtype(zero))
    assert operators(after) == ["Relu", "QuantizeLinear", "Min", "DequantizeLinear"]
    steps = np.arange(100, dtype=np.float32).reshape(1, 4, 5, 5) * scale / 2  # many ties
    feeds = {"x": np.concatenate([normal(9, 4, 5, 5, seed=seed), steps])}
    np.testing.assert_array_equal(run(after, feeds)[0], run(before, feeds)[0])


def test_a_bound_above_every_code_goes():
    before, after = moved(bound=np.full((4, 1, 1), 9.0), scale=np.float32(0.02), zero=np.uint8(0))
    assert operators(after) == ["Relu", "QuantizeLinear", "DequantizeLinear"]
    feeds = {"x": 5 * normal(2, 4, 5, 5)}
    np.testing.assert_array_equal(run(after, feeds)[0], run(before, feeds)[0])


def test_what_has_no_integer_kernel_or_another_reader_stays():
    bound = np.full((4, 1, 1), 0.3)
    before, after = moved(bound=bound, scale=np.float32(0.01), zero=np.uint16(0))
    assert operators(after) == operators(before)
    before, after = moved("z = Exp(m)", bound=bound, scale=np.float32(0.01), zero=np.uint8(0))
    assert operators(after) == operators(before)
