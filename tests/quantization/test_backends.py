"""Variants by other projects' quantizers: what those make by themselves, in a folder like any other variant's."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import graph, normal, operators, run
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process
from small_reference import SAMPLES, images, network, small_reference

from quantbench.errors import InputError, MissingError
from quantbench.evaluation import evaluate
from quantbench.quantization import Recipe, convert, load_variant, open_variant
from quantbench.quantization.backends import BACKENDS, PeerRecipe, get_backend, installed_backends
from quantbench.quantization.backends.conversion import convert_with
from quantbench.quantization.backends.feeds import CalibrationFeeds
from quantbench.quantization.backends.readying import readied
from quantbench.references import Reference


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return small_reference(tmp_path)


class Reader:
    """The calibration samples as a user of `quantize_static` would hand them over."""

    def __init__(self) -> None:
        self._feeds = iter([{"x": image[None]} for image in images()[:SAMPLES]])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


@pytest.mark.parametrize(
    ("options", "direct"),
    [
        ({}, {}),
        (
            {"granularity": "channel", "calibrator": "percentile", "activations": "uint8"},
            {
                "per_channel": True,
                "calibrate_method": quantization.CalibrationMethod.Percentile,
                "activation_type": quantization.QuantType.QUInt8,
            },
        ),
    ],
)
def test_onnxruntime_makes_what_its_quantizer_makes_by_itself(
    options: dict[str, str], direct: dict[str, Any], reference: Reference, tmp_path: Path
) -> None:
    onnx.save(network(), tmp_path / "source.onnx")
    quant_pre_process(tmp_path / "source.onnx", tmp_path / "prepared.onnx", skip_symbolic_shape=True)
    quantization.quantize_static(tmp_path / "prepared.onnx", tmp_path / "direct.onnx", Reader(), **direct)
    expected = run(onnx.load(tmp_path / "direct.onnx"), {"x": images()})[0]

    made = convert_with(reference, PeerRecipe("onnxruntime", "int8", **options), out=tmp_path / "out")
    found = run(onnx.load(made.path / "model.onnx"), {"x": images()})[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(found - run(network(), {"x": images()})[0]).max() > 1e-3, "it is quantized"


def test_the_folder_is_a_variant_beside_the_native_one(reference: Reference, tmp_path: Path) -> None:
    native = convert(reference, Recipe("int8"), out=tmp_path)
    made = convert_with(reference, PeerRecipe("onnxruntime", "int8"), out=tmp_path)
    assert made.path == tmp_path / "small" / "int8@onnxruntime" != native.path
    assert (made.reference, made.dtype, made.backend, made.kept) == ("small", "int8", "onnxruntime", False)
    assert made.model_bytes == (made.path / "model.onnx").stat().st_size
    assert made.weight_elements == {"int8": 432 + 144 + 256 + 80, "int32": 53, "fp32": 2}  # the bounds of Clip too
    assert (made.calibration.samples, made.calibration.calibrator) == (SAMPLES, "minmax")
    plan = json.loads((made.path / "plan.json").read_text())
    assert plan["backend"] == {"name": "onnxruntime", "version": version("onnxruntime")}
    assert plan["settings"]["calibrate_method"] == "MinMax"
    assert load_variant(tmp_path, reference, "int8@onnxruntime").manifest["backend"] == "onnxruntime"
    executor = open_variant(reference, "int8@onnxruntime", tmp_path)
    assert evaluate(reference, executor, dtype="int8@onnxruntime").score > 0.5
    assert load_variant(tmp_path, reference, "int8").manifest["backend"] == "native"


def test_the_same_bytes_again_and_kept_when_up_to_date(reference: Reference, tmp_path: Path) -> None:
    recipe = PeerRecipe("onnxruntime", "int8")
    first = convert_with(reference, recipe, out=tmp_path)
    files = {file.name: file.read_bytes() for file in first.path.iterdir()}
    assert convert_with(reference, recipe, out=tmp_path).kept
    again = convert_with(reference, recipe, out=tmp_path, force=True)
    assert not again.kept
    assert {file.name: file.read_bytes() for file in again.path.iterdir()} == files
    assert not convert_with(reference, replace(recipe, granularity="channel"), out=tmp_path).kept


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (PeerRecipe("onnxruntime", "fp16"), "does not offer --dtype fp16; it offers int8, uint8"),
        (PeerRecipe("onnxruntime", "int8", weights="fp11"), "does not offer --weights fp11"),
        (PeerRecipe("onnxruntime", "int8", calibrator="mse"), "calibrator mse; it offers minmax, percentile, entropy$"),
        (PeerRecipe("onnxruntime", "int8", granularity="block:32"), "granularity block:32; it offers tensor, channel$"),
        (PeerRecipe("nncf", "int4"), "--backend nncf does not offer --dtype int4; it offers int8$"),
        (PeerRecipe("neural-compressor", "uint8"), "neural-compressor does not offer --dtype uint8; it offers int8$"),
    ],
)
def test_what_a_backend_does_not_offer_is_refused(recipe: PeerRecipe, sentence: str, reference: Reference) -> None:
    with pytest.raises(InputError, match=sentence):
        get_backend(recipe.backend).settings(recipe)
    with pytest.raises(InputError, match=sentence):  # even where the backend is not installed
        convert_with(reference, recipe)


def test_unknown_and_missing_backends(reference: Reference, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"no backend 'onnxruntim'; did you mean 'onnxruntime'\?"):
        get_backend("onnxruntim")
    monkeypatch.setattr("quantbench.quantization.backends.backend.find_spec", lambda name: None)
    assert installed_backends() == []
    with pytest.raises(MissingError, match="--backend nncf needs nncf; get it with: pip install nncf"):
        convert_with(reference, PeerRecipe("nncf", "int8"))


def test_a_failing_quantizer_is_one_sentence_and_leaves_nothing(
    reference: Reference, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(*_: Any) -> Any:
        raise SystemExit(0)  # as neural-compressor does where it finds nothing to quantize

    monkeypatch.setitem(BACKENDS, "onnxruntime", replace(BACKENDS["onnxruntime"], quantize=leave))
    with pytest.raises(InputError, match="--backend onnxruntime cannot quantize small's graph model: SystemExit: 0"):
        convert_with(reference, PeerRecipe("onnxruntime", "int8"), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("backend", ["nncf", "neural-compressor"])
def test_the_optional_backends(backend: str, reference: Reference, tmp_path: Path) -> None:
    if find_spec(BACKENDS[backend].module) is None:
        pytest.skip(f"{backend} is not installed")
    made = convert_with(reference, PeerRecipe(backend, "int8"), out=tmp_path)
    assert made.weight_elements["int8"] >= 432 + 144 + 256
    exact = run(network(), {"x": images()})[0]
    found = open_variant(reference, f"int8@{backend}", tmp_path).run({"x": images()})[0]
    error = np.square(found - exact).sum() / np.square(exact - exact.mean()).sum()
    assert 1e-9 < error < 0.05
    assert convert_with(reference, PeerRecipe(backend, "int8"), out=tmp_path).kept
    assert not convert_with(reference, PeerRecipe(backend, "int8", granularity="channel"), out=tmp_path).kept


class Counter:
    """A task of two graphs: `first` once, then `second` as often as the sample says."""

    def feeds(self, executor: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
        return inputs[0]

    def infer(self, executor: Any, feeds: np.ndarray) -> None:
        value = executor.run({"x": feeds}, "first")[0]
        for _ in range(int(feeds[0])):
            value = executor.run({"x": value}, "second")[0]


class Doubling:
    """An executor whose graphs double."""

    def run(self, feeds: Mapping[str, np.ndarray], graph: str = "model") -> list[np.ndarray]:
        return [2 * feeds["x"]]


class Numbers:
    """The samples 1, 2, 3."""

    def input(self, index: int) -> np.ndarray:
        return np.array([index + 1.0])


def test_feeds_are_what_each_graph_of_a_loop_is_fed_and_come_again() -> None:
    for name, expected in {"first": [1, 2, 3], "second": [2, 4, 8, 6, 12, 24]}.items():
        feeds = CalibrationFeeds(Doubling(), Counter(), Numbers(), 3, name, loops=True)
        for _ in range(2):
            assert [int(feed["x"][0]) for feed in feeds] == expected
        assert len(feeds) == len(expected)


def test_a_graph_that_runs_once_a_sample_is_not_computed_for_its_feeds() -> None:
    feeds = CalibrationFeeds(None, Counter(), Numbers(), 3, "first", loops=False)  # nothing there to compute with
    assert [int(feed["x"][0]) for feed in feeds] == [1, 2, 3]
    assert len(feeds) == 3


def test_readied_graphs_are_recent_named_and_the_same() -> None:
    model = graph(
        """
        g (float[n,3,4,4] x) => (float[n,8,4,4] y)
        {
          w = Constant <value = float[8,3,1,1] {1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8,1,2,3,4,5,6,7,8}> ()
          c = Conv(x, w)  b = BatchNormalization(c, s, o, m, v)  y = Relu(b)
        }
        """,
        s=normal(8), o=normal(8, seed=1), m=normal(8, seed=2), v=np.square(normal(8, seed=3)),
    )  # fmt: skip
    model.opset_import[0].version = 12  # what it uses is the same there
    made = readied(model, "the graph")
    assert made.opset_import[0].version >= 13
    assert operators(made) == ["Conv", "Relu"], "batch norm is folded and the weight an initializer"
    assert len({node.name for node in made.graph.node} - {""}) == 2
    x = normal(2, 3, 4, 4, seed=4)
    np.testing.assert_allclose(run(made, {"x": x})[0], run(model, {"x": x})[0], rtol=1e-4, atol=1e-5)
