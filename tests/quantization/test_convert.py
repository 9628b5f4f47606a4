"""Whole conversions of a small network: what is written, what is counted, when it is made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx_models import normal, operators, run, weights_of
from small_reference import SAMPLES, images, network, small_reference

from quantbench.calibration import Histogram
from quantbench.errors import InputError, MissingError
from quantbench.quantization import Conversion, LayerRule, Recipe, convert, load_variant, open_variant, planning
from quantbench.references import Reference
from quantbench.support import sha256_file, sha256_lines

WEIGHTS, BIASES = 432 + 144 + 256 + 80, 16 + 16 + 16 + 5
Make = Callable[..., Conversion]


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return small_reference(tmp_path)


@pytest.fixture
def make(reference: Reference, tmp_path: Path) -> Make:
    """Convert with a recipe given as keywords."""

    def convert_with(dtype: str = "int8", force: bool = False, out: str = "variants", **options: object) -> Conversion:
        return convert(reference, Recipe(dtype, **options), out=tmp_path / out, force=force)  # type: ignore[arg-type]

    return convert_with


def model_of(conversion: Conversion) -> onnx.ModelProto:
    model = onnx.load(conversion.path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    return model


def plan_of(conversion: Conversion) -> dict:
    return json.loads((conversion.path / "plan.json").read_text(encoding="utf-8"))


def relative_error(conversion: Conversion) -> float:
    """Root mean square error of the written graph's outputs, over their deviation, on the calibration samples."""
    feeds = {"x": images()[:SAMPLES]}
    exact, got = run(network(), feeds)[0], run(model_of(conversion), feeds)[0]
    return float(np.sqrt(np.square(got - exact).mean()) / exact.std())


def test_the_same_bytes_twice(make: Make):
    first, second = make(out="one"), make(out="two")
    files = sorted(path.name for path in first.path.iterdir())
    assert files == ["model.onnx", "plan.json", "variant.json"]
    assert [sha256_file(first.path / name) for name in files] == [sha256_file(second.path / name) for name in files]
    assert make(out="one", force=True).kept is False
    assert [sha256_file(first.path / name) for name in files] == [sha256_file(second.path / name) for name in files]


def test_the_document_says_what_was_done(make: Make, reference: Reference):
    done = make(calibrator="percentile", calibration_samples=10)
    document = done.document()
    assert (document["reference"], document["dtype"], document["path"]) == ("small", "int8", str(done.path))
    assert document["weight_elements"] == {"fp32": 2, "int32": BIASES, "int8": WEIGHTS}
    assert document["model_bytes"] == (done.path / "model.onnx").stat().st_size
    assert document["reference_bytes"] == (reference.folder / "small.onnx").stat().st_size
    calibration = document["calibration"]
    assert (calibration["samples"], calibration["calibrator"]) == (10, "percentile")
    manifest = json.loads((done.path / "variant.json").read_text(encoding="utf-8"))
    assert manifest["files"]["model.onnx"] == sha256_file(done.path / "model.onnx")
    assert manifest["calibration"]["list_sha256"] == calibration["list_sha256"]
    json.dumps(document)


def test_an_up_to_date_variant_is_kept(make: Make):
    before = make().path.stat().st_ino
    again = make()
    assert again.kept and again.path.stat().st_ino == before
    assert not make(force=True).kept


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1},
        {"calibrator": "minmax"},
        {"calibration_samples": 5},
        {"granularity": "tensor"},
        {"bias_correction": False},
        {"layers": (LayerRule("y", weights="int16"),)},
    ],
)
def test_another_recipe_is_made_anew(change: dict, make: Make):
    make()
    assert not make(**change).kept and make(**change).kept
    assert not make().kept


def test_another_model_is_made_anew(make: Make, reference: Reference):
    make()
    model = network()
    (weight,) = (each for each in model.graph.initializer if each.name == "w1")
    weight.CopyFrom(onnx.numpy_helper.from_array(normal(16, 3, 3, 3, seed=99), "w1"))
    onnx.save(model, reference.folder / "small.onnx")
    assert not make().kept and make().kept


