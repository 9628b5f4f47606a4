"""Beam search against every sequence there is, on a decoder whose words depend on all words before."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from quantbench.tasks.beam_search import Beams

WORDS, END, LONGEST = 4, 0, 5


def logits(history):
    """Of the next word; drawn from the words before, the same for the same."""
    return np.random.default_rng([7, *history]).normal(0, 1.5, WORDS).astype(np.float32)


def log_probability(history, word):
    x = logits(history).astype(np.float64)
    return x[word] - np.log(np.exp(x).sum())


def ranked(penalty):
    """All sequences of at most `LONGEST` words by score: those that have ended, and those cut off at the length."""
    found = []
    for length in range(1, LONGEST + 1):
        for words in itertools.product(range(WORDS), repeat=length):
            if END in words[:-1] or (words[-1] != END and length < LONGEST):
                continue
            total = sum(log_probability(words[:place], word) for place, word in enumerate(words))
            counted = length - (words[-1] == END)
            found.append((total / ((5 + counted) / 6) ** penalty, words))
    return sorted(found, reverse=True)


def search(beams, penalty, starts=((),)):
    state = Beams.start(len(starts), beams)
    for _ in range(LONGEST):
        rows = [[logits([*start, *beam]) for beam in state.tokens[n]] for n, start in enumerate(starts)]
        state = state.step(np.array(rows), END, penalty)
        if state.ended.all():
            break
    return state


def sequence(tokens):
    words = tokens.tolist()
    return tuple(words[: words.index(END) + 1] if END in words else words)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_enough_beams_find_the_best_of_all_sequences(penalty):
    state = search(4**5, penalty)
    score, words = ranked(penalty)[0]
    assert sequence(state.tokens[0, 0]) == words
    length = (5 + state.lengths[0, 0]) / 6
    assert state.log_probabilities[0, 0] / length**penalty == pytest.approx(score, rel=1e-6)


def test_beams_are_in_order_and_all_different():
    state = search(10, 1.0)
    finite = np.isfinite(state.log_probabilities[0])
    scores = state.log_probabilities[0] / ((5 + state.lengths[0]) / 6)
    assert (np.diff(scores[finite]) <= 0).all()
    assert len({sequence(tokens) for tokens in state.tokens[0][finite]}) == finite.sum()


def test_the_length_penalty_prefers_the_longer():
    lengths = [search(8, penalty).lengths[0, 0] for penalty in (0.0, 4.0)]
    assert lengths[1] > lengths[0]


def test_sentences_of_a_batch_do_not_meet():
    starts = [(), (1,), (2, 3)]
    together = search(6, 1.0, starts)
    for number, start in enumerate(starts):
        alone = search(6, 1.0, [start])
        steps = min(alone.tokens.shape[2], together.tokens.shape[2])
        np.testing.assert_array_equal(together.tokens[number, 0, :steps], alone.tokens[0, 0, :steps])
        assert together.log_probabilities[number, 0] == alone.log_probabilities[0, 0]


def test_what_has_ended_stays_as_it_is():
    state = Beams.start(1, 2).step(np.array([[[9.0, 0, 0, 0], [0, 0, 0, 0]]], np.float32), END, 1.0)
    assert state.ended[0, 0]
    later = state.step(np.zeros((1, 2, WORDS), np.float32), END, 1.0)
    assert later.tokens[0, 0].tolist() == [END, END]
    assert later.log_probabilities[0, 0] == state.log_probabilities[0, 0]
    assert later.lengths[0, 0] == state.lengths[0, 0] == 0
