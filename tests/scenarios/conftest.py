"""A reference of four classes over 40 samples, in memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from tiny_reference import CLASSES, SAMPLES, TinyExecutor

from quantbench.datasets.base import Dataset, LazySamples
from quantbench.references import Reference
from quantbench.references.schema import DataSource, Latency, ModelSource, Quality
from quantbench.scenarios.rounds import Settings, settings


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick runs take half a second at least instead of two; nothing else about the rules changes."""

    def hurried(round_: str, scenario: str, task: str, *, quick: bool = False) -> Settings:
        rules = settings(round_, scenario, task, quick=quick)
        return replace(rules, min_seconds=0.5) if quick else rules

    monkeypatch.setattr("quantbench.scenarios.runs.settings", hurried)


@pytest.fixture
def executor() -> TinyExecutor:
    """y = x · I, so that the class is the place of the largest input."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, (CLASSES, CLASSES), np.eye(CLASSES, dtype=np.float32).ravel())
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", CLASSES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [weights],
    )
    return TinyExecutor(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


@pytest.fixture
def dataset() -> Dataset:
    """Sample i has its largest value at i mod 4; every fifth truth is another class: 32 of 40 are right."""
    samples = LazySamples(
        ids=[f"sample-{index}" for index in range(SAMPLES)],
        load_input=lambda index: np.eye(CLASSES, dtype=np.float32)[index % CLASSES],
        load_truth=lambda index: (index + (index % 5 == 0)) % CLASSES,
    )
    return Dataset(calibration=LazySamples([], samples.load_input, samples.load_truth), scored=samples)


@pytest.fixture
def reference() -> Reference:
    return Reference(
        name="tiny",
        task="image-classification",
        model=ModelSource(path="tiny.onnx"),
        dataset=DataSource(kind="npz", path="tiny.npz"),
        quality=Quality(metric="top1"),
        latency=Latency(server_ms=50.0, multi_stream_ms=20.0),
        file=Path("tiny.toml"),
    )
