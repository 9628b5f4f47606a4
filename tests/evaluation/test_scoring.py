"""Scores against numpy and a plain ONNX Runtime loop, on a reference file of this test's own."""

import threading
import time
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantbench.errors import InputError
from quantbench.evaluation import evaluate, scoring
from quantbench.graphs import SessionExecutor
from quantbench.references import load_reference

CLASSES = 4


def write_reference(folder, batch="n", metric="top1", labels=None):
    """40 rows of 6 numbers, a linear model, labels that are right three times in four."""
    generator = np.random.default_rng(2)
    x = generator.normal(size=(40, 6)).astype(np.float32)
    weights = generator.normal(size=(6, CLASSES)).astype(np.float32)
    y = (x @ weights).argmax(axis=1)
    y[::4] = (y[::4] + 1) % CLASSES
    np.savez(folder / "data.npz", x=x, y=y if labels is None else labels(y))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 6])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, CLASSES])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "linear.onnx")
    (folder / "linear.toml").write_text(
        f"""
        name = "linear"
        task = "image-classification"
        [model]
        path = "linear.onnx"
        [dataset]
        kind = "npz"
        path = "data.npz"
        [calibration]
        samples = 10
        [quality]
        metric = "{metric}"
        target_ratio = 0.98
        """
    )
    return load_reference(str(folder / "linear.toml")), SessionExecutor({"model": folder / "linear.onnx"}, threads=1)


def plain_accuracy(folder, first, last):
    data = np.load(folder / "data.npz")
    session = ort.InferenceSession(folder / "linear.onnx", providers=["CPUExecutionProvider"])
    right = [
        session.run(None, {"x": row[None]})[0].argmax() == label for row, label in zip(*data.values(), strict=True)
    ]
    return np.mean(right[first:last])


@pytest.mark.parametrize("batch", [1, 7, 16, None, 100])
def test_equals_a_plain_loop_for_every_batch(tmp_path, batch):
    reference, executor = write_reference(tmp_path)
    score = evaluate(reference, executor, dtype="fp32", batch=batch)
    assert score.score == plain_accuracy(tmp_path, 10, 40)
    assert 0.5 < score.score < 1
    assert (score.samples, score.execution, score.metric, score.dtype) == (30, "native", "top1", "fp32")


@pytest.mark.parametrize("fixed", [1, 4])
def test_a_model_with_a_fixed_batch_is_scored(tmp_path, fixed):
    reference, executor = write_reference(tmp_path)
    expected = evaluate(reference, executor, dtype="fp32")
    reference, executor = write_reference(tmp_path, batch=fixed)
    score = evaluate(reference, executor, dtype="fp32", batch=16)
    np.testing.assert_array_equal(score.outcomes.per_sample, expected.outcomes.per_sample)


def test_the_first_samples_are_taken_and_no_more_than_there_are(tmp_path):
    reference, executor = write_reference(tmp_path)
    first = evaluate(reference, executor, dtype="fp32", samples=9)
    assert (first.samples, first.score) == (9, plain_accuracy(tmp_path, 10, 19))
    every = evaluate(reference, executor, dtype="fp32", samples=1000)
    assert every.samples == 30
    assert first.samples_sha256 != every.samples_sha256


def test_the_document_has_the_contract_and_no_arrays(tmp_path):
    reference, executor = write_reference(tmp_path)
    document = evaluate(reference, executor, dtype="fp32").document()
    assert {"reference", "dtype", "metric", "score", "samples", "seconds"} <= set(document)
    assert {"samples_per_second", "execution", "total_seconds"} <= set(document)
    assert all(isinstance(value, str | int | float) for value in document.values())


def test_seconds_are_inference_alone(tmp_path, monkeypatch):
    """On a clock that only moves while a sample loads (100 s), a graph runs (1 s) or a batch is decoded (10 s)."""
    reference, executor = write_reference(tmp_path)
    clock = [0.0]
    monkeypatch.setattr(scoring.time, "perf_counter", lambda: clock[0])

    def moving(function, step):
        def moved(*args, **kwargs):
            clock[0] += step
            return function(*args, **kwargs)

        return moved

    dataset = scoring.open_with_truths(reference)
    dataset = replace(dataset, scored=replace(dataset.scored, load_input=moving(dataset.scored.load_input, 100.0)))
    monkeypatch.setattr(executor, "run", moving(executor.run, 1.0))
    kind = type(scoring.make_task(reference, dataset))
    monkeypatch.setattr(kind, "predictions", moving(kind.predictions, 10.0))
    score = evaluate(reference, executor, dtype="fp32", batch=8, dataset=dataset)
    assert score.seconds == 4.0  # 30 samples in four batches
    assert score.samples_per_second == 30 / 4
    assert score.total_seconds == 30 * 100 + (4 + 1) * 1 + 4 * 10  # one run more, to warm up


