"""Studies: the same scores as convert and plain ONNX Runtime, shared work done once, and nothing done twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

import quantbench
from quantbench.errors import InputError
from quantbench.evaluation import evaluate
from quantbench.graphs.load import load_graphs
from quantbench.operations import studies
from quantbench.quantization import open_variant
from quantbench.quantization.emulation import open_emulated
from quantbench.references import load_reference
from quantbench.reports import Cell

Array = NDArray[Any]

GRAPH = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[n,3,8,8] image) => (float[n,6] logits) <float lo = {0.0}, float hi = {2.3}, float third = {0.3333}>
{
  c1 = Conv <kernel_shape=[3,3], pads=[1,1,1,1]> (image, w1, b1)  r1 = Clip(c1, lo, hi)
  c2 = Conv <kernel_shape=[3,3], pads=[1,1,1,1], group=12> (r1, w2)  r2 = HardSwish(c2)
  s = Mul(r2, third)  a = Add(s, r1)  p = GlobalAveragePool(a)  f = Flatten(p)  h = MatMul(f, w3)  t = Tanh(h)
  logits = Gemm(t, w4, b4)
}
"""
SHAPES = {"w1": (12, 3, 3, 3), "b1": (12,), "w2": (12, 1, 3, 3), "w3": (12, 40), "w4": (40, 6)}
SAMPLES = 96
FORMATS = ("e5m2", "e4m3", "e4m3fn", "fp11", "e8m2", "bf16", "fp16", "e2m1", "tf32", "mxfp4", "nvfp4")
"""By cast, by function, with and without infinities; e2m1 ends at 3, above the Clip and below what enters it.
Blocks: of 3 and 12 channels, of 12 and 40 features; none in the depthwise convolution."""


