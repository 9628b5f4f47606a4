"""Observing a task's samples: what is counted is what ONNX Runtime computes, each sample once."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_models import graph, normal, run

from quantbench.calibration import Histogram, Observer, record_feeds
from quantbench.datasets.base import LazySamples
from quantbench.errors import InputError

IMAGES = normal(21, 3, 6, 6)
SAMPLES = LazySamples([str(index) for index in range(21)], lambda index: IMAGES[index], lambda index: 0)


def encoder() -> onnx.ModelProto:
    text = "g (float[n,3,6,6] x) => (float[n,8,4,4] r) { c = Conv(x, w)  r = Relu(c) }"
    return graph(text, w=normal(8, 3, 3, 3, seed=1))


def decoder() -> onnx.ModelProto:
    text = "g (float[n,8,4,4] s) => (float[n,8,1,1] y) { t = Exp(s)  y = GlobalAveragePool(t) }"
    return graph(text)


class TwoGraphs:
    """A task of two graphs; the second runs twice on each batch."""

    def feeds(self, executor: Any, inputs: Sequence[np.ndarray]) -> Any:
        return {executor.inputs("encoder")[0].name: np.stack(inputs)}

    def infer(self, executor: Any, feeds: Any) -> Any:
        (state,) = executor.run(feeds, "encoder")
        executor.run({"s": state}, "decoder")
        return executor.run({"s": -state}, "decoder")[0]

    def predictions(self, result: Any) -> list[float]:
        return [float(each.sum()) for each in result]


def models() -> dict[str, ir.Model]:
    shaped = {"encoder": encoder(), "decoder": decoder()}
    return {name: ir.from_proto(onnx.shape_inference.infer_shapes(proto)) for name, proto in shaped.items()}


def test_inner_tensors_inputs_and_outputs_of_several_graphs():
    seen, *_ = Observer(models(), {"encoder": ["x", "c", "r"], "decoder": ["s", "t"]}).observe(TwoGraphs(), SAMPLES, 19)
    x = IMAGES[:19]
    (r,) = run(encoder(), {"x": x})
    exposed = encoder()
    exposed.graph.output.append(onnx.helper.make_empty_tensor_value_info("c"))
    _, c = run(exposed, {"x": x})
    state = np.concatenate([r, -r])
    wanted = {"encoder": {"x": x, "c": c, "r": r}, "decoder": {"s": state, "t": np.exp(state)}}
    assert {name: list(tensors) for name, tensors in seen.items()} == {n: list(t) for n, t in wanted.items()}
    for name, tensors in wanted.items():
        for tensor, values in tensors.items():
            histogram = Histogram(tensor)
            histogram.add(values)
            expected, got = histogram.observation(), seen[name][tensor]
            np.testing.assert_allclose([got.minimum, got.maximum], [expected.minimum, expected.maximum], rtol=1e-5)
            assert got.counts.sum() == values.size
            moved = np.abs(got.counts.astype(float) - expected.counts.astype(float)).sum()
            assert moved <= 0.01 * values.size, "float kernels may differ in the last bit, which moves few values"


def test_the_task_sees_only_the_outputs_of_its_graphs():
    class Strict(TwoGraphs):
        def infer(self, executor: Any, feeds: Any) -> Any:
            assert [spec.name for spec in executor.outputs("encoder")] == ["r"]
            assert len(executor.run(feeds, "encoder")) == 1
            return super().infer(executor, feeds)

    Observer(models(), {"encoder": ["c"]}).observe(Strict(), SAMPLES, 3)


def test_models_stay_as_they_are():
    given = models()
    before = {name: ir.to_proto(model).SerializeToString() for name, model in given.items()}
    Observer(given, {"encoder": ["c"], "decoder": ["t"]}).observe(TwoGraphs(), SAMPLES, 2)
    assert {name: ir.to_proto(model).SerializeToString() for name, model in given.items()} == before


def test_an_observer_starts_anew_each_time_and_goes_with_its_sessions():
    observer = Observer(models(), {"encoder": ["c"]})
    first, *_ = observer.observe(TwoGraphs(), SAMPLES, 5)
    second, *_ = observer.observe(TwoGraphs(), SAMPLES, 5)
    np.testing.assert_array_equal(second["encoder"]["c"].counts, first["encoder"]["c"].counts)
    last = weakref.ref(observer)
    gc.disable()  # waiting for the collector would keep the sessions' memory beside what comes next
    try:
        del observer
        assert last() is None
    finally:
        gc.enable()


def test_more_samples_than_there_are():
    with pytest.raises(InputError, match="calibration asks for 22 samples, but there are only 21"):
        Observer(models(), {"encoder": ["c"]}).observe(TwoGraphs(), SAMPLES, 22)


def test_a_tensor_that_becomes_infinite_is_named():
    huge = LazySamples(SAMPLES.ids, lambda index: IMAGES[index] * np.float32(3e38), lambda index: 0)
    with pytest.raises(InputError, match="tensor c becomes NaN or infinite"), np.errstate(over="ignore"):
        Observer(models(), {"encoder": ["c"]}).observe(TwoGraphs(), huge, 4)


def test_sizes_are_those_of_one_call_for_one_sample():
    observer = Observer(models(), {"encoder": ["x", "c"], "decoder": ["s"]})
    assert observer.sizes(TwoGraphs(), list(IMAGES[:3])) == {"encoder": {"x": 108, "c": 128}, "decoder": {"s": 128}}

    class Ragged(TwoGraphs):
        def infer(self, executor: Any, feeds: Any) -> Any:
            (state,) = executor.run(feeds, "encoder")
            return executor.run({"s": np.concatenate([state] * len(sizes))}, "decoder")[0]

    sizes = [1]
    assert observer.sizes(Ragged(), [IMAGES[0]])["decoder"]["s"] == 128
    sizes += [2, 3]
    assert observer.sizes(Ragged(), [IMAGES[0]])["decoder"]["s"] == 384


def test_sizes_take_no_more_calls_than_they_need():
    calls = []

    class Endless(TwoGraphs):
        def infer(self, executor: Any, feeds: Any) -> Any:
            (state,) = executor.run(feeds, "encoder")
            while True:
                calls.append(len(calls))
                executor.run({"s": state}, "decoder")

    observer = Observer(models(), {"encoder": ["c"], "decoder": ["s", "t"]})
    assert observer.sizes(Endless(), list(IMAGES[:3])) == {"encoder": {"c": 128}, "decoder": {"s": 128, "t": 128}}
    assert len(calls) == 3


def test_what_is_not_watched_any_more_is_not_counted():
    observer = Observer(models(), {"encoder": ["x", "c"], "decoder": ["s"]})
    observer.sizes(TwoGraphs(), [IMAGES[0]])
    observer.watch({"encoder": ["c"]})
    seen, feeds, answers = observer.observe(TwoGraphs(), SAMPLES, 20, 4)
    assert {graph: list(tensors) for graph, tensors in seen.items()} == {"encoder": ["c"], "decoder": []}
    assert seen["encoder"]["c"].counts.sum() == 20 * 128 and len(answers) == 20
    observer.watch({})
    seen, feeds, answers = observer.observe(TwoGraphs(), SAMPLES, 20, 4)
    assert not any(seen.values()) and not answers
    assert sum(len(feed["x"]) for feed in feeds["encoder"]) == 4, "of the others nothing is wanted"


def test_recorded_feeds_are_every_call_in_order():
    feeds = record_feeds(models(), TwoGraphs(), SAMPLES, 11, 11, 1 << 20)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds["encoder"]]), IMAGES[:11])
    states = [feed["s"] for feed in feeds["decoder"]]
    assert len(states) == 2 * len(feeds["encoder"])
    for first, second in zip(states[::2], states[1::2], strict=True):
        np.testing.assert_array_equal(first, -second)


def test_what_is_recorded_on_the_way_is_spread_over_the_samples_and_counted_once():
    seen, feeds, _ = Observer(models(), {"encoder": ["x"]}).observe(TwoGraphs(), SAMPLES, 20, 4)
    np.testing.assert_array_equal(np.concatenate([feed["x"] for feed in feeds["encoder"]]), IMAGES[[0, 5, 10, 15]])
    histogram = Histogram("x")
    histogram.add(IMAGES[:20])
    np.testing.assert_array_equal(seen["encoder"]["x"].counts, histogram.observation().counts)


def test_the_answers_to_all_samples_come_in_their_order_whatever_was_recorded():
    task, observer = TwoGraphs(), Observer(models(), {"encoder": ["c"]})
    *_, answers = observer.observe(task, SAMPLES, 20, 4)
    (states,) = run(encoder(), {"x": IMAGES[:20]})
    (wanted,) = run(decoder(), {"s": -states})
    np.testing.assert_allclose(answers, task.predictions(wanted), rtol=1e-4)
    assert observer.observe(task, SAMPLES, 20, 4, known={})[2] == []


def test_large_inputs_are_recorded_as_far_as_they_fit():
    one = IMAGES[0].nbytes
    for recorded, memory, kept in ((3, 9 * one, 3), (20, 9 * one, 9), (20, 0, 6)):
        feeds = record_feeds(models(), TwoGraphs(), SAMPLES, 20, recorded, memory)
        assert sum(len(feed["x"]) for feed in feeds["encoder"]) == kept