def test_prepared_inputs_are_bounded(tmp_path, monkeypatch):
    reference, executor = write_reference(tmp_path)
    dataset = scoring.open_with_truths(reference)
    events = []
    load, run = dataset.scored.load_input, executor.run
    counted = replace(dataset.scored, load_input=lambda index: events.append("load") or load(index))
    monkeypatch.setattr(executor, "run", lambda *args: events.append("run") or run(*args))
    monkeypatch.setattr(scoring, "_PREPARED_BYTES", 2 * 5 * 24)  # two batches of five rows of six float32
    evaluate(reference, executor, dtype="fp32", batch=5, dataset=replace(dataset, scored=counted))
    assert events == [*["load"] * 10, *["run"] * 3, *["load"] * 10, *["run"] * 2, *["load"] * 10, *["run"] * 2]


@pytest.mark.parametrize("option", ["samples", "batch"])
def test_none_at_all_is_refused(tmp_path, option):
    reference, executor = write_reference(tmp_path)
    with pytest.raises(InputError, match=f"--{option} is 0; it must be at least 1"):
        evaluate(reference, executor, dtype="fp32", **{option: 0})


def test_a_label_outside_the_classes_is_named_with_its_sample(tmp_path):
    def spoil(labels):
        labels[23] = CLASSES
        return labels

    reference, executor = write_reference(tmp_path, labels=spoil)
    with pytest.raises(InputError, match=r"label 4 of sample 23 is outside the model's classes 0 to 3"):
        evaluate(reference, executor, dtype="fp32")


def test_an_unknown_metric_is_refused(tmp_path):
    reference, executor = write_reference(tmp_path, metric="top-1")
    with pytest.raises(InputError, match="did you mean 'top1'"):
        evaluate(reference, executor, dtype="fp32")


class Concurrent:
    """Passes calls on, lets those of one pair meet, and notes which ran at once."""

    execution = "emulated"

    def __init__(self, executor):
        self.executor, self.running, self.most, self.sizes = executor, 0, 0, []
        self.lock = threading.Lock()

    def calls_at_once(self):
        return 2

    def inputs(self, graph="model"):
        return self.executor.inputs(graph)

    def outputs(self, graph="model"):
        return self.executor.outputs(graph)

    def run(self, feeds, graph="model"):
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.sizes.append(len(feeds["x"]))
        time.sleep(0.02)
        with self.lock:
            self.running -= 1
        return self.executor.run(feeds, graph)


def test_batches_side_by_side_score_the_same_and_their_time_counts_once(tmp_path):
    reference, executor = write_reference(tmp_path)
    one_by_one = evaluate(reference, executor, dtype="fp32", batch=3)
    concurrent = Concurrent(executor)
    score = evaluate(reference, concurrent, dtype="fp11", batch=3)
    assert concurrent.most == 2
    assert (score.score, score.samples, score.execution) == (one_by_one.score, 30, "emulated")
    np.testing.assert_array_equal(score.outcomes.per_sample, one_by_one.outcomes.per_sample)
    assert 5 * 0.02 <= score.seconds <= score.total_seconds, "ten batches in five pairs"


def test_time_between_calls_does_not_count():
    assert scoring._covered([(5.0, 6.0), (1.0, 3.0), (2.0, 2.5), (2.5, 4.0)]) == 4.0
    assert scoring._covered([]) == 0.0


def test_emulated_batches_stay_in_the_cache(tmp_path, monkeypatch):
    reference, executor = write_reference(tmp_path)
    monkeypatch.setattr(scoring, "fitting_batch", lambda samples, most: min(most, 48 // samples.input(0).nbytes))
    concurrent = Concurrent(executor)
    evaluate(reference, concurrent, dtype="fp11", batch=8)
    assert set(concurrent.sizes) == {2}, "a row of 6 float32 numbers takes 24 bytes"
    native = Concurrent(executor)
    native.execution = "native"
    evaluate(reference, native, dtype="int8", batch=8)
    assert max(native.sizes) == 8
