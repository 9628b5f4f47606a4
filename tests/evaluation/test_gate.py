"""What passes the gate, by exact arithmetic, and the file that says so."""

import json
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.errors import InputError
from quantbench.evaluation import Score, fresh, judge, read_verdict, write_verdict
from quantbench.evaluation.gate import _reaches
from quantbench.metrics import MeanOutcomes

SHA = "ab" * 32


def reference(target=0.98):
    return SimpleNamespace(name="toy", quality=SimpleNamespace(target_ratio=target, metric="top1"))


def score(answers, dtype="int8", ids="c0ffee"):
    outcomes = MeanOutcomes(np.asarray(answers, float))
    return Score(
        reference="toy",
        dtype=dtype,
        metric="top1",
        score=outcomes.value,
        samples=len(outcomes),
        seconds=1.0,
        samples_per_second=float(len(outcomes)),
        execution="native",
        total_seconds=2.0,
        samples_sha256=ids,
        outcomes=outcomes,
    )


def right(count, samples):
    return np.arange(samples) < count


@pytest.mark.parametrize(
    ("fp32", "variant", "target", "verdict"),
    [
        (100, 98, 0.98, "pass"),
        (100, 97, 0.98, "fail"),
        (200, 198, 0.99, "pass"),
        (200, 197, 0.99, "fail"),
        (50, 50, 1.0, "pass"),
        (50, 49, 1.0, "fail"),
        (50, 60, 1.0, "pass"),
    ],
)
def test_a_variant_passes_at_the_target_and_not_below(fp32, variant, target, verdict):
    judged = judge(reference(target), score(right(fp32, 300)), score(right(variant, 300)), variant_sha256=SHA)
    assert judged.verdict == verdict
    assert judged.passed == (verdict == "pass")
    assert judged.ratio == pytest.approx(variant / fp32)
    assert judged.ratio_low <= judged.ratio <= judged.ratio_high


@given(st.data(), st.sampled_from(["0.98", "0.99", "0.97", "0.999", "0.5"]), st.integers(1, 10**7))
def test_float_noise_decides_nothing(data, target, samples):
    fp32 = data.draw(st.integers(1, samples))
    least = -(-Fraction(target) * fp32 // 1)  # the fewest right answers that pass
    for variant in (least - 1, least):
        passed = _reaches(int(variant) / samples, float(target) * (fp32 / samples))
        assert passed == (variant >= Fraction(target) * fp32)


def test_confidence_asks_that_the_lower_end_clears_the_target_too():
    generator = np.random.default_rng(0)
    fp32 = generator.random(400) < 0.8
    flips = generator.permutation(400)[:24]
    answers = fp32.copy()
    answers[flips] = ~answers[flips]
    answers[np.flatnonzero(~answers)[:12]] = True  # about the reference's score, by other answers
    plain = judge(reference(), score(fp32), score(answers), variant_sha256=SHA)
    assert plain.passed and plain.ratio_low < 0.98 <= plain.ratio
    assert (plain.confidence, plain.ratio_bound) == (None, None)
    half = judge(reference(), score(fp32), score(answers), confidence=0.5, variant_sha256=SHA)
    sure = judge(reference(), score(fp32), score(answers), confidence=0.975, variant_sha256=SHA)
    assert half.passed and not sure.passed
    assert sure.ratio_bound == pytest.approx(sure.ratio_low)  # one-sided at 97.5% is the lower end of 95%
    assert half.ratio_bound == pytest.approx(half.ratio, abs=0.004)
    assert half.ratio_bound > sure.ratio_bound


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5])
def test_a_confidence_that_is_no_probability_is_refused(confidence):
    with pytest.raises(InputError, match="--confidence"):
        judge(reference(), score(right(5, 9)), score(right(5, 9)), confidence=confidence, variant_sha256=SHA)


def test_scores_of_other_samples_are_refused():
    with pytest.raises(InputError, match="samples"):
        judge(reference(), score(right(5, 9)), score(right(5, 9), ids="beef"), variant_sha256=SHA)


def test_a_reference_that_scores_nothing_is_refused():
    with pytest.raises(InputError, match="scores 0"):
        judge(reference(), score(right(0, 9)), score(right(5, 9)), variant_sha256=SHA)


def test_the_verdict_is_kept_beside_the_variant(tmp_path):
    verdict = judge(reference(), score(right(100, 300)), score(right(99, 300)), variant_sha256=SHA)
    assert read_verdict(tmp_path) is None
    file = write_verdict(tmp_path, verdict)
    assert file == tmp_path / "verdict.json"
    document = json.loads(file.read_text())
    assert document["verdict"] == "pass" and document["variant_sha256"] == SHA
    assert document["ratio"] == pytest.approx(0.99)
    assert read_verdict(tmp_path) == verdict
    assert fresh(verdict, SHA) and not fresh(verdict, "cd" * 32)
    write_verdict(tmp_path, replace(verdict, verdict="fail"))
    assert not read_verdict(tmp_path).passed
    assert [path.name for path in tmp_path.iterdir()] == ["verdict.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"verdict": "pass"}'])
def test_a_damaged_verdict_is_named(tmp_path, text):
    (tmp_path / "verdict.json").write_text(text)
    with pytest.raises(InputError, match=r"verdict\.json cannot be read"):
        read_verdict(tmp_path)


def test_a_verdict_of_another_word_is_damaged(tmp_path):
    verdict = judge(reference(), score(right(100, 300)), score(right(99, 300)), variant_sha256=SHA)
    (tmp_path / "verdict.json").write_text(json.dumps({**verdict.document(), "verdict": "maybe"}))
    with pytest.raises(InputError, match="cannot be read"):
        read_verdict(tmp_path)


def test_the_document_has_the_contract(tmp_path):
    document = judge(reference(), score(right(100, 300)), score(right(99, 300)), variant_sha256=SHA).document()
    assert {"reference", "dtype", "metric", "reference_score", "score", "ratio", "ratio_low"} <= set(document)
    assert {"ratio_high", "target_ratio", "samples", "verdict"} <= set(document)
