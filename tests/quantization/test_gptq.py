"""GPTQ and AdaRound against implementations written out here: the optimal brain quantizer's loop, brute force."""

from __future__ import annotations

import importlib
import itertools

import numpy as np
import pytest

from quantbench.quantization.rounding.adaround import adaround
from quantbench.quantization.rounding.factor import factorize, multiply, solve
from quantbench.quantization.rounding.gptq import gptq
from quantbench.quantization.rounding.problem import Problem, Solution
from quantbench.quantization.rounding.scales import candidate_scales

METHODS = [gptq, adaround]


def problem(
    rows: int = 6,
    columns: int = 24,
    groups: int = 1,
    segments: np.ndarray | None = None,
    seed: int = 0,
    **options: object,
) -> Problem:
    """Correlated inputs of mean 0, and the nearest codes under max|w|/7."""
    generator = np.random.default_rng(seed)
    weight = generator.normal(size=(groups, rows, columns))
    inputs = generator.normal(size=(groups, 400, columns)) @ generator.normal(size=(groups, columns, columns))
    hessian = np.einsum("gni,gnj->gij", inputs, inputs) / 400 + 0.5 * np.eye(columns)
    segments = np.zeros(columns, np.int64) if segments is None else segments
    count = int(segments.max()) + 1
    largest = np.stack([np.abs(weight[:, :, segments == each]).max(2) for each in range(count)], axis=2)
    if options.get("one_scale"):
        largest = np.full_like(largest, largest.max())
    scales = (largest / 7).astype(np.float32)
    codes = np.clip(np.rint(weight / scales[:, :, segments]), -8, 7).astype(np.int32)
    least = np.zeros((groups, rows))
    return Problem(weight, hessian, segments, -8, 7, least, Solution(codes, scales), **options)  # type: ignore[arg-type]


def error(asked: Problem, answer: Solution) -> float:
    """Σ (w − s·q)·H·(w − s·q)ᵀ."""
    miss = asked.weight - answer.codes * answer.scales[:, :, asked.segments].astype(np.float64)
    return float(np.einsum("grk,gkl,grl->", miss, asked.hessian, miss))