def test_other_data_under_the_same_names_is_made_anew(make: Make, reference: Reference):
    make()
    with np.load(reference.folder / "small.npz") as arrays:
        x, y = arrays["x"], arrays["y"]
    x[3, 0, 0, 0] += 1
    np.savez(reference.folder / "small.npz", x=x, y=y)
    assert not make().kept and make().kept


@pytest.mark.parametrize("damage", ["change", "remove"])
@pytest.mark.parametrize("name", ["model.onnx", "plan.json"])
def test_a_damaged_variant_is_refused_and_made_anew(name: str, damage: str, make: Make, reference: Reference):
    path = make().path / name
    path.unlink() if damage == "remove" else path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match=f"{name} is missing or was changed"):
        load_variant(path.parents[2], reference, "int8")
    assert not make().kept and make().kept


def test_no_variant_tells_how_to_make_one(reference: Reference, tmp_path: Path):
    with pytest.raises(MissingError, match=r"quantbench convert .*small\.toml --dtype int8 --out "):
        open_variant(reference, "int8", tmp_path / "variants")


@pytest.mark.parametrize(
    ("dtype", "options", "limit"),
    [
        ("int8", {}, 0.05),
        ("uint8", {}, 0.05),
        ("int8", {"granularity": "tensor"}, 0.08),
        ("int8", {"granularity": "block:8"}, 0.05),
        ("int4", {}, 0.4),
        ("int4", {"granularity": "block:4"}, 0.4),
        ("int16", {}, 1e-3),
        ("int8", {"activations": "fp16"}, 0.03),
        ("int8", {"activations": "fp32"}, 0.03),
        ("int16", {"activations": "fp32"}, 1e-4),
        ("fp16", {}, 5e-3),
        ("bfloat16", {}, 5e-2),
        ("fp11", {}, 0.1),
    ],
)
def test_every_dtype_is_near_the_reference_but_not_equal(dtype: str, options: dict, limit: float, make: Make):
    done = make(dtype, calibrator="minmax", output_error=0.0, **options)
    assert limit / 1000 < relative_error(done) < limit
    wanted = WEIGHTS if dtype.startswith(("int", "uint")) else WEIGHTS + BIASES
    bounds = 16 if options.get("granularity") == "tensor" else 2  # of the Clip: per channel once they are equalized
    assert done.weight_elements[dtype] >= wanted and sum(done.weight_elements.values()) == WEIGHTS + BIASES + bounds


@pytest.mark.parametrize(
    ("granularity", "shapes"),
    [
        ("tensor", [(), (), (), ()]),
        ("channel", [(16,), (16,), (16,), (5,)]),
        ("block:8", [(16, 1, 3, 3), (16,), (16, 2, 1, 1), (5, 2)]),
    ],
)
def test_granularities(granularity: str, shapes: list[tuple[int, ...]], make: Make):
    """A depthwise weight has nothing to divide into blocks: one input channel."""
    weights = weights_of(model_of(make(granularity=granularity, output_error=0.0)))
    assert [weights[f"w{index}_scale"].shape for index in (1, 2, 3, 4)] == shapes
    assert all(weights[f"w{index}"].dtype == np.int8 for index in (1, 2, 3, 4))


def test_scales_and_codes_follow_from_the_weights(make: Make):
    """Round to nearest with max|w|/127 per channel, written out with numpy."""
    weights = weights_of(model_of(make()))
    for name in ("w1", "w3", "w4"):
        exact = weights_of(network())[name].astype(np.float64)
        scale = np.abs(exact).reshape(len(exact), -1).max(1) / 127
        np.testing.assert_allclose(weights[f"{name}_scale"], scale, rtol=1e-6)
        codes = exact / scale.reshape(-1, *[1] * (exact.ndim - 1))
        assert np.abs(weights[name] - codes).max() <= 0.5001


