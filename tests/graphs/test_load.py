"""Checking and preparing graphs: what is refused, and that what is prepared computes what it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper, numpy_helper
from onnx_models import HEADER, graph, normal, operators, run, weights_of

from quantbench.errors import InputError
from quantbench.graphs.load import OPSET, check, load_graphs, prepare
from quantbench.references import load_reference

DATA = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCE = """\
name = "tiny"
task = "image-classification"
[model]
path = "tiny.onnx"
{}
[dataset]
kind = "npz"
path = "tiny.npz"
[calibration]
samples = 1
[quality]
metric = "top1"
target_ratio = 0.9
"""


def old_network() -> onnx.ModelProto:
    """Opset 11, with what its exporters wrote: weights among the inputs, batch norm, hard-swish, Softmax."""
    proto = onnx.parser.parse_model(
        HEADER.replace("21", "11")
        + """
        g (float[n,3,8,8] x, float[16,3,3,3] w1) => (float[n,5] y)
        <int64[2] flat = {0, -1}>
        {
          three = Constant <value_float = 3.0> ()  zero = Constant <value_float = 0.0> ()
          six = Constant <value_float = 6.0> ()
          c = Conv <pads=[1,1,1,1], strides=[2,2]> (x, w1)
          n1 = BatchNormalization (c, gamma, beta, mean, var)
          a = Add(n1, three)  h = Clip(a, zero, six)  m = Mul(n1, h)  s = Div(m, six)
          d = Conv <group=16, pads=[1,1,1,1]> (s, w2)  e = Mul(d, scale)  r = Relu(e)
          p = GlobalAveragePool(r)  f = Reshape(p, flat)
          z = Gemm <transB=1> (f, w3, b3)  y = Softmax <axis=1> (z)
        }
        """
    )
    weights = {
        "w1": normal(16, 3, 3, 3), "gamma": normal(16, seed=1), "beta": normal(16, seed=2), "mean": normal(16, seed=3),
        "var": np.abs(normal(16, seed=4)) + 0.1, "w2": normal(16, 1, 3, 3, seed=5), "scale": normal(16, 1, 1, seed=6),
        "w3": normal(5, 16, seed=7), "b3": normal(5, seed=8),
    }  # fmt: skip
    proto.graph.initializer.extend(numpy_helper.from_array(values, name) for name, values in weights.items())
    # value_float came with opset 12
    for node in proto.graph.node[:3]:
        value = numpy_helper.from_array(np.float32(node.attribute[0].f))
        node.CopyFrom(helper.make_node("Constant", [], node.output, value=value))
    return proto


def test_an_old_network_is_raised_and_folded_and_computes_the_same():
    before = old_network()
    check(before, "it")
    after = ir.to_proto(prepare(before))
    onnx.checker.check_model(after)
    assert {entry.domain: entry.version for entry in after.opset_import}[""] == OPSET == 21
    assert operators(after)[:5] == ["Conv", "HardSwish", "Conv", "Relu", "GlobalAveragePool"]
    assert operators(after)[-2:] == ["Gemm", "Softmax"]
    assert [value.name for value in after.graph.input] == ["x"]
    assert all(len(node.input) == 3 for node in after.graph.node if node.op_type in ("Conv", "Gemm"))
    x = normal(4, 3, 8, 8, seed=10)
    np.testing.assert_allclose(run(after, {"x": x})[0], run(before, {"x": x})[0], atol=1e-6)


def test_preparing_twice_gives_the_same_bytes():
    first, second = (ir.to_proto(prepare(old_network())).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_preparing_what_is_prepared_changes_nothing():
    once = prepare(old_network())
    again = prepare(ir.to_proto(once))
    assert operators(ir.to_proto(again)) == operators(ir.to_proto(once))
    before, after = weights_of(ir.to_proto(once)), weights_of(ir.to_proto(again))
    assert before.keys() == after.keys() and all((before[name] == after[name]).all() for name in before)


def test_the_given_model_is_left_as_it_is():
    model = graph("g (float[n,3] x) => (float[n,3] y) { i = Identity(x)  y = Relu(i) }")
    model.ir_version = 8
    before = model.SerializeToString()
    assert prepare(model).ir_version == 10
    assert model.SerializeToString() == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("constant", [False, True])
def test_a_weight_that_is_no_number_is_refused_by_name(value: float, constant: bool):
    weight = normal(3, 2)
    weight[1, 1] = value
    if constant:
        model = graph("g (float[n,3] x) => (float[n,2] y) { y = MatMul(x, w) }", w=normal(3, 2))
        del model.graph.initializer[:]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weight, "w")))
    else:
        model = graph("g (float[n,3] x) => (float[n,2] y) { y = MatMul(x, w) }", w=weight)
    with pytest.raises(InputError, match="the model: weight w holds NaN or infinity"):
        check(model, "the model")


def test_an_unknown_domain_is_refused_by_name():
    header = '<ir_version: 10, opset_import: ["" : 21, "acme" : 1]>'
    model = onnx.parser.parse_model(header + "g (float[n] x) => (float[n] y) { y = acme.Frobnicate(x) }")
    with pytest.raises(InputError, match=r"the model uses operator acme\.Frobnicate"):
        check(model, "the model")


def test_domains_that_onnx_runtime_knows_and_local_functions_are_fine():
    check(
        onnx.parser.parse_model(
            """
            <ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1, "local" : 1]>
            g (float[n] x) => (float[n] y) { t = com.microsoft.Gelu(x)  y = local.twice(t) }
            <domain: "local", opset_import: ["" : 21]> twice (x) => (y) { y = Add(x, x) }
            """
        ),
        "it",
    )


@pytest.mark.parametrize("broken", ["no such input", "no such operator", "wrong attribute", "wrong order"])
def test_invalid_onnx_is_refused_in_one_line(broken: str):
    model = graph("g (float[n,3] x) => (float[n,2] y) { t = Relu(x)  y = MatMul(t, w) }", w=normal(3, 2))
    if broken == "no such input":
        model.graph.node[0].input[0] = "missing"
    elif broken == "no such operator":
        model.graph.node[0].op_type = "Frobnicate"
    elif broken == "wrong attribute":
        model.graph.node[0].attribute.append(helper.make_attribute("alpha", 1.0))
    else:
        model.graph.node.sort(key=lambda node: node.op_type)
    with pytest.raises(InputError, match="the model is not valid ONNX: ") as caught:
        check(model, "the model")
    assert "\n" not in str(caught.value)


def saved(folder: Path, model: onnx.ModelProto, output: str = "") -> Path:
    onnx.save(model, folder / "tiny.onnx")
    (folder / "tiny.toml").write_text(REFERENCE.format(output), encoding="utf-8")
    return folder / "tiny.toml"


def test_the_graphs_of_a_reference(tmp_path: Path):
    text = "g (float[n,3] x) => (float[n,3] a, float[n,3] y) { a = Relu(x)  y = Neg(a) }"
    path = saved(tmp_path, graph(text), 'output = "y"')
    models = load_graphs(load_reference(str(path)))
    assert list(models) == ["model"] and [value.name for value in models["model"].graph.outputs] == ["a", "y"]


def test_an_output_that_the_graph_does_not_have(tmp_path: Path):
    path = saved(tmp_path, graph("g (float[n,3] x) => (float[n,3] y) { y = Neg(x) }"), 'output = "logits"')
    with pytest.raises(InputError, match=r"tiny: \[model\] output 'logits' is not in the graph; it has y"):
        load_graphs(load_reference(str(path)))


@pytest.mark.skipif(not DATA.exists(), reason="shared/data with EfficientNet-Lite0 is not here")
def test_a_real_network():
    before = onnx.load(DATA / "efficientnet_lite0.onnx")
    after = ir.to_proto(prepare(before))
    assert not {"BatchNormalization", "Mul", "Identity", "Constant"} & set(operators(after))
    names = [value.name for value in before.graph.input]
    shape = [size.dim_value or 1 for size in before.graph.input[0].type.tensor_type.shape.dim]
    feeds = {names[0]: normal(*shape)}
    np.testing.assert_allclose(run(after, feeds)[0], run(before, feeds)[0], rtol=1e-4, atol=1e-5)


def test_nothing_of_the_protobuf_is_left():
    """One tensor that still lay in it would keep all its memory: 100 MB for the attribute of a ConstantOfShape."""
    proto = graph(
        """
        g (float[n,4] x) => (float[n,3] y)
        { s = Shape(x)  z = ConstantOfShape <value = float {2}> (s)  a = Add(x, z)  y = MatMul(a, w) }
        """,
        w=normal(4, 3),
    )  # fmt: skip
    prepared = prepare(proto)
    tensors = [value.const_value for value in prepared.graph.initializers.values()]
    tensors += [
        attribute.as_tensor()
        for node in prepared.graph
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.TENSOR
    ]
    assert len(tensors) >= 2 and all(type(tensor) is ir.Tensor for tensor in tensors)
