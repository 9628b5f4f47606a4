"""What goes beyond one plain format: two formats, exceptions, blocks and accumulators, in the plan, on disk and opened.

The opened variant, which runs in stages, is compared bit by bit with its portable graph in plain ONNX Runtime.
"""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx_models import weights_of
from quantization.small_reference import images, network, small_reference

from quantbench.errors import InputError
from quantbench.quantization import Conversion, LayerRule, Recipe, convert, open_variant
from quantbench.references import Reference

FEEDS = {"x": images()[:5]}


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return small_reference(tmp_path)


def made(reference: Reference, recipe: Recipe) -> Conversion:
    return convert(reference, recipe, out=reference.folder / "variants")


def portable(done: Conversion) -> np.ndarray:
    proto = onnx.load(done.path / "model.onnx")
    onnx.checker.check_model(proto, full_check=True)
    return np.asarray(ort.InferenceSession(proto.SerializeToString()).run(None, FEEDS)[0])


def plan_of(done: Conversion) -> dict:
    return json.loads((done.path / "plan.json").read_text(encoding="utf-8"))["graphs"]["model"]


RECIPES = {
    "two formats": Recipe("fp8_e4m3fn", activations="fp11"),
    "weights alone": Recipe("fp11", activations="fp32"),
    "activations alone": Recipe("fp11", weights="fp32"),
    "an exception": Recipe("fp8_e5m2", layers=(LayerRule("y", weights="fp16", activations="fp32"),)),
    "blocks": Recipe("mxfp4"),
    "two block formats": Recipe("mxfp8_e5m2", weights="mxfp4"),
    "blocks by plain activations": Recipe("mxint8", activations="fp16"),
    "a layer in blocks": Recipe("fp11", layers=(LayerRule("w3", weights="nvfp4", activations="mxfp6_e2m3"),)),
    "an accumulator": Recipe("fp16", accumulator="fp11", accumulator_chunk=4),
    "an accumulator alone": Recipe("fp11", "fp32", "fp32", accumulator="fp11"),
    "blocks and an accumulator": Recipe("mxfp8_e4m3", accumulator="e8m3", accumulator_chunk=32),
    "an accumulator a layer": Recipe("fp11", layers=(LayerRule("w[34]", accumulator="fp8_e5m2", accumulator_chunk=8),)),
    "a float layer among integers": Recipe(
        "int8", output_error=0.0, placement="everywhere", layers=(LayerRule("w3", "fp11", "fp11", accumulator="fp11"),)
    ),
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_opened_variant_is_the_portable_graph(recipe: Recipe, reference: Reference) -> None:
    done = made(reference, recipe)
    (got,) = open_variant(reference, recipe.dtype, done.path.parents[1]).run(FEEDS)
    want = portable(done)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    exact = np.asarray(ort.InferenceSession(network().SerializeToString()).run(None, FEEDS)[0])
    error = np.abs(want - exact).max() / np.abs(exact).max()
    assert 1e-4 < error < 0.7


def test_no_two_of_them_compute_the_same(reference: Reference) -> None:
    results = [portable(made(reference, recipe)).tobytes() for recipe in RECIPES.values()]
    assert len(set(results)) == len(RECIPES)


def test_the_plan_says_what_each_layer_accumulates_in(reference: Reference) -> None:
    rules = (LayerRule("w3", accumulator="fp32"), LayerRule("y", accumulator="bf16", accumulator_chunk=8))
    done = made(reference, Recipe("fp16", accumulator="fp11", accumulator_chunk=4, layers=rules))
    plan = plan_of(done)
    assert plan["accumulators"] == {"c1": ["fp11", 4], "c2": ["fp11", 4], "y": ["bfloat16", 8]}
    domains = {(node.domain, node.op_type) for node in onnx.load(done.path / "model.onnx").graph.node}
    assert {name for domain, name in domains if domain == "quantbench.accumulation"} == {"fp11", "bfloat16"}
    assert "accumulators" not in plan_of(made(reference, Recipe("fp16")))


def test_integer_layers_keep_their_exact_sums(reference: Reference) -> None:
    plan = plan_of(made(reference, RECIPES["a float layer among integers"]))
    assert plan["accumulators"] == {"c3": ["fp11", 16]} and {"c1", "c2", "y"} <= set(plan["integer_nodes"])


def test_the_last_layer_by_hand(reference: Reference) -> None:
    """The Gemm alone, in bfloat16 sums of 5 products at a time, on inputs that nothing else rounds."""
    rule = LayerRule("w4", accumulator="bf16", accumulator_chunk=5)
    done = made(reference, Recipe("fp11", "fp32", "fp32", layers=(rule,)))
    proto = network()
    proto.graph.output.append(onnx.ValueInfoProto(name="f"))
    (f,) = ort.InferenceSession(proto.SerializeToString()).run(["f"], FEEDS)
    weight, bias = weights_of(proto)["w4"], weights_of(proto)["b4"]
    accumulator = np.zeros((len(f), len(weight)), np.float32)
    for start in range(0, 16, 5):
        partial = f[:, start : start + 5] @ weight[:, start : start + 5].T
        accumulator = (accumulator + partial).astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_allclose(portable(done), accumulator + bias, rtol=0.01, atol=1e-6)
    assert (portable(done) - bias == accumulator).mean() > 0.5  # but where the order within a chunk decides a rounding


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"dtype": "fp16", "accumulator": "int8"}, "nothing accumulates in int8"),
        ({"dtype": "fp16", "accumulator": "mxfp4"}, "nothing accumulates in mxfp4"),
        ({"dtype": "fp16", "accumulator": "fp61"}, "unknown number format 'fp61'"),
        ({"dtype": "fp16", "accumulator_chunk": 0}, "accumulator_chunk must be at least 1, not 0"),
        ({"dtype": "fp16", "layers": (LayerRule("y", accumulator_chunk=0),)}, "accumulator_chunk must be at least 1"),
        ({"dtype": "int8", "accumulator": "fp16"}, "products with uint8 are added up in INT32"),
        ({"dtype": "fp32", "accumulator": "fp16"}, "a variant named fp32 would stand for the reference itself"),
        ({"dtype": "fp32", "weights": "fp11"}, "a variant named fp32 would stand for the reference itself"),
    ],
)
def test_mistakes_are_told_in_one_sentence(options: dict, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        Recipe(**options)
    assert "\n" not in str(caught.value)
