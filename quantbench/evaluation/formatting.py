"""How a score is printed."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Context, Decimal

__all__ = ["format_score"]

_DIGITS = 5


def format_score(score: float) -> str:
    """Five significant digits, rounded half to even, as the MLPerf rules ask for accuracy: 0.764565 → "0.76456".

    A tie is one of the shortest decimal number that names the float, not of the float's binary value: 0.764565 is
    a tie although no float64 is.
    """
    value = Decimal(repr(float(score)))
    if not value.is_finite():
        return str(score)
    if value == 0:
        return f"{0:.{_DIGITS - 1}f}"
    rounded = Context(prec=_DIGITS, rounding=ROUND_HALF_EVEN).plus(value)
    exponent = rounded.adjusted() - _DIGITS + 1  # of the last digit printed
    return f"{rounded.quantize(Decimal(1).scaleb(exponent)):f}"
