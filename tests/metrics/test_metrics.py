"""The metrics that are a mean, by hand, and how metrics are found."""

import numpy as np
import pytest

from quantbench.errors import InputError
from quantbench.metrics import get_metric, metric_names


def test_top1_by_hand():
    assert get_metric("top1")([3, 1, 2, 2], [3, 0, 2, np.int64(1)]).value == 0.5


def test_exact_match_by_hand():
    assert get_metric("exact-match")(["ab", "ab ", "", "Ab"], ["ab", "ab", "", "ab"]).value == 0.5


def test_any_listed_pronunciation_counts():
    truths = [("R EH1 D", "R IY1 D"), ("D AO1 G",), ("K AE1 T",)]
    outcomes = get_metric("word-accuracy")(["R IY1 D", "D AO1", "K AE1 T"], truths)
    assert outcomes.value == 2 / 3
    assert list(outcomes.per_sample) == [1, 0, 1]


def test_a_mean_of_a_resample_counts_each_draw():
    outcomes = get_metric("top1")([1, 1, 1], [1, 0, 1])
    counts = np.array([[1, 1, 1], [0, 3, 0], [2, 0, 1], [1, 2, 0]])
    np.testing.assert_allclose(outcomes.resampled(counts), [2 / 3, 0, 1, 1 / 3])


def test_truths_of_another_kind_are_refused():
    with pytest.raises(InputError, match="exact-match"):
        get_metric("top1")(["a"], ["a"])
    with pytest.raises(InputError, match="accepted answers"):  # "A" in "CAT" would be true
        get_metric("word-accuracy")(["A"], ["CAT"])


def test_unknown_metric_offers_the_nearest():
    with pytest.raises(InputError, match="did you mean 'word-accuracy'"):
        get_metric("word-acuracy")


def test_every_metric_file_is_found_and_measures():
    assert {"exact-match", "map", "top1", "word-accuracy"} <= set(metric_names())
    for name in metric_names():
        assert callable(get_metric(name))
