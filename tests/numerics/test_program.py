"""Programs of short steps: numpy's bits, views with gaps, and what the kernel cannot take."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantbench.numerics import get_format, round_to
from quantbench.numerics.program import Program

FUNCTIONS = (np.add, np.subtract, np.multiply)


@settings(deadline=None)  # the first call loads the kernel
@given(
    st.lists(st.floats(width=32), min_size=6, max_size=6),
    st.lists(st.floats(width=32), min_size=6, max_size=6),
    st.sampled_from(FUNCTIONS),
)
def test_arithmetic_has_the_bits_of_numpy(left: list[float], right: list[float], function: np.ufunc) -> None:
    memory = np.zeros(18, np.float32)
    a, b, out = memory.reshape(3, 2, 3)
    a.flat, b.flat = left, right
    program = Program(memory)
    assert program.compute(function, a, b, out)
    program.finish()()
    with np.errstate(all="ignore"):
        want = function(a, b)
    np.testing.assert_array_equal(out, want)
    numbers = ~np.isnan(want)
    np.testing.assert_array_equal(np.signbit(out[numbers]), np.signbit(want[numbers]))


def test_views_with_gaps() -> None:
    memory = np.arange(100, dtype=np.float32)
    whole = memory[:36].reshape(2, 3, 6)
    part, other = whole[..., 1:3], memory[40:52].reshape(2, 3, 2)
    out, copied = memory[60:72].reshape(2, 3, 2), memory[80:92].reshape(2, 3, 2)
    want = part - other
    program = Program(memory)
    assert program.compute(np.subtract, part, other, out)
    assert program.copy(part, copied)
    program.finish()()
    np.testing.assert_array_equal(out, want)
    np.testing.assert_array_equal(copied, whole[..., 1:3])


@pytest.mark.parametrize("constant", [np.float32(3), np.float32([1, 2, 3]), np.float32([[4], [5]])])
def test_what_is_not_in_the_workspace_is_a_constant(constant: np.ndarray) -> None:
    memory = np.arange(12, dtype=np.float32)
    x, out = memory[:6].reshape(2, 3), memory[6:].reshape(2, 3)
    constant = np.asarray(constant)
    want, reverse = x - constant, constant - x
    program, other = Program(memory), Program(memory)
    assert program.compute(np.subtract, x, constant, out)
    assert other.compute(np.multiply, x, np.float32([[9] * 3] * 2), out)
    assert other.compute(np.subtract, constant, x, out)
    for run, wanted in ((program.finish(), want), (other.finish(), reverse), (program.finish(), want)):
        run()
        np.testing.assert_array_equal(out, wanted)


def test_steps_follow_each_other() -> None:
    memory = np.zeros(32, np.float32)
    memory[:8] = np.random.default_rng(0).normal(0, 1, 8)
    x, y, z = memory[:8], memory[8:16], memory[16:24]
    fp11, e2m1 = get_format("fp11"), get_format("e2m1")
    want = round_to(round_to(x * x, fp11) + x, e2m1)
    program = Program(memory)
    assert not program
    assert program.compute(np.multiply, x, x, y)
    program.round(y, fp11)
    assert program.compute(np.add, y, x, z)
    program.round(z, e2m1)
    run = program.finish()
    for _ in range(2):
        run()
        np.testing.assert_array_equal(z, want)


@pytest.mark.parametrize("name", ["fp11", "bfloat16", "fp16", "e4m3fn", "e5m2", "e2m1", "e8m0", "int8", "e4m3fnuz"])
def test_rounds_as_round_to(name: str) -> None:
    memory = np.random.default_rng(1).integers(0, 2**32, 1000, dtype=np.uint32).view(np.float32)
    want = round_to(memory[100:900], name)
    kept = memory.copy()
    program = Program(memory)
    program.round(memory[100:900], get_format(name))
    program.finish()()
    np.testing.assert_array_equal(memory[100:900], want)
    np.testing.assert_array_equal(memory[:100].view(np.uint32), kept[:100].view(np.uint32))
    np.testing.assert_array_equal(memory[900:].view(np.uint32), kept[900:].view(np.uint32))


def test_rows_of_parameters_of_different_lengths() -> None:
    memory = np.random.default_rng(2).normal(0, 100, 300).astype(np.float32)
    names = ("bfloat16", "fp11", "int8")  # by cutting, by adding, by the general kernel
    want = [round_to(part, name) for part, name in zip(memory.reshape(3, 100), names, strict=True)]
    program = Program(memory)
    for part, name in zip(memory.reshape(3, 100), names, strict=True):
        program.round(part, get_format(name))
    program.finish()()
    np.testing.assert_array_equal(memory.reshape(3, 100), want)


def test_what_the_kernel_cannot_take_is_refused() -> None:
    memory = np.zeros(100, np.float32)
    x = memory[:8].reshape(2, 4)
    program = Program(memory)
    assert not program.compute(np.divide, x, x, x)  # another function
    assert not program.compute(np.add, x, memory[:4], x)  # to be repeated
    assert not program.compute(np.add, x, x, memory[:16].reshape(2, 8)[:, :4])  # not contiguous
    assert not program.compute(np.add, x.T, x.T, memory[10:18].reshape(4, 2))  # rows of no contiguous values
    assert not program.compute(np.add, x.view(np.int32), x.view(np.int32), x.view(np.int32))
    assert not program
