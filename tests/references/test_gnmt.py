"""The arrays of GNMT's checkpoint, and what its twin's projection has learnt."""

from __future__ import annotations

import numpy as np
import pytest

from quantbench.graphs.executor import SessionExecutor
from quantbench.metrics.kinds import token_agreement
from quantbench.references.builders import gnmt
from quantbench.references.generators import gnmt_twin
from quantbench.references.generators._sentences import SPECIAL, draw_sentence, training_sentences
from quantbench.tasks.translation import TranslationTask

WORDS, LONGEST = 400, 10


@pytest.fixture(scope="module")
def twin():
    return gnmt_twin.draw(1, units=128, vocabulary=WORDS, longest=LONGEST)


def test_the_full_size_has_the_published_layers():
    shapes = gnmt.shapes(1024, 36548, 36548)
    kernels = {name: shape for name, shape in shapes.items() if name.endswith("cell/kernel")}
    # Wu et al. 2016 with four layers: two directions and three layers read, four write, 1,024 units, four gates each.
    assert len(kernels) == 5 + 4
    assert all(shape[1] == 4 * 1024 for shape in kernels.values())
    inputs = sorted(shape[0] // 1024 - 1 for shape in kernels.values())
    assert inputs == [
        1,
        1,
        1,
        1,
        2,
        2,
        2,
        2,
        2,
    ]  # in units: two where a layer reads both directions, or the attention too


def test_a_missing_array_and_one_of_another_shape_are_named(twin):
    name = "dynamic_seq2seq/decoder/memory_layer/kernel"
    without = {key: array for key, array in twin.items() if key != name}
    with pytest.raises(KeyError, match="memory_layer/kernel"):
        gnmt.build(without)
    bias = "dynamic_seq2seq/decoder/multi_rnn_cell/cell_1/basic_lstm_cell/bias"
    with pytest.raises(ValueError, match=r"cell_1/basic_lstm_cell/bias.*\(3,\), not float32 \(512,\)"):
        gnmt.build({**twin, bias: np.zeros(3, np.float32)})


def test_the_twin_has_every_array_of_the_checkpoint(twin):
    assert {name: array.shape for name, array in twin.items()} == gnmt.shapes(128, WORDS, WORDS)
    assert all(array.dtype == np.float32 for array in twin.values())
    again = gnmt_twin.draw(1, units=128, vocabulary=WORDS, longest=LONGEST)
    assert all(np.array_equal(array, again[name]) for name, array in twin.items())


def test_variations_of_one_motif_have_more_words_in_common_than_chance_would_have(twin):
    """Of words drawn at random, 1 in 400 would be the same."""
    words = (*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), WORDS)))
    task = TranslationTask(words, SPECIAL.index("<s>"), SPECIAL.index("</s>"), beams=3)
    executor = SessionExecutor({name: model.SerializeToString() for name, model in gnmt.build(twin).items()})
    motifs = training_sentences(2, WORDS, LONGEST)
    texts = task.predictions(task.infer(executor, task.feeds(executor, [row for motif in motifs for row in motif])))
    assert token_agreement.measure(texts[::2], texts[1::2]).value > 0.3
    assert token_agreement.measure(texts[::2], [*texts[2::2], texts[0]]).value < 0.05


def test_sentences_are_variations_of_few_motifs():
    sentences = [draw_sentence(np.random.default_rng(number), WORDS, LONGEST) for number in range(60)]
    assert all(3 <= len(sentence) <= LONGEST for sentence in sentences)
    assert all(len(SPECIAL) <= sentence.min() and sentence.max() < WORDS for sentence in sentences)
    near = [
        max(np.mean(one == other) for other in sentences if other is not one and len(other) == len(one))
        for one in sentences
        if sum(len(other) == len(one) for other in sentences) > 1
    ]
    assert np.median(near) >= 0.5  # random words would agree in 1 of 50 places
    assert len({sentence.tobytes() for sentence in sentences}) > 30
