"""Five significant digits, half to even."""

from decimal import ROUND_HALF_EVEN, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quantbench.evaluation import format_score


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.764565, "0.76456"),  # a tie goes to the even digit
        (0.764575, "0.76458"),
        (0.764575000001, "0.76458"),
        (76.4565, "76.456"),
        (76.4555, "76.456"),
        (1.0, "1.0000"),
        (0.5, "0.50000"),
        (0.0, "0.0000"),
        (0.99999501, "1.0000"),
        (0.0012345678, "0.0012346"),
        (1e-07, "0.00000010000"),
        (123456.0, "123460"),
    ],
)
def test_by_hand(score, text):
    assert format_score(score) == text


@given(st.integers(10_000, 99_999), st.integers(0, 9))
def test_agrees_with_decimal_quantize(digits, next_digit):
    decimal = Decimal(f"0.{digits}{next_digit}")
    assert Decimal(format_score(float(decimal))) == decimal.quantize(Decimal("0.00001"), ROUND_HALF_EVEN)