def brain_surgeon(weight: np.ndarray, hessian: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """GPTQ's algorithm 1 without blocks: explicit inverses, one row at a time, columns in the order given."""
    rows, columns = weight.shape
    rounded = np.zeros((rows, columns), int)
    for row in range(rows):
        left = weight[row].copy()
        inverse = np.linalg.inv(hessian)
        for k in range(columns):
            rounded[row, k] = int(np.clip(np.rint(left[k] / scale[row]), -8, 7))
            miss = (left[k] - rounded[row, k] * scale[row]) / inverse[k, k]
            left = left - miss * inverse[k]
            inverse = inverse - np.outer(inverse[:, k], inverse[k]) / inverse[k, k]
    return rounded


@pytest.mark.parametrize("size", [1, 2, 65, 150, 151])
def test_the_factor_is_that_of_the_matrix(size: int):
    hessian = problem(columns=size).hessian[0]
    feedback, diagonal = factorize(hessian)
    unit = feedback.T + np.eye(size)
    assert np.array_equal(feedback, np.tril(feedback, -1))
    np.testing.assert_allclose(unit * diagonal @ unit.T, hessian, rtol=1e-9, atol=1e-9 * hessian.max())
    order = np.random.default_rng(2).permutation(size)
    for got, expected in zip(factorize(hessian, order), factorize(hessian[np.ix_(order, order)]), strict=True):
        assert np.array_equal(got, expected)
    rows = np.random.default_rng(1).normal(size=(5, size))
    np.testing.assert_allclose(multiply(rows, hessian), rows @ hessian, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(solve(rows, feedback, diagonal), rows @ np.linalg.inv(hessian), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_columns_are_rounded_as_the_brain_surgeon_does(seed: int, monkeypatch: pytest.MonkeyPatch):
    """One candidate scale, no moving of codes afterwards."""
    module = importlib.import_module("quantbench.quantization.rounding.gptq")
    monkeypatch.setattr(module, "_FRACTIONS", np.ones(1))
    monkeypatch.setattr(module, "_SWEEPS", 0)
    asked = problem(seed=seed)
    answer = gptq(asked)
    order = np.argsort(-np.diagonal(asked.hessian[0]), kind="stable")
    expected = brain_surgeon(
        asked.weight[0][:, order], asked.hessian[0][np.ix_(order, order)], answer.scales[0, :, 0].astype(np.float64)
    )
    assert np.array_equal(answer.codes[0][:, order], expected)


def test_no_codes_are_better_on_tiny_rows():
    """Of all 16^4 codes under the scale that was chosen, those of AdaRound and GPTQ are near the best."""
    asked = problem(rows=8, columns=4, seed=3)
    codes = np.array(list(itertools.product(range(-8, 8), repeat=4)))
    for method in METHODS:
        answer = method(asked)
        for row in range(8):
            miss = asked.weight[0, row] - codes * float(answer.scales[0, row, 0])
            errors = np.einsum("nk,kl,nl->n", miss, asked.hessian[0], miss)
            own = asked.weight[0, row] - answer.codes[0, row] * float(answer.scales[0, row, 0])
            assert own @ asked.hessian[0] @ own <= 1.3 * errors.min()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"one_scale": True},
        {"groups": 3, "columns": 9},
        {"segments": np.repeat([0, 1, 2], 8)},
        {"segments": np.tile([0, 1, 2], 8), "multiples": 16},
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_the_error_is_far_below_nearest(method: object, options: dict):
    asked = problem(**options)
    answer = method(asked)  # type: ignore[operator]
    assert answer.codes.min() >= -8 and answer.codes.max() <= 7
    assert answer.codes.shape == asked.weight.shape and answer.scales.shape == asked.nearest.scales.shape
    assert error(asked, answer) < 0.7 * error(asked, asked.nearest)


@pytest.mark.parametrize("seed", range(3))
def test_adaround_learns_more_than_gptq(seed: int):
    asked = problem(rows=24, columns=48, seed=seed)
    learned, greedy = adaround(asked), gptq(asked)
    assert error(asked, learned) < 0.99 * error(asked, greedy)
    assert np.abs(learned.codes - greedy.codes).max() == 1 and np.array_equal(learned.scales, greedy.scales)


def test_scales_of_a_tensor_are_one():
    answer = gptq(problem(one_scale=True, groups=2))
    assert np.unique(answer.scales).size == 1


def test_scales_of_blocks_are_multiples_of_their_rows_step():
    asked = problem(segments=np.repeat(np.arange(6), 4), multiples=16)
    scales = gptq(asked).scales.astype(np.float64)
    multiples = scales / (scales.max(axis=2, keepdims=True) / 16)
    assert np.array_equal(multiples, np.rint(multiples)) and multiples.min() >= 1 and np.unique(multiples).size > 3


def test_no_scale_goes_below_what_the_bias_needs():
    asked = problem()
    needed = asked.nearest.scales[:, :, 0] * np.linspace(0.1, 3, 6)
    bounded = Problem(asked.weight, asked.hessian, asked.segments, -8, 7, needed, asked.nearest)
    assert (gptq(bounded).scales[:, :, 0] >= needed.astype(np.float32)).all()
    assert (
        candidate_scales(bounded, np.array([1.0, 0.01]))[..., 1] >= needed[:, :, np.newaxis].astype(np.float32)
    ).all()


def test_codes_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    asked = problem(rows=70, columns=100)
    answers = []
    for count in (1, 2, 3):
        monkeypatch.setattr("quantbench.quantization.rounding.threads.cores", lambda count=count: count)
        answers.append([method(asked) for method in METHODS])
    for one, other in zip(answers[0] * 2, answers[1] + answers[2], strict=True):
        assert np.array_equal(one.codes, other.codes) and np.array_equal(one.scales, other.scales)


def test_factors_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    """Rows are shared out in each panel; their number is odd, so that one is left over where two go together."""
    hessian = problem(columns=301).hessian[0]
    factors = []
    for count in (1, 2, 3):
        monkeypatch.setattr("quantbench.quantization.rounding.threads.cores", lambda count=count: count)
        factors.append(factorize(hessian))
    for feedback, diagonal in factors[1:]:
        assert np.array_equal(feedback, factors[0][0]) and np.array_equal(diagonal, factors[0][1])


def test_the_seed_is_the_only_chance():
    asked = problem(rows=24, columns=48)
    again = Problem(**{**vars(asked), "seed": 1})
    assert np.array_equal(adaround(asked).codes, adaround(asked).codes)
    assert not np.array_equal(adaround(asked).codes, adaround(again).codes)


def test_a_row_of_zeros_stays_zero():
    asked = problem()
    weight = asked.weight.copy()
    weight[0, 2] = 0
    for method in METHODS:
        answer = method(Problem(**{**vars(asked), "weight": weight}))
        assert not answer.codes[0, 2].any() and np.isfinite(answer.scales).all() and (answer.scales > 0).all()
