"""Image classification: predictions against numpy, for every kind of graph and batch."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from small_graphs import classifier, executor, identity

from quantbench.errors import InputError
from quantbench.tasks import max_batch
from quantbench.tasks.classification import ClassificationTask


def predict(task, opened, inputs):
    return task.predictions(task.infer(opened, task.feeds(opened, inputs)))


def images(count, size=6, dtype=np.float32):
    generator = np.random.default_rng(count)
    brightest = generator.integers(1, 257, (count, 3, 1, 1))
    return list(generator.integers(0, brightest, (count, 3, size, size)).astype(dtype))


@pytest.mark.parametrize(("batch", "limit"), [("n", None), (1, 1), (4, 4)])
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.UINT8, TensorProto.FLOAT16])
def test_predictions_for_any_batch_and_dtype(batch, limit, kind):
    opened, weights = classifier(batch, kind)
    inputs = images(6)
    expected = [int((image.mean(axis=(1, 2)) @ weights).argmax()) for image in inputs]
    assert len(set(expected)) > 1
    assert max_batch(opened) == limit
    task = ClassificationTask("logits")
    assert predict(task, opened, inputs) == expected
    assert predict(task, opened, inputs[:1]) == expected[:1]
    assert task.classes(task.infer(opened, task.feeds(opened, inputs))) == 5


def test_the_first_output_is_scored_by_default():
    opened, _ = classifier()
    expected = [int(image.mean(axis=(1, 2)).argmax()) for image in images(9)]
    assert predict(ClassificationTask(), opened, images(9)) == expected


def test_samples_of_different_shapes_keep_their_places():
    opened, weights = classifier(size="s")
    inputs = [image for pair in zip(images(4, 6), images(4, 9), strict=True) for image in pair]
    expected = [int((image.mean(axis=(1, 2)) @ weights).argmax()) for image in inputs]
    assert predict(ClassificationTask("logits"), opened, inputs) == expected


@pytest.mark.parametrize("keepdims", [0, 1])
def test_an_output_of_class_numbers(keepdims):
    node = helper.make_node("ArgMax", ["x"], ["y"], axis=1, keepdims=keepdims)
    shape = ["n", 1] if keepdims else ["n"]
    opened = executor([node], {"x": (TensorProto.FLOAT, ["n", 7])}, {"y": (TensorProto.INT64, shape)})
    rows = list(np.random.default_rng(0).normal(size=(12, 7)).astype(np.float32))
    task = ClassificationTask()
    assert predict(task, opened, rows) == [int(row.argmax()) for row in rows]
    assert task.classes(task.infer(opened, task.feeds(opened, rows))) is None


def test_scores_with_spatial_ones():
    opened = identity(["n", 4, 1, 1])
    rows = list(np.eye(4, dtype=np.float32)[[2, 0, 3]][:, :, None, None])
    assert predict(ClassificationTask(), opened, rows) == [2, 0, 3]


def test_an_output_that_is_neither_scores_nor_classes_is_refused():
    opened = identity(["n", 2, 3, 3])
    with pytest.raises(InputError, match="name another output"):
        predict(ClassificationTask(), opened, [np.zeros((2, 3, 3), np.float32)])


def test_an_absent_output_is_named_with_those_there_are():
    opened, _ = classifier()
    with pytest.raises(InputError, match=r"no output logit;.*spare.*logits"):
        predict(ClassificationTask("logit"), opened, images(2))


def test_samples_that_do_not_fit_are_refused():
    opened, _ = classifier()
    task = ClassificationTask("logits")
    with pytest.raises(InputError, match=r"shape \(3, 6, 6\) and a prepared one has \(3, 8, 8\)"):
        task.feeds(opened, images(2, 8))
    opened, _ = classifier(kind=TensorProto.UINT8)
    with pytest.raises(InputError, match="leave mean and std out"):
        task.feeds(opened, [image / 3 for image in images(2)])
    with pytest.raises(InputError, match="leave mean and std out"):
        task.feeds(opened, [image - 300 for image in images(2)])


def test_a_graph_of_two_inputs_is_refused():
    node = helper.make_node("Add", ["a", "b"], ["y"])
    float_vector = (TensorProto.FLOAT, ["n"])
    opened = executor([node], {"a": float_vector, "b": float_vector}, {"y": float_vector})
    with pytest.raises(InputError, match="has the inputs a, b"):
        ClassificationTask().feeds(opened, [np.zeros((), np.float32)])


@pytest.mark.parametrize("number", [0, 1, 999, 1 << 24, (1 << 24) + 1])
def test_bytes_are_a_class_number_and_come_back(number):
    task = ClassificationTask()
    data = task.to_bytes(number, 7)
    if number < 1 << 24:  # what accuracy-imagenet.py of the reference implementation reads
        assert np.frombuffer(data, np.float32).tolist() == [number]
    assert task.from_bytes(data) == number


def test_bytes_are_the_labels_of_the_data_set():
    """A model of 1001 classes has the background before them; the reference implementation logs labels from 0."""
    task = ClassificationTask(label_offset=1)
    assert np.frombuffer(task.to_bytes(818, 0), np.float32).tolist() == [817]
    assert task.from_bytes(task.to_bytes(818, 0)) == 818
    assert task.from_bytes(task.to_bytes(0, 0)) == 0  # the background is no label, but comes back
