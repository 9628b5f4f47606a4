"""How many weights are narrow: the share that is asked, or as many as the answers bear."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import run
from small_reference import SAMPLES, images, network, small_reference

from quantbench.datasets import open_dataset
from quantbench.metrics import get_metric
from quantbench.quantization import Recipe, convert
from quantbench.quantization.agreement import Agreement
from quantbench.tasks import make_task

ELEMENTS = {"w1": 432, "w2": 144, "w3": 256, "w4": 80}


def narrow_in(folder: Path, **options: object) -> set[str]:
    """The weights of 4 bits that a recipe makes of the small network."""
    done = convert(small_reference(folder), Recipe("int4", **options), out=folder / "variants", force=True)  # type: ignore[arg-type]
    plan = json.loads((done.path / "plan.json").read_text())
    weights = {
        name: tensor for name, tensor in plan["graphs"]["model"]["tensors"].items() if tensor["role"] == "weight"
    }
    assert weights.keys() == ELEMENTS.keys() and {each["format"] for each in weights.values()} <= {"int4", "int8"}
    found = {name for name, tensor in weights.items() if tensor["format"] == "int4"}
    assert done.weight_elements.get("int4", 0) == sum(ELEMENTS[name] for name in found)
    return found


@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_the_share_that_is_asked_is_narrow_and_not_much_more(share: float, tmp_path: Path):
    narrow = narrow_in(tmp_path, narrow_share=share)
    elements = sum(ELEMENTS[name] for name in narrow)
    total = sum(ELEMENTS.values())
    assert elements >= share * total
    assert all(elements - ELEMENTS[name] < share * total for name in narrow), "one of them is there without need"


def test_a_search_goes_by_the_target(tmp_path: Path):
    assert narrow_in(tmp_path, narrow_share=0.0, target_ratio=0.01) == ELEMENTS.keys()
    assert narrow_in(tmp_path, narrow_share=0.0, target_ratio=0.999999) == set()
    assert narrow_in(tmp_path, narrow_share=0.0, target_ratio=1.0) == set()


def shifted(by: np.ndarray) -> onnx.ModelProto:
    """The network with something added to its outputs."""
    model = network()
    bias = next(each for each in model.graph.initializer if each.name == "b4")
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + by.astype(np.float32), "b4"))
    return model


@pytest.mark.parametrize("labelled", [True, False])
def test_what_answers_that_change_cost(tmp_path: Path, labelled: bool):
    """Where somebody has labelled what is right, a third of them are lost; else the score is agreement itself."""
    reference = small_reference(tmp_path)
    dataset = open_dataset(reference)
    x = images()[:SAMPLES]
    means = run(network(), {"x": x})[0].mean(axis=0)  # without them one class wins all
    exact, other = shifted(-means), shifted(np.array([0.4, 0, 0, -0.2, 0]) - means)
    models, metric = {"model": ir.from_proto(exact)}, None if labelled else get_metric("top1-agreement")
    agreement = Agreement(models, make_task(reference, dataset), dataset.calibration, SAMPLES, metric=metric)
    before, after = (run(model, {"x": x})[0].argmax(axis=1) for model in (exact, other))
    changed = np.mean(before != after)
    assert agreement.tells and agreement.is_score != labelled and 0 < changed < 1
    lost = agreement.lost({"model": ir.from_proto(other)})
    assert lost == pytest.approx(changed / 3 if labelled else changed)
    assert agreement.lost({"model": ir.from_proto(exact)}) == 0


def test_boxes_tell_only_by_their_metric_and_where_there_are_any(tmp_path: Path):
    dataset = open_dataset(small_reference(tmp_path))
    task, sure, unsure = make_task(small_reference(tmp_path), dataset), box(0.9), box(0.2)
    for known, metric, tells in (
        ([sure], None, False),
        ([sure], get_metric("box-agreement"), True),
        ([unsure], get_metric("box-agreement"), False),
    ):
        assert Agreement({}, task, dataset.calibration, 1, known, metric).tells == tells


def box(score: float) -> np.ndarray:
    return np.array([[0.1, 0.1, 0.5, 0.5, score, 1]], np.float32)
