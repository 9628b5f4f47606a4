"""Runs on arrays that stay: the bits of ordinary runs, and everything that has to fall back to those."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_ir as ir
import pytest
from onnx_models import graph, normal

from quantbench.graphs import fixed_runs
from quantbench.graphs.small_stages import SmallStage
from quantbench.graphs.staging import StagedSession, Tap, rounding_taps
from quantbench.numerics import get_format, round_to

MANY = fixed_runs._OFTEN + 4
FP11 = get_format("fp11")
ROUNDED = {"Abs", "Exp", "MatMul", "Mul", "Sigmoid", "Sub", "Tanh"}

CELL = """
    g (int64[n] token, float[n,4] s, float[n,1] scale) => (float[n,6] y, float[n,4] t, int64[n] next)
    {
      e = Gather(w, token)  p = MatMul(e, u)  a, b, c = Split <axis=-1, num_outputs=3> (p)
      z = Sigmoid(a)  k = Sub(one, z)  m = Mul(k, s)  h = Tanh(b)  f = Mul(z, h)  q = Add(m, f)  t = Mul(q, scale)
      r = Add(c, t)  y = MatMul(r, v)  next = Add(token, two)
    }
"""


def cell() -> ir.Model:
    weights = {"w": normal(8, 5), "u": normal(5, 12, seed=1), "v": normal(4, 6, seed=2)}
    return ir.from_proto(graph(CELL, **weights, one=np.float32(1), two=np.int64(2)))


def taps(model: ir.Model) -> dict[str, Tap]:
    """Everything is rounded that a node puts out, but for parts, indices and what is chosen by them."""
    made = [node.outputs[0].name or "" for node in model.graph if node.op_type in ROUNDED]
    return rounding_taps(dict.fromkeys(made, FP11), threads=1)


def staged(model: ir.Model) -> StagedSession:
    return StagedSession(model, taps(model))


def feeds(rows: int, seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "token": rng.integers(0, 6, rows),
        "s": rng.normal(0, 1, (rows, 4)).astype(np.float32),
        "scale": rng.normal(0, 1, (rows, 1)).astype(np.float32),
    }


def bound(session: StagedSession) -> int:
    """Runs on arrays that stay in this thread."""
    assert session._fixed is not None
    return sum(callable(run) for run in session._fixed._own.runs.values())


def test_same_bits_as_ordinary_runs() -> None:
    model = cell()
    session = staged(model)
    assert sum(isinstance(each.direct, SmallStage) for each in session._fixed._stages) == 3  # type: ignore[union-attr]
    for turn in range(3 * MANY):  # shapes take turns in the same memory
        given = feeds(1 + turn % 3, turn)
        ordinary = staged(model).run(given) if turn > 2 * MANY else None
        kept = {name: array.copy() for name, array in given.items()}
        results = session.run(given)
        for name, array in given.items():
            np.testing.assert_array_equal(array, kept[name])
        if ordinary is not None:
            for got, want in zip(results, ordinary, strict=True):
                np.testing.assert_array_equal(got, want)
    assert bound(session) == 3


def test_constants_outlast_runs_for_other_shapes() -> None:
    model = ir.from_proto(
        graph(
            "g (float[n,m] x) => (float[n,m] y) { a = Exp(x)  b = Sub(one, a)  c = Mul(b, each)  y = Tanh(c) }",
            one=np.float32(1),
            each=np.float32([[2], [-3]]),
        )
    )
    session = staged(model)
    shapes = [(2, 3), (2, 40), (2, 17), (2, 100)]
    for turn in range(4 * MANY):
        x = np.random.default_rng(turn).normal(0, 1, shapes[turn % 4]).astype(np.float32)
        np.testing.assert_array_equal(session.run({"x": x})[0], staged(model).run({"x": x})[0])
    assert bound(session) == 4


def test_results_are_the_callers() -> None:
    session = staged(cell())
    first = feeds(2, 0)
    for _ in range(MANY):
        results = session.run(first)
    assert bound(session) == 1
    kept = [result.copy() for result in results]
    session.run(feeds(2, 1))
    for result, before in zip(results, kept, strict=True):
        np.testing.assert_array_equal(result, before)
        result[...] = 0
    for again, before in zip(session.run(first), kept, strict=True):
        np.testing.assert_array_equal(again, before)


def test_threads_do_not_meet() -> None:
    model = cell()
    session = staged(model)
    given = [feeds(1 + seed % 2, seed) for seed in range(8)]
    want = [staged(model).run(each) for each in given]

    def often(index: int) -> None:
        for _ in range(5 * MANY):
            for got, wanted in zip(session.run(given[index]), want[index], strict=True):
                np.testing.assert_array_equal(got, wanted)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(often, range(8)))


def test_shapes_that_depend_on_values() -> None:
    model = graph(
        """
        g (float[n] x) => (float[m] y)
        { a = Abs(x)  i = NonZero(a)  j = Squeeze(i, zero)  p = Gather(a, j)  y = Add(p, p) }
        """,
        zero=np.array([0], np.int64),
    )
    session = staged(ir.from_proto(model))
    for turn in range(2 * MANY):
        x = np.float32([1, 0, -2, turn % 3])
        (y,) = session.run({"x": x})
        np.testing.assert_array_equal(y, 2 * round_to(np.abs(x[x != 0]), FP11))
    assert bound(session) == 0


def test_large_tensors_stay_in_ordinary_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_runs, "_WORKSPACE", 2048)
    session = staged(cell())
    for _ in range(MANY):
        session.run(feeds(64, 0))
        session.run(feeds(1, 0))
    runs = session._fixed._own.runs  # type: ignore[union-attr]
    assert [callable(run) for run in runs.values()] == [False, True]


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed_runs, "_SHAPES", 2)
    session = staged(cell())
    for _ in range(MANY):
        for rows in (1, 2, 3):
            session.run(feeds(rows, rows))
    assert bound(session) == 2


def test_only_roundings_are_bound() -> None:
    model = cell()
    seen: list[np.ndarray] = []
    session = StagedSession(model, taps(model) | {"q": Tap(seen.append)})
    for seed in range(MANY):
        session.run(feeds(1, seed))
    assert len({tuple(values.flat) for values in seen}) == MANY  # each is still what it was when it was seen


def test_errors_stay_errors() -> None:
    session = staged(cell())
    for _ in range(MANY):
        session.run(feeds(1, 0))
    wrong = feeds(1, 0) | {"token": np.array([99])}
    with pytest.raises(Exception, match="99"):
        session.run(wrong)
    with pytest.raises(Exception, match="int64"):
        session.run(feeds(1, 0) | {"token": np.array([1.0], np.float32)})
    assert session.run(feeds(1, 3))[1].shape == (1, 4)
