"""Staged runs against the portable graph, tensor by tensor and bit by bit, and against plain ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from graphs.emulated_graphs import written_rounded

from quantbench.errors import InputError
from quantbench.graphs import staging
from quantbench.graphs.load import prepare
from quantbench.graphs.rounding_functions import strip_rounding
from quantbench.graphs.rounding_points import float_weights, rounding_points
from quantbench.graphs.stages import cut
from quantbench.graphs.staging import StagedExecutor, StagedSession, Tap, rounding_taps
from quantbench.numerics import get_format, round_inplace

DATA = Path(__file__).parents[2].parent / "shared" / "data"
HEADER = '<ir_version: 10, opset_import: ["" : 21]>'


def graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(f"{HEADER}\n{text}")))


def with_weights(text: str, **shapes: tuple[int, ...]) -> ir.Model:
    """The graph with seeded normal weights of these shapes as initializers."""
    proto = onnx.parser.parse_model(f"{HEADER}\n{text}")
    generator = np.random.default_rng(5)
    for name, shape in shapes.items():
        values = generator.normal(0, 0.4, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))


def network() -> ir.Model:
    """A residual convolution network: padded channels (20), squeeze and excite, hard-swish, two resolutions."""
    return with_weights(
        """
        g (float[n,3,h,w] x) => (float[n,7] y)
        <float lo = {0.0}, float hi = {6.0}, float[4] twice = {1.0, 1.0, 2.0, 2.0}>
        {
          c1 = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w1, b1)   r1 = Clip(c1, lo, hi)
          c2 = Conv <pads=[1,1,1,1], group=20> (r1, w2)           r2 = HardSwish(c2)
          p = GlobalAveragePool(r2)  s1 = Conv(p, ws1)  s2 = Relu(s1)  s3 = Conv(s2, ws2)  s4 = HardSigmoid(s3)
          r3 = Mul(r2, s4)
          c3 = Conv(r3, w3)          a = Add(c3, r1)
          m = MaxPool <kernel_shape=[2,2], strides=[2,2]> (a)     c4 = Conv(m, w4)
          u = Resize <mode="nearest"> (c4, , twice)
          k = Concat <axis=1> (a, u)  c5 = Conv(k, w5)            e = Sigmoid(c5)
          g2 = GlobalAveragePool(e)  f = Flatten(g2)              y = Gemm(f, w6, b6)
        }
        """,
        w1=(20, 3, 3, 3), b1=(20,), w2=(20, 1, 3, 3), ws1=(8, 20, 1, 1), ws2=(20, 8, 1, 1), w3=(20, 20, 1, 1),
        w4=(20, 20, 1, 1), w5=(24, 40, 1, 1), w6=(24, 7), b6=(7,),
    )  # fmt: skip


def attention() -> ir.Model:
    """Query scaled before the product: ONNX Runtime fuses the scale into the MatMul behind it."""
    return with_weights(
        """
        g (float[n,t,8] x) => (float[n,t,8] y) <float scale = {0.3535}>
        {
          q0 = MatMul(x, wq)  q = Mul(q0, scale)  k = MatMul(x, wk)  v = MatMul(x, wv)
          kt = Transpose <perm=[0,2,1]> (k)  s = MatMul(q, kt)  a = Softmax(s)  z = MatMul(a, v)
          y = LayerNormalization(z, gamma)
        }
        """,
        wq=(8, 8), wk=(8, 8), wv=(8, 8), gamma=(8,),
    )  # fmt: skip


def portable_and_staged(source: ir.Model, name: str, layout: str, feeds: dict[str, np.ndarray]) -> None:
    """Compare every rounding point, and the outputs, of the two ways to run the graph in a format."""
    fmt = get_format(name)
    points = rounding_points(source)
    written = written_rounded(source, dict.fromkeys([*points, *float_weights(source)], fmt))
    proto = onnx.ModelProto.FromString(ir.to_proto(written).SerializeToString())
    stripped = ir.from_proto(proto)
    formats = strip_rounding(stripped)
    assert sorted(formats) == sorted(points)

    seen: dict[str, np.ndarray] = {}

    def rounding_and_noting(point: str) -> Callable[[np.ndarray], None]:
        def visit(values: np.ndarray) -> None:
            round_inplace(values, fmt)
            seen[point] = values.copy()

        return visit

    taps = {point: Tap(rounding_and_noting(point), layout) for point in points}  # type: ignore[arg-type]
    outputs = StagedSession(stripped, taps).run(feeds)

    default = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for got, want in zip(outputs, default.run(None, feeds), strict=True):
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    if layout != "plain":
        return
    inputs = {value.name for value in proto.graph.input}
    names = [f"{point}/rounded" if point in inputs else point for point in points]
    present = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    for point, want in zip(points, session.run(names, feeds), strict=True):
        np.testing.assert_array_equal(seen[point].view(np.uint32), want.view(np.uint32), err_msg=point)


@pytest.mark.parametrize("layout", ["any", "plain"])
@pytest.mark.parametrize("name", ["fp11", "fp16", "fp8_e4m3fn"])
@pytest.mark.parametrize(("batch", "size"), [(1, 16), (3, 24)])
def test_convolutions_equal_the_portable_graph(name: str, layout: str, batch: int, size: int) -> None:
    x = np.random.default_rng(3).normal(0, 1, (batch, 3, size, size)).astype(np.float32)
    portable_and_staged(network(), name, layout, {"x": x})


@pytest.mark.parametrize("layout", ["any", "plain"])
def test_attention_equals_the_portable_graph(layout: str) -> None:
    x = np.random.default_rng(3).normal(0, 1, (2, 5, 8)).astype(np.float32)
    portable_and_staged(attention(), "fp11", layout, {"x": x})


def test_no_fusion_reads_past_a_tap() -> None:
    x = np.random.default_rng(3).normal(0, 1, (1, 4, 8)).astype(np.float32)

    def zero(values: np.ndarray) -> None:
        values[...] = 0

    (untouched,) = StagedSession(attention(), {}).run({"x": x})
    taps = {"q0": Tap(lambda values: None), "q": Tap(zero)}
    (got,) = StagedSession(attention(), taps).run({"x": x})
    # a query of zeros weighs all rows alike, so that all rows of the result are the same
    assert np.ptp(got, axis=1).max() < 1e-4 < np.ptp(untouched, axis=1).max()


@pytest.mark.parametrize("source", [network, attention])
def test_without_rounding_it_is_the_plain_session(source: Callable[[], ir.Model]) -> None:
    shape = (2, 3, 16, 16) if source is network else (2, 6, 8)
    x = np.random.default_rng(4).normal(0, 1, shape).astype(np.float32)
    model = source()
    proto = ir.to_proto(model).SerializeToString()
    (want,) = ort.InferenceSession(proto, providers=["CPUExecutionProvider"]).run(None, {"x": x})
    taps = {name: Tap(lambda values: None) for name in rounding_points(model)}
    for session in (StagedSession(model, {}), StagedSession(model, taps)):
        (got,) = session.run({"x": x})
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    assert StagedSession(model, {}).stages == 1


def test_values_are_exactly_the_tensor_without_padding() -> None:
    model = network()
    x = np.random.default_rng(6).normal(0, 1, (2, 3, 16, 16)).astype(np.float32)
    seen: dict[tuple[str, str], np.ndarray] = {}

    def note(name: str, layout: str) -> Callable[[np.ndarray], None]:
        return lambda values: seen.update({(name, layout): values.copy()})

    points = rounding_points(model)
    for layout in ("values", "plain"):
        StagedSession(model, {name: Tap(note(name, layout), layout) for name in points}).run({"x": x})  # type: ignore[arg-type]
    for name in points:
        plain = seen[name, "plain"]
        np.testing.assert_array_equal(np.sort(seen[name, "values"], axis=None), np.sort(plain, axis=None))
    assert seen["r1", "plain"].shape == (2, 20, 8, 8)


def test_callers_arrays_are_left_alone_and_outputs_are_their_own() -> None:
    model = graph("g (float[n] x) => (float[n] y) { y = Exp(x) }")
    session = StagedSession(model, rounding_taps(dict.fromkeys(("x", "y"), get_format("fp11"))))
    x = np.linspace(0, 1, 50, dtype=np.float32)
    before = x.copy()
    (first,) = session.run({"x": x})
    kept = first.copy()
    session.run({"x": x + 1})
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, kept)
    x.flags.writeable = False
    session.run({"x": x[::2]})  # read-only, not contiguous


def test_branches_share_stages_and_everything_is_released() -> None:
    model = graph(
        """
        g (float[n] x) => (float[n] y)
        { a1 = Exp(x)  a2 = Sin(a1)  b1 = Cos(x)  b2 = Tanh(b1)  c = Abs(x)  s = Add(a2, b2)  y = Add(s, c) }
        """
    )
    pieces = cut(model, dict.fromkeys(["x", "a1", "a2", "b1", "b2", "c", "s", "y"], "any"))
    assert len(pieces.stages) == 4  # the longest chain: a1 a2 s y
    released = [name for stage in pieces.stages for name in stage.released]
    assert sorted(released) == ["a1", "a2", "b1", "b2", "c", "s", "x"]


def test_several_graphs_integer_inputs_and_threads() -> None:
    first = graph(
        """
        g (uint8[n,h,w,3] x) => (float[n,3] y, int64[n,1] i)
        { f = Cast <to=1> (x)  t = Transpose <perm=[0,3,1,2]> (f)  p = GlobalAveragePool(t)
          y = Flatten(p)  i = ArgMax <axis=1> (y) }
        """
    )
    second = graph(
        "g (float[n,3] s, int64[n,1] i) => (float[n,1] y) { p = GatherElements <axis=1> (s, i)  y = Neg(p) }"
    )
    fp11 = get_format("fp11")
    executor = StagedExecutor(
        {"encoder": first, "decoder": second},
        {"encoder": rounding_taps(dict.fromkeys(rounding_points(first), fp11))},
        threads=1,
    )
    assert executor.execution == "emulated"
    assert [(spec.name, spec.dtype, spec.shape) for spec in executor.inputs("encoder")] == [
        ("x", "uint8", (None, None, None, 3))
    ]
    assert [spec.name for spec in executor.outputs("encoder")] == ["y", "i"]

    def once(seed: int) -> None:
        x = np.random.default_rng(seed).integers(0, 256, (2, 4, 5, 3)).astype(np.uint8)
        y, i = executor.run({"x": x}, "encoder")
        rounded = x.astype(np.float32)
        round_inplace(rounded, fp11)
        want = rounded.mean(axis=(1, 2), dtype=np.float32)
        round_inplace(want, fp11)
        np.testing.assert_array_equal(y, want)
        np.testing.assert_array_equal(i[:, 0], want.argmax(axis=1))
        (best,) = executor.run({"s": y, "i": i}, "decoder")
        np.testing.assert_array_equal(best[:, 0], -want.max(axis=1))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(once, range(40)))


def test_bodies_read_touched_tensors() -> None:
    model = graph(
        """
        g (float[2] x, bool c) => (float[2] y)
        {
          a = Exp(x)
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(a) },
                     else_branch = e () => (float[2] q) { q = Cos(a) }>
        }
        """
    )

    def set_to_two(values: np.ndarray) -> None:
        values[...] = 2

    session = StagedSession(model, {"a": Tap(set_to_two)})
    (y,) = session.run({"x": np.zeros(2, np.float32), "c": np.array(True)})
    np.testing.assert_array_equal(y, np.float32([-2, -2]))


@pytest.mark.parametrize("size", [16, 64])  # in the file format, and past it
def test_weight_shared_by_stages_and_constant_output(size: int) -> None:
    model = with_weights(
        f"""
        g (float[n,{size}] x) => (float[n,{size}] y, float[{size},{size}] w)
        {{ a = MatMul(x, w)  b = Tanh(a)  c = MatMul(b, w)  y = Tanh(c) }}
        """,
        w=(size, size),
    )
    x = np.random.default_rng(8).normal(0, 1, (3, size)).astype(np.float32)
    taps = {name: Tap(lambda values: None) for name in ("a", "b", "c")}
    y, w = StagedSession(model, taps).run({"x": x})
    np.testing.assert_allclose(y, np.tanh(np.tanh(x @ w) @ w), rtol=1e-4, atol=1e-5)
    assert set(cut(model, dict.fromkeys(taps, "any")).weights) == ({"w"} if size == 64 else set())


def test_large_constants_of_other_types_and_in_bodies() -> None:
    numbers = ", ".join(f"{number}.5" for number in range(2048))
    proto = onnx.parser.parse_model(
        f"""{HEADER}
        g (int64[n] i, bool c, float[2048] x) => (float[2048] y, int64[n] j)
        {{
            j = Gather(order, i)
            a = Neg(x)
            z = If (c) <
                then_branch = t () => (float[2048] u) {{
                    inside = Constant <value = float[2048] {{{numbers}}}> ()
                    u = Add(a, inside)
                }},
                else_branch = e () => (float[2048] u) {{ v = Cast <to=1> (half)  u = Mul(a, v) }}
            >
            y = Abs(z)
        }}"""
    )
    order, half = np.arange(2048)[::-1].copy(), np.linspace(0, 1, 2048).astype(np.float16)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(order, "order"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(half, "half"))
    session = StagedSession(ir.from_proto(onnx.shape_inference.infer_shapes(proto)), {"a": Tap(lambda values: None)})
    x = np.ones(2048, np.float32)
    for chosen, wanted in ((True, np.arange(2048) - 0.5), (False, half.astype(np.float32))):
        y, j = session.run({"x": x, "c": np.array(chosen), "i": np.array([0, 5])})
        np.testing.assert_array_equal(y, np.abs(wanted).astype(np.float32))
        np.testing.assert_array_equal(j, [2047, 2042])


def test_what_is_wrong_is_named() -> None:
    model = graph("g (float[n] x) => (float[n] y) { y = Exp(x) }")
    with pytest.raises(InputError, match="'nosuch'"):
        StagedSession(model, {"nosuch": Tap(lambda values: None)})
    with pytest.raises(InputError, match="'x' is not fed"):
        StagedSession(model, {}).run({"z": np.zeros(1, np.float32)})


@pytest.mark.skipif(not DATA.exists(), reason="needs ../shared/data with EfficientNet-Lite0")
def test_every_tensor_of_efficientnet_equals_the_portable_graph() -> None:
    source = prepare(onnx.load(DATA / "efficientnet_lite0.onnx"))
    x = np.random.default_rng(9).normal(0, 1, (2, 3, 224, 224)).astype(np.float32)
    portable_and_staged(source, "fp11", "plain", {source.graph.inputs[0].name: x})


def test_scalars_and_empty_tensors() -> None:
    model = graph("g (float x, float[n] v) => (float y, float[n] z) { a = Exp(x)  y = Mul(a, a)  z = Mul(v, a) }")
    fp11 = get_format("fp11")
    session = StagedSession(model, rounding_taps(dict.fromkeys(rounding_points(model), fp11)))
    y, z = session.run({"x": np.array(0.7, np.float32), "v": np.zeros(0, np.float32)})
    want = np.array([0.7], np.float32)
    round_inplace(want, fp11)
    want = np.exp(want)
    round_inplace(want, fp11)
    want *= want
    round_inplace(want, fp11)
    assert y.shape == () and y == want[0]
    assert z.shape == (0,)


@pytest.mark.parametrize(("long_stage", "calls"), [(0.0, 2), (10.0, 1)])
def test_short_stages_are_called_one_at_a_time_with_all_threads(
    long_stage: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "_LONG_STAGE", long_stage)
    opened: list[int | None] = []
    options = staging._options
    monkeypatch.setattr(staging, "_options", lambda threads: (opened.append(threads), options(threads))[1])
    model = graph("g (float[n] x) => (float[n] y) { a = Exp(x)  y = Tanh(a) }")
    executor = StagedExecutor({"model": model}, {"model": rounding_taps({"a": get_format("fp11")})}, 1, 2)
    x = {"x": np.float32([-1, 0.3])}
    (first,) = executor.run(x)
    assert [executor.calls_at_once() for _ in range(2)] == [calls, calls]
    np.testing.assert_array_equal(executor.run(x)[0], first)
    assert opened == ([1, 1] if calls == 2 else [1, 1, 2, 2])