def test_four_bits_take_half_a_byte(make: Make):
    (tensor,) = (each for each in model_of(make("int4")).graph.initializer if each.name == "w3")
    assert tensor.data_type == onnx.TensorProto.INT4 and len(tensor.raw_data) == 128
    assert onnx.numpy_helper.to_array(tensor).dtype == ml_dtypes.int4


def test_layer_rules(make: Make):
    rules = (LayerRule("w1", weights="int16"), LayerRule("y", weights="fp16", activations="fp32"))
    done = make(layers=rules, output_error=0.0)
    weights = weights_of(model_of(done))
    assert weights["w1"].dtype == np.int16 and weights["w3"].dtype == np.int8
    assert done.weight_elements["int16"] == 432 and done.weight_elements["fp16"] == 80
    plan = plan_of(done)["graphs"]["model"]
    assert "y" not in plan["integer_nodes"] and plan["tensors"]["w4"]["format"] == "fp16"


def test_a_rule_that_matches_nothing_is_a_mistake(make: Make, tmp_path: Path):
    with pytest.raises(InputError, match="layer pattern 'conv9' matches no node and no weight"):
        make(layers=(LayerRule("conv9", weights="int4"),))
    assert not (tmp_path / "variants").exists() or not list((tmp_path / "variants").rglob("*.onnx"))


def test_more_calibration_samples_than_there_are(make: Make):
    with pytest.raises(InputError, match="--calibration-samples asks for 25, but the reference has 24"):
        make(calibration_samples=25)


def test_floats_need_no_calibration(make: Make):
    calibration = make("fp16").calibration
    assert (calibration.samples, calibration.calibrator, calibration.list_sha256) == (0, "none", sha256_lines([]))


def test_a_failed_conversion_leaves_what_stood_there(make: Make, monkeypatch: pytest.MonkeyPatch):
    path = make().path
    before = {file.name: file.read_bytes() for file in path.iterdir()}

    def broken(*arguments: object) -> None:
        raise InputError("no")

    monkeypatch.setattr("quantbench.quantization.plan.Plan.to_json", broken)
    with pytest.raises(InputError, match="no"):
        make(force=True)
    assert {file.name: file.read_bytes() for file in path.iterdir()} == before
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_plan_is_small_readable_and_complete(make: Make):
    done = make(output_error=0.0)
    plan, weights = plan_of(done), weights_of(model_of(done))
    text = (done.path / "plan.json").read_text(encoding="utf-8")
    assert plan["recipe"] == {"dtype": "int8", "output_error": 0.0} and len(text) < 5000
    tensors = plan["graphs"]["model"]["tensors"]
    assert {name: each["format"] for name, each in tensors.items() if each["role"] == "bias"} == dict.fromkeys(
        ["b1", "b2", "b3", "b4"], "int32"
    )
    activations = {name: each for name, each in tensors.items() if each["role"] == "activation"}
    assert {"x", "r1", "r2", "c3", "s"} <= set(activations)
    for name, each in activations.items():
        assert weights[f"{name}_scale"] == np.float32(each["scale"])
        assert weights[f"{name}_zero_point"] == each["zero_point"]
        assert text.count(f'"{name}": ') == 1, "one line a tensor"
    assert activations["r1"]["range"][0] == 0 and activations["r1"]["range"][1] <= 6


