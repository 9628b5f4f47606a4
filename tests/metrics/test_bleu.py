"""BLEU against the definition, counted here, and sacrebleu's corpus score."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from quantbench.errors import InputError
from quantbench.metrics.kinds.bleu import measure


def sentences(count, seed):
    """Pairs of texts that share much: the second is the first with words changed, left out and doubled."""
    rng = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        words = [f"w{k}" for k in rng.zipf(1.5, rng.integers(1, 25)) % 50]
        other = []
        for word in words:
            chance = rng.random()
            other += [word] if chance < 0.75 else [f"x{rng.integers(9)}"] if chance < 0.9 else [word, word]
        pairs.append((" ".join(other), " ".join(words)))
    return pairs


def bleu(pairs):
    """Papineni et al. 2002, section 2.3, with uniform weights up to 4-grams."""
    matches, totals, found_words, wanted_words = [0] * 4, [0] * 4, 0, 0
    for found, wanted in ((a.split(), b.split()) for a, b in pairs):
        found_words, wanted_words = found_words + len(found), wanted_words + len(wanted)
        for n in range(1, 5):
            one, other = (Counter(tuple(w[k : k + n]) for k in range(len(w) - n + 1)) for w in (found, wanted))
            matches[n - 1] += sum((one & other).values())
            totals[n - 1] += sum(one.values())
    if 0 in matches:
        return 0.0
    brevity = min(1.0, math.exp(1 - wanted_words / found_words))
    return brevity * math.exp(sum(math.log(m / t) for m, t in zip(matches, totals, strict=True)) / 4)


@pytest.mark.parametrize("seed", range(4))
def test_the_definition_and_sacrebleu(seed):
    pairs = sentences(40, seed)
    found, wanted = zip(*pairs, strict=True)
    value = measure(found, wanted).value
    assert value == pytest.approx(bleu(pairs), abs=1e-12)
    corpus = BLEU(tokenize="none", smooth_method="none").corpus_score(list(found), [list(wanted)])
    assert value == pytest.approx(corpus.score / 100, abs=1e-12)


def test_a_resample_is_the_corpus_of_the_sentences_drawn():
    pairs = sentences(30, 9)
    outcomes = measure(*zip(*pairs, strict=True))
    rng = np.random.default_rng(1)
    counts = np.stack([np.bincount(rng.integers(0, 30, 30), minlength=30) for _ in range(5)])
    wanted = [bleu([pair for pair, times in zip(pairs, row, strict=True) for _ in range(times)]) for row in counts]
    np.testing.assert_allclose(outcomes.resampled(counts), wanted, atol=1e-12)


def test_equal_texts_score_one_and_others_nothing():
    texts = ["a b c d e", "f g h i"]
    assert measure(texts, texts).value == 1.0
    assert measure(["a b c d e", "x y z w"], ["k l m n o", "f g h i"]).value == 0.0
    assert measure(["a b d c e"], ["a b c d e"]).value == 0.0  # no 4-gram in common, and no smoothing


def test_words_are_split_at_spaces_alone():
    assert measure(["Wörter , die ; enden !"], ["Wörter , die ; enden !"]).value == 1.0
    assert measure(["die Wörter, die enden"], ["die Wörter , die enden"]).value == 0.0


def test_truths_that_are_no_texts_are_refused():
    with pytest.raises(InputError, match="compares texts"):
        measure(["a"], [1])