@pytest.fixture
def reference(tmp_path: Path) -> Path:
    """A reference of 80 scored samples on whose answers the formats differ."""
    model = onnx.parser.parse_model(GRAPH)
    rng = np.random.default_rng(8)
    for name, shape in SHAPES.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(0, 0.7, shape).astype(np.float32), name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(6, np.float32), "b4"))
    x = (rng.normal(size=(SAMPLES, 3, 8, 8)) + rng.normal(size=(SAMPLES, 3, 1, 1))).astype(np.float32)
    bias = -_outputs(model, x).mean(0)  # so that every class occurs
    model.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(bias, "b4"))
    onnx.save(model, tmp_path / "small.onnx")
    np.savez(tmp_path / "small.npz", x=x, y=_outputs(model, x).argmax(1))
    file = tmp_path / "small.toml"
    file.write_text(
        'name = "small"\ntask = "image-classification"\n[model]\npath = "small.onnx"\n'
        '[dataset]\nkind = "npz"\npath = "small.npz"\n[calibration]\nsamples = 16\n'
        '[quality]\nmetric = "top1"\ntarget_ratio = 0.95\n'
    )
    return file


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The dtypes that studies score, in turn."""
    seen: list[str] = []

    def counting(*words: Any, dtype: str, **options: Any) -> Any:
        seen.append(dtype)
        return evaluate(*words, dtype=dtype, **options)

    monkeypatch.setattr(studies, "side_by_side", lambda: (1, 2))
    monkeypatch.setattr(studies.evaluation, "evaluate", counting)
    return seen


def test_cells_are_what_convert_and_onnx_runtime_give(reference: Path, tmp_path: Path) -> None:
    """Against the portable graph in plain ONNX Runtime, which knows nothing of stages or of studies."""
    data = np.load(tmp_path / "small.npz")
    x, y = data["x"][16:], data["y"][16:]
    cells = quantbench.study(reference, FORMATS, out=tmp_path / "reports")
    assert len(cells) == len(FORMATS)
    for cell in cells:
        conversion = quantbench.convert(reference, cell.format, out=tmp_path / "variants")
        portable = _outputs(onnx.load(conversion.path / "model.onnx"), x).argmax(1)
        assert cell.score == np.mean(portable == y), cell.format
        assert cell.score == quantbench.evaluate(reference, cell.format, out=tmp_path / "variants").score
        verdict = quantbench.gate(reference, cell.format, out=tmp_path / "variants")
        for key in ("reference_score", "ratio", "ratio_low", "ratio_high", "target_ratio", "samples", "verdict"):
            assert getattr(cell, key) == getattr(verdict, key), (cell.format, key)
    assert len({cell.score for cell in cells}) > 3, "formats that all score alike would prove nothing"
    assert {cell.verdict for cell in cells} == {"pass", "fail"}


@pytest.mark.parametrize("name", FORMATS)
def test_outputs_equal_those_of_the_variant_bit_by_bit(name: str, reference: Path, tmp_path: Path) -> None:
    loaded = load_reference(reference)
    x = np.load(tmp_path / "small.npz")["x"][:16]
    quantbench.convert(loaded, name, out=tmp_path / "variants")
    (want,) = open_variant(loaded, name, tmp_path / "variants").run({"image": x})
    models = load_graphs(loaded)
    for _ in range(2):  # the shared graphs are left as they were
        (got,) = open_emulated(models, name).run({"image": x})
        np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))


def test_what_formats_have_in_common_is_done_once(
    reference: Path, tmp_path: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = studies.open_with_truths(load_reference(reference))
    loaded: list[int] = []
    prepared: list[str] = []

    def counting_input(index: int) -> Array:
        loaded.append(index)
        return dataset.scored.input(index)

    counted = dataclasses.replace(dataset.scored, load_input=counting_input)  # type: ignore[type-var]
    monkeypatch.setattr(studies, "open_with_truths", lambda _: dataclasses.replace(dataset, scored=counted))
    original = studies.load_graphs

    def counting_graphs(given: Any) -> Any:
        prepared.append(given.name)
        return original(given)

    monkeypatch.setattr(studies, "load_graphs", counting_graphs)
    quantbench.study(reference, ["fp11", "e4m3", "bf16"], samples=50, out=tmp_path / "reports")
    assert loaded == list(range(50)), "each sample is prepared once, in order"
    assert prepared == ["small"]
    assert scored == ["fp32", "fp11", "e4m3", "bfloat16"]


def test_an_interrupted_study_goes_on(reference: Path, tmp_path: Path, scored: list[str]) -> None:
    formats = ["fp11", "e4m3", "e5m2", "e2m1", "fp16"]
    whole = quantbench.study(reference, formats, out=tmp_path / "whole")
    cells: list[Cell] = []
    del scored[:]
    with pytest.MonkeyPatch.context() as patch:
        counting = studies.evaluation.evaluate

        def interrupted(*words: Any, **options: Any) -> Any:
            if len(scored) == 3:
                raise KeyboardInterrupt
            return counting(*words, **options)

        patch.setattr(studies.evaluation, "evaluate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            cells += quantbench.study(reference, formats, out=tmp_path / "parts")
    assert scored[:3] == ["fp32", "fp11", "e4m3"] and not cells
    assert not (tmp_path / "parts" / "index.html").exists()

    del scored[:]
    assert quantbench.study(reference, formats, out=tmp_path / "parts") == whole
    assert scored == ["fp32", "fp8_e5m2", "e2m1", "fp16"]
    assert _files(tmp_path / "parts") == _files(tmp_path / "whole"), "the same to the byte as never interrupted"

    del scored[:]
    assert quantbench.study(reference, reversed(formats), out=tmp_path / "parts") == whole[::-1]
    assert scored == [], "not even FP32"


def _more_samples(folder: Path) -> dict[str, Any]:
    return {"samples": 41}


def _other_weights(folder: Path) -> dict[str, Any]:
    model = onnx.load(folder / "small.onnx")
    weight = onnx.numpy_helper.to_array(model.graph.initializer[3]).copy()
    model.graph.initializer[3].CopyFrom(onnx.numpy_helper.from_array(weight * 2, model.graph.initializer[3].name))
    onnx.save(model, folder / "small.onnx")
    return {}


def _other_images(folder: Path) -> dict[str, Any]:
    data = np.load(folder / "small.npz")
    np.savez(folder / "small.npz", x=data["x"] * np.float32(0.5), y=data["y"])
    return {}


def _other_labels(folder: Path) -> dict[str, Any]:
    data = np.load(folder / "small.npz")
    np.savez(folder / "small.npz", x=data["x"], y=np.roll(data["y"], 1))
    return {}


def _other_target(folder: Path) -> dict[str, Any]:
    file = folder / "small.toml"
    file.write_text(file.read_text().replace("0.95", "0.5"))
    return {}


def _other_key(folder: Path) -> dict[str, Any]:
    return _edit_state(folder, lambda state: state["key"]["tools"].update(onnxruntime="1.0"))


def _damage(folder: Path) -> dict[str, Any]:
    file = _state(folder)
    file.write_text(file.read_text()[:-20])
    return {}


def _damage_cell(folder: Path) -> dict[str, Any]:
    return _edit_state(folder, lambda state: state["cells"]["fp11"].pop("score"))


def _force(folder: Path) -> dict[str, Any]:
    return {"force": True}


@pytest.mark.parametrize(
    "change",
    [
        _more_samples,
        _other_weights,
        _other_images,
        _other_labels,
        _other_target,
        _other_key,
        _damage,
        _damage_cell,
        _force,
    ],
)
def test_what_is_known_is_not_kept_when_something_changed(
    change: Callable[[Path], dict[str, Any]], reference: Path, tmp_path: Path, scored: list[str]
) -> None:
    options: dict[str, Any] = {"samples": 40, "out": tmp_path / "reports"}
    quantbench.study(reference, ["fp11", "e4m3"], **options)
    options |= change(tmp_path)
    del scored[:]
    quantbench.study(reference, ["fp11", "e4m3"], **options)
    assert scored == ["fp32", "fp11", "e4m3"]


def test_other_tools_are_another_study(
    reference: Path, tmp_path: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    quantbench.study(reference, ["fp11"], out=tmp_path / "reports")
    monkeypatch.setattr(studies, "version", lambda name: "2.0" if name == "onnxruntime" else "1.0")
    quantbench.study(reference, ["fp11"], out=tmp_path / "reports")
    assert scored == ["fp32", "fp11"] * 2


def test_a_look_at_fewer_samples_costs_nothing_of_what_is_known(
    reference: Path, tmp_path: Path, scored: list[str]
) -> None:
    long = quantbench.study(reference, ["fp11", "e2m1"], out=tmp_path / "reports")
    short = quantbench.study(reference, ["fp11", "e2m1"], samples=10, out=tmp_path / "reports")
    assert [cell.samples for cell in (*long, *short)] == [80, 80, 10, 10]
    del scored[:]
    assert quantbench.study(reference, ["fp11", "e2m1"], out=tmp_path / "reports") == long
    assert scored == []


def test_the_reference_itself_may_be_among_the_formats(reference: Path, tmp_path: Path, scored: list[str]) -> None:
    (cell,) = quantbench.study(reference, ["fp32"], out=tmp_path / "reports")
    assert scored == ["fp32"]
    assert (cell.score, cell.ratio, cell.ratio_low, cell.ratio_high, cell.verdict) == (1, 1, 1, 1, "pass")


def test_files_of_a_study(reference: Path, tmp_path: Path) -> None:
    out = tmp_path / "reports"
    cells = quantbench.study(reference, studies.grid(range(4, 6), range(2, 4)), out=out)
    assert [cell.format for cell in cells] == ["e4m2", "e4m3", "fp8_e5m2", "e5m3"]
    folder = out / "studies" / "small"
    assert {path.name for path in folder.iterdir()} == {
        _state(tmp_path).name,
        "study.json",
        "heatmap.svg",
        "heatmap.png",
    }
    assert json.loads((folder / "study.json").read_text()) == [cell.document() for cell in cells]
    page = (out / "index.html").read_text()
    assert 'id="study-small"' in page and all(f"<td>{cell.format}</td>" in page for cell in cells)


@pytest.mark.parametrize("name", ["int8", "uint4", "e8m0"])
def test_what_no_tensor_can_be_rounded_to_is_refused(name: str, reference: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=name):
        quantbench.study(reference, ["fp11", name], out=tmp_path / "reports")
    assert not (tmp_path / "reports").exists(), "known before anything is scored"


def test_no_format_and_no_samples_are_refused(reference: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no format"):
        quantbench.study(reference, [], out=tmp_path)
    with pytest.raises(InputError, match="--samples is 0"):
        quantbench.study(reference, ["fp11"], samples=0, out=tmp_path)


def _outputs(model: onnx.ModelProto, x: Array) -> Array:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: Array = session.run(None, {"image": x})[0]
    return outputs


def _edit_state(folder: Path, edit: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    file = _state(folder)
    state = json.loads(file.read_text())
    edit(state)
    file.write_text(json.dumps(state))
    return {}


def _state(folder: Path) -> Path:
    (file,) = (folder / "reports" / "studies" / "small").glob("state-*.json")
    return file


def _files(folder: Path) -> dict[str, bytes]:
    return dict(_read(folder))


def _read(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield str(path.relative_to(folder)), path.read_bytes()
