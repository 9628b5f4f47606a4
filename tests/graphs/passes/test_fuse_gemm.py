"""MatMul and Add become Gemm at the same results, and its weights find an integer kernel."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from onnx_models import graph, normal, operators
from rewriting import rewrite

from quantbench.graphs.passes import fuse_gemm, give_bias

X = {"x": normal(5, 4)}


@pytest.mark.parametrize("bias", [(3,), (1, 3)])
@pytest.mark.parametrize("add", ["Add(m, b)", "Add(b, m)"])
def test_of_matrices(add: str, bias: tuple[int, ...]):
    text = f"g (float[n,4] x) => (float[n,3] y, float[n,3] z) {{ m = MatMul(x, w)  y = {add}  z = Tanh(y) }}"
    after = rewrite(graph(text, w=normal(4, 3), b=normal(*bias, seed=1)), [fuse_gemm, give_bias], X)
    assert operators(after) == ["Gemm", "Tanh"]


@pytest.mark.parametrize(
    ("lines", "outputs", "shape"),
    [
        ("m = MatMul(x, w)  y = Add(m, rows)", "float[5,3] y", (5, 4)),  # a bias for each row
        ("m = MatMul(x, w)  y = Add(m, m)", "float[5,3] y", (5, 4)),
        ("m = MatMul(x, w)  y = Add(m, b)  z = Neg(m)", "float[5,3] y, float[5,3] z", (5, 4)),
        ("m = MatMul(x, w)  y = Add(m, wider)", "float[1,5,3] y", (5, 4)),
        ("m = MatMul(x, w)  y = Add(m, b)", "float[2,5,3] y", (2, 5, 4)),
        ("v = Neg(w)  m = MatMul(x, v)  y = Add(m, b)", "float[5,3] y", (5, 4)),
    ],
)
def test_others_stay(lines: str, outputs: str, shape: tuple[int, ...]):
    text = f"g (float[{','.join(map(str, shape))}] x) => ({outputs}) {{ {lines} }}"
    weights = {"w": normal(4, 3), "b": normal(3), "rows": normal(5, 1), "wider": normal(1, 1, 3)}
    proto = graph(text, **{name: array for name, array in weights.items() if name in lines})
    assert "Gemm" not in operators(rewrite(proto, [fuse_gemm], {"x": normal(*shape)}))


def test_what_the_runtime_does_with_a_float_bias(tmp_path):
    """Why the pass is there: of MatMul and Add between codes ONNX Runtime makes a float Gemm, and dequantizes."""
    text = """
        g (float[n,4] x) => (float[n,3] y)
        {
          q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  v = DequantizeLinear <axis=1> (w, t, u)
          m = MatMul(d, v)  y = Add(m, b)
        }
    """
    arrays = {"s": np.float32(0.05), "z": np.uint8(128), "w": np.int8(100 * normal(4, 3).clip(-1, 1)),
              "t": np.full(3, 0.01, np.float32), "u": np.zeros(3, np.int8), "b": normal(3)}  # fmt: skip
    assert "DequantizeLinear" in loaded(graph(text, **arrays), tmp_path)
    gemm = text.replace("m = MatMul(d, v)  y = Add(m, b)", "c = DequantizeLinear <axis=0> (i, k, o)  y = Gemm(d, v, c)")
    scale = arrays["s"] * arrays["t"]
    arrays |= {"i": np.int32(np.rint(arrays["b"] / scale)), "k": scale, "o": np.zeros(3, np.int32)}
    arrays.pop("b")
    assert loaded(graph(gemm, **arrays), tmp_path) == ["QuantizeLinear", "QGemm"]


def loaded(proto: onnx.ModelProto, folder) -> list[str]:
    """The operators that ONNX Runtime runs."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(folder / "loaded.onnx")
    options.log_severity_level = 3
    model = ir.from_proto(proto)
    ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"])
    return operators(onnx.load(folder / "loaded.onnx"))
