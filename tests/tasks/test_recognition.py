"""Greedy CTC decoding against its definition, step by step."""

from itertools import groupby
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_graphs import identity

from quantbench.datasets import open_dataset
from quantbench.errors import InputError
from quantbench.graphs import SessionExecutor
from quantbench.references import load_reference, missing, source_models
from quantbench.tasks import make_task
from quantbench.tasks.batching import Output
from quantbench.tasks.recognition import RecognitionTask

CHARACTERS = ("", "a", "b", "é", " ")


def decode(columns):
    """Texts of best classes (n, T)."""
    scores = np.eye(len(CHARACTERS), dtype=np.float32)[np.asarray(columns)]
    return RecognitionTask(CHARACTERS).predictions([Output(tuple(range(len(scores))), scores)])


def test_by_hand():
    assert decode([[1, 1, 0, 1, 2, 2], [0, 0, 0, 0, 0, 0], [3, 0, 3, 3, 4, 1], [2, 1, 2, 1, 0, 0]]) == [
        "aab",
        "",
        "éé a",
        "baba",
    ]


@given(arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 30)), elements=st.integers(0, 4)))
def test_repeats_collapse_before_blanks_drop(columns):
    assert decode(columns) == ["".join(CHARACTERS[k] for k, _ in groupby(row) if k != 0) for row in columns.tolist()]


@given(st.text())
def test_bytes_come_back(text):
    task = RecognitionTask(CHARACTERS)
    assert task.from_bytes(task.to_bytes(text, 3)) == text


def test_a_character_set_of_another_size_is_refused():
    opened = identity(["n", "t", "c"])
    task = RecognitionTask(CHARACTERS)
    raw = task.infer(opened, task.feeds(opened, [np.zeros((8, 6), np.float32)]))
    with pytest.raises(InputError, match=r"needs \(n, columns, 5\)"):
        task.predictions(raw)


def test_a_data_set_without_a_character_set_is_refused():
    reference = SimpleNamespace(name="lines", task="text-recognition", model=SimpleNamespace(output=None))
    with pytest.raises(InputError, match=r"lines.*character"):
        make_task(reference, SimpleNamespace(prediction_space=None))


def test_an_unknown_task_offers_the_nearest():
    reference = SimpleNamespace(name="lines", task="text-recogniton")
    with pytest.raises(InputError, match="did you mean 'text-recognition'"):
        make_task(reference, SimpleNamespace(prediction_space=None))


def test_the_real_model_reads_lines():
    reference = load_reference("ppocr-rec")
    if (reason := missing(reference)) is not None:
        pytest.skip(reason)
    dataset = open_dataset(reference)
    task = make_task(reference, dataset)
    opened = SessionExecutor({name: model.SerializeToString() for name, model in source_models(reference).items()}, 1)
    inputs = [dataset.calibration.input(index) for index in range(12)]
    texts = task.predictions(task.infer(opened, task.feeds(opened, inputs)))
    assert sum(text == dataset.calibration.truth(index) for index, text in enumerate(texts)) >= 10
    alone = [task.predictions(task.infer(opened, task.feeds(opened, [image])))[0] for image in inputs[:3]]
    assert alone == texts[:3]
