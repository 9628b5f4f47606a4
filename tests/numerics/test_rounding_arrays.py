"""What round_to takes and where it puts the result: shapes, strides, `out`, threads, errors."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from quantbench.errors import InputError
from quantbench.numerics import get_format, round_inplace, round_to, rounder

X = np.random.default_rng(0).standard_normal((6, 10, 7)).astype(np.float32)
FP16 = X.astype(np.float16).astype(np.float32)


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a,
        lambda a: a[::2, ::-1, 1:],
        lambda a: a.T,
        lambda a: np.asfortranarray(a),
        lambda a: a[0, 0, 0:1].reshape(()),
        lambda a: a[:0],
        lambda a: np.broadcast_to(a[:1], (3, 10, 7)),
    ],
)
def test_any_shape_and_strides(view: Any) -> None:
    before = X.copy()
    result = round_to(view(X), "fp16")
    np.testing.assert_array_equal(result, view(FP16), strict=True)
    np.testing.assert_array_equal(X, before)


@pytest.mark.parametrize("name", ["fp11", "int8", "mxfp4", "nvfp4"])
@pytest.mark.parametrize("shape", [(), (1,), (5, 64), (0, 32), (1 << 19, 2)])
def test_a_settled_rounder_rounds_every_array_that_comes(name: str, shape: tuple[int, ...]) -> None:
    if shape == () and name in ("mxfp4", "nvfp4"):
        shape = (32,)  # blocks need an axis
    settled = rounder(name)
    for seed in range(2):
        x = np.random.default_rng(seed).normal(0, 20, shape).astype(np.float32)
        want = round_to(x, name)
        settled(x)
        np.testing.assert_array_equal(x, want, strict=True)


def test_an_unaligned_out() -> None:
    out = np.frombuffer(bytearray(X.nbytes + 1), np.uint8)[1:].view(np.float32).reshape(X.shape)
    assert not out.flags.aligned
    assert round_to(X, "fp16", out=out) is out
    np.testing.assert_array_equal(out, FP16)


def test_a_float32_scalar() -> None:
    assert round_to(np.float32(1023.99615), "fp11") == 1024


def test_out_may_be_the_input() -> None:
    x = X.copy()
    assert round_to(x, "fp16", out=x) is x
    np.testing.assert_array_equal(x, FP16)


def test_out_of_other_strides_and_overlapping_the_input() -> None:
    out = np.empty((7, 10, 6), np.float32).T
    assert round_to(X, "fp16", out=out) is out
    np.testing.assert_array_equal(out, FP16)
    flat = X.reshape(-1).copy()
    round_to(flat[:-1], "fp16", out=flat[1:])
    np.testing.assert_array_equal(flat[1:], FP16.reshape(-1)[:-1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": X.astype(np.float64)}, "float64"),
        ({"x": X.astype(">f4")}, ">f4"),
        ({"x": [1.0, 2.0]}, "list"),
        ({"format": "fp12"}, "fp11"),
        ({"rounding": "nearest"}, "nearest-even"),
        ({"rounding": "stochastic"}, "seed"),
        ({"out": np.empty((2, 2), np.float32)}, "(6, 10, 7)"),
        ({"out": np.empty(X.shape, np.float16)}, "float16"),
        ({"out": np.broadcast_to(np.float32(0), X.shape)}, "read-only"),
        ({"format": "mxfp4", "axis": 3}, "axis 3"),
        ({"format": "mxfp4", "x": np.float32(1)}, "axis"),
    ],
)
def test_errors_name_what_is_wrong(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as caught:
        round_to(**{"x": X, "format": "fp11", **options})
    assert words in str(caught.value)


def test_inplace_refuses_what_it_would_not_change() -> None:
    for wrong in (X[:, ::2], X.astype(np.float64), np.broadcast_to(X[:1], X.shape)):
        with pytest.raises(InputError, match="contiguous"):
            round_inplace(wrong, "fp11")


@pytest.mark.parametrize("name", ["fp11", "int8", "mxfp8_e4m3", "nvfp4"])
@pytest.mark.parametrize("rounding", ["nearest-even", "down", "stochastic"])
def test_the_number_of_threads_does_not_matter(name: str, rounding: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 400_000)).astype(np.float32)
    one = round_to(x, name, rounding=rounding, seed=5, threads=1)  # type: ignore[arg-type]
    for threads in (2, 3, 7):
        several = round_to(x, name, rounding=rounding, seed=5, threads=threads)  # type: ignore[arg-type]
        np.testing.assert_array_equal(several, one)


def test_rounding_from_many_threads_at_once() -> None:
    x = np.random.default_rng(2).standard_normal(700_000).astype(np.float32)
    expected = x.astype(np.float16).astype(np.float32)
    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(lambda _: round_to(x, "fp16"), range(12)):
            np.testing.assert_array_equal(result, expected)


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
def test_rounding_in_a_forked_process() -> None:
    """A fork does not take the waiting threads along."""
    import multiprocessing

    x = np.ones(1_000_000, np.float32)
    round_to(x, "fp11", threads=2)
    process = multiprocessing.get_context("fork").Process(target=round_to, args=(x, "fp11"), kwargs={"threads": 2})
    process.start()
    process.join(60)
    assert process.exitcode == 0


def test_stochastic_rounding_goes_up_as_often_as_the_remainder_says() -> None:
    """1 + r/32 in fp11 (step 1/32): up with probability r. n = 400,000, five standard deviations are 0.004."""
    for remainder in (0.0, 0.125, 0.5, 0.9375):
        for sign in (1, -1):
            x = np.full(400_000, sign * (1 + remainder / 32), np.float32)
            result = round_to(x, "fp11", rounding="stochastic", seed=11)
            assert set(np.unique(np.abs(result))) <= {1.0, 1.03125}
            assert abs((np.abs(result) > 1).mean() - remainder) < 0.004


@pytest.mark.parametrize("depth", [1, 4, 8, 12])
def test_stochastic_rounding_far_below_the_smallest_value(depth: int) -> None:
    """2^-depth of the smallest value becomes it with that probability; n = 4,000,000."""
    smallest = get_format("fp11").min_subnormal
    x = np.full(4_000_000, smallest * 2.0**-depth, np.float32)
    result = round_to(x, "fp11", rounding="stochastic", seed=3)
    chance = 2.0**-depth
    assert set(np.unique(result)) <= {np.float32(0), np.float32(smallest)}
    assert abs((result > 0).mean() - chance) < 5 * (chance * (1 - chance) / x.size) ** 0.5


def test_stochastic_rounding_follows_its_seed() -> None:
    """Half way between 1 and 1.25, coins are thrown: the same for one seed, independent for two and for neighbours."""
    x = np.full(1_000_000, 1.125, np.float32)
    one, other = (round_to(x, "fp8_e5m2", rounding="stochastic", seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(one, round_to(x, "fp8_e5m2", rounding="stochastic", seed=1))
    coins, other_coins = (np.where(result > x, 1.0, -1.0) for result in (one, other))
    bound = 5 / x.size**0.5
    assert abs((coins * other_coins).mean()) < bound
    for distance in (1, 2, 16, 1024, 65536):
        assert abs((coins[distance:] * coins[:-distance]).mean()) < 1.1 * bound