@pytest.mark.parametrize("activations", [None, "fp32"])
@pytest.mark.parametrize(
    ("dtype", "stored", "codes", "limit"),
    [
        ("int2", "INT2", (-2, 1), 0.8),
        ("uint2", "UINT2", (0, 3), 0.8),
        ("int3", "INT4", (-4, 3), 0.4),
        ("uint5", "UINT8", (0, 31), 0.1),
        ("int7", "INT8", (-64, 63), 0.05),
        ("uint12", "UINT16", (0, 4095), 0.05),
    ],
)
def test_weights_of_any_width(
    dtype: str,
    stored: str,
    codes: tuple[int, int],
    limit: float,
    activations: str | None,
    make: Make,
    reference: Reference,
):
    """In the narrowest integers of ONNX that hold them; ONNX Runtime opens them, whatever reads them."""
    done = make(dtype, activations=activations, narrow_share=1.0)
    model = model_of(done)
    (weight,) = (each for each in model.graph.initializer if each.name == "w1")
    array = onnx.numpy_helper.to_array(weight).astype(np.int32)
    assert onnx.TensorProto.DataType.Name(weight.data_type) == stored
    assert codes[0] <= array.min() and array.max() <= codes[1]
    feeds = {"x": images()[SAMPLES:]}
    exact, got = run(network(), feeds)[0], open_variant(reference, dtype, done.path.parents[1]).run(feeds)[0]
    assert np.sqrt(np.square(got - exact).mean()) < limit * exact.std()


def test_the_opened_variant_computes_what_the_written_graph_says(make: Make, reference: Reference):
    for dtype in ("int8", "fp11", "fp32"):
        done = make(dtype) if dtype != "fp32" else make()
        executor = open_variant(reference, dtype, done.path.parents[1], threads=1)
        feeds = {"x": images()[:4]}
        expected = run(network() if dtype == "fp32" else model_of(done), feeds)[0]
        np.testing.assert_allclose(executor.run(feeds)[0], expected, atol=0.12 * expected.std())
        assert executor.execution == ("emulated" if dtype == "fp11" else "native")


def test_integers_are_written_as_quantize_and_dequantize_pairs(make: Make):
    names = operators(model_of(make(output_error=0.0)))
    assert names.count("QuantizeLinear") >= 6 and names.count("DequantizeLinear") >= names.count("QuantizeLinear") + 8
    assert {"Conv", "Add", "Gemm"} <= set(names)


def test_kept_observations_give_the_same_variant_without_observing_again(tmp_path: Path, monkeypatch):
    """Other calibrators, too, make of them what they make of their own."""
    reference = small_reference(tmp_path)
    keep = tmp_path / "observations"
    for calibrator in ("mse", "minmax", "entropy"):
        recipe = Recipe("int8", calibrator=calibrator)
        fresh = convert(reference, recipe, out=tmp_path / f"{calibrator}-fresh").path
        if calibrator != "mse":  # from here on nothing may be counted
            monkeypatch.setattr(Histogram, "add", lambda self, values: pytest.fail("counted again"))
        again = convert(reference, recipe, out=tmp_path / f"{calibrator}-kept", observations=keep).path
        monkeypatch.undo()
        assert [file.read_bytes() for file in files(fresh)] == [file.read_bytes() for file in files(again)]
    assert len(list(keep.glob("small-*.npz"))) == 1


def test_observations_that_cannot_be_kept_name_their_option(tmp_path: Path):
    occupied, out = tmp_path / "occupied", tmp_path / "variants"
    occupied.write_text("mine")
    with pytest.raises(InputError, match=r"occupied.*with --observations"):
        convert(small_reference(tmp_path), Recipe("int8"), out=out, observations=occupied / "within")
    assert occupied.read_text() == "mine" and not out.exists()


def test_what_is_faster_in_float_is_not_counted(tmp_path: Path, monkeypatch):
    """Sizes decide before calibration; biases are corrected all the same."""
    counted: list[str] = []
    monkeypatch.setattr(Histogram, "add", lambda self, values: counted.append(self._name))
    monkeypatch.setattr(planning, "slower_in_integers", lambda model, placement, sizes: placement.nodes)
    keep = tmp_path / "observations"
    made = convert(small_reference(tmp_path), Recipe("int8"), out=tmp_path / "variants", observations=keep)
    plan = plan_of(made)["graphs"]["model"]
    assert plan["faster_in_float"] and not plan["integer_nodes"]
    assert set(counted) <= {""} and not keep.exists(), "one value is counted to load what counts"
    assert made.document()["calibration"]["samples"] == SAMPLES
    assert operators(model_of(made)).count("QuantizeLinear") == 0


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())
