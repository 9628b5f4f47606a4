"""Intervals of the ratio against scipy's bootstrap and against the delta method."""

import numpy as np
import pytest
from scipy import stats

from quantbench.errors import InputError
from quantbench.evaluation import bootstrap
from quantbench.evaluation.bootstrap import resampled_ratios
from quantbench.metrics import MeanOutcomes, get_metric


def paired_answers(seed, samples=600, kept=0.95):
    """Right and wrong answers of a reference and of a variant that mostly agrees with it."""
    generator = np.random.default_rng(seed)
    reference = generator.random(samples) < 0.8
    agrees = generator.random(samples) < kept
    return reference.astype(float), np.where(agrees, reference, ~reference).astype(float)


@pytest.mark.parametrize("seed", range(3))
def test_interval_is_that_of_scipy(seed):
    reference, variant = paired_answers(seed)
    expected = stats.bootstrap(
        (reference, variant),
        lambda a, b, axis: b.mean(axis=axis) / a.mean(axis=axis),
        paired=True,
        method="percentile",
        n_resamples=10_000,
        batch=1000,
        rng=np.random.default_rng(100 + seed),
    ).confidence_interval
    ratios = resampled_ratios(MeanOutcomes(reference), MeanOutcomes(variant))
    assert len(ratios) == 10_000
    half_width = (expected.high - expected.low) / 2
    assert 0.005 < half_width < 0.05
    np.testing.assert_allclose(np.quantile(ratios, [0.025, 0.975]), expected, atol=half_width / 10)


def test_spread_is_that_of_the_delta_method():
    reference, variant = paired_answers(9, samples=5000)
    ratio = variant.mean() / reference.mean()
    expected = np.std(variant - ratio * reference) / reference.mean() / np.sqrt(len(reference))
    assert np.std(resampled_ratios(MeanOutcomes(reference), MeanOutcomes(variant))) == pytest.approx(expected, rel=0.03)


def test_merging_alike_samples_changes_no_distribution():
    reference, variant = paired_answers(4)
    merged = resampled_ratios(MeanOutcomes(reference), MeanOutcomes(variant))

    class Opaque:
        """The same mean, of a kind of outcome that the bootstrap does not know."""

        def __init__(self, per_sample):
            self.inner = MeanOutcomes(per_sample)
            self.value = self.inner.value

        def __len__(self):
            return len(self.inner)

        def resampled(self, counts):
            assert counts.shape[1] == len(self)
            return self.inner.resampled(counts)

    apart = resampled_ratios(Opaque(reference), Opaque(variant))
    assert stats.ks_2samp(merged, apart).pvalue > 0.01


def test_the_pairs_matter():
    """Two variants of one score: the one that errs where the reference does has the narrower interval."""
    reference, near = paired_answers(5, kept=0.99)
    far = np.random.default_rng(0).permutation(near)
    widths = [
        np.ptp(np.quantile(resampled_ratios(MeanOutcomes(reference), MeanOutcomes(v)), [0.025, 0.975]))
        for v in (near, far)
    ]
    assert widths[0] < widths[1] / 3


def test_the_same_seed_gives_the_same_interval_whatever_the_memory(monkeypatch):
    outcomes = [MeanOutcomes(answers) for answers in paired_answers(6)]
    whole = resampled_ratios(*outcomes)
    np.testing.assert_array_equal(whole, resampled_ratios(*outcomes))
    monkeypatch.setattr(bootstrap, "_BUDGET", 8 * 4 * 7)  # seven resamples at a time
    np.testing.assert_array_equal(whole, resampled_ratios(*outcomes))
    assert not np.array_equal(whole, resampled_ratios(*outcomes, seed=1))


def test_detections_are_resampled_by_image():
    """Two kinds of image, all boxes found and none: a resample's mAP is known from how many of each it holds."""
    box = np.array([[0.0, 0, 10, 10]])
    found, lost = np.array([[0, 0, 10, 10, 0.9, 1]]), np.zeros((0, 6))
    reference = get_metric("map")([found] * 40, [box] * 40)
    variant = get_metric("map")([found] * 30 + [lost] * 10, [box] * 40)
    assert reference.value == 1
    assert variant.value == pytest.approx(76 / 101)  # the recalls 0 to 0.75
    ratios = resampled_ratios(reference, variant)
    drawn = stats.binom(40, 0.75)
    expected = [np.floor(drawn.ppf(q) / 40 * 100 + 1e-9) + 1 for q in (0.025, 0.5, 0.975)]
    np.testing.assert_allclose(np.quantile(ratios, [0.025, 0.5, 0.975]) * 101, expected, atol=2.6)  # one image: 2.5


def test_resamples_in_which_the_reference_scores_nothing_are_left_out():
    one, none = np.array([1.0, 0.0]), np.array([1.0, 1.0])
    ratios = resampled_ratios(MeanOutcomes(one), MeanOutcomes(none))
    assert set(np.unique(ratios)) == {1.0, 2.0}
    assert 7000 < len(ratios) < 8000  # a quarter draws the second sample twice


def test_unequal_lengths_are_refused():
    with pytest.raises(InputError, match="3 and 4 samples"):
        resampled_ratios(MeanOutcomes(np.ones(3)), MeanOutcomes(np.ones(4)))
