"""`quantbench formats`: the table of number formats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from quantbench.cli.options import debug_option, json_option
from quantbench.cli.output import Column, emit

if TYPE_CHECKING:
    from quantbench.numerics import Format

__all__ = ["formats"]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


COLUMNS: list[Column] = [
    ("name", lambda format: format.name),
    ("kind", lambda format: format.kind),
    (">bits", lambda format: _number(format.bits)),
    (">exponent", lambda format: _number(format.exponent_bits)),
    (">mantissa", lambda format: _number(format.mantissa_bits)),
    (">bias", lambda format: _number(format.bias)),
    (">max", lambda format: _number(format.max)),
    (">min normal", lambda format: _number(format.min_normal)),
    (">subnormal", lambda format: _number(format.min_subnormal)),
    ("inf", lambda format: "yes" if format.has_inf else ""),
    ("nan", lambda format: "yes" if format.has_nan else ""),
    ("v0.5", lambda format: "yes" if format.mlperf_v05 else ""),
]


@click.command(epilog="Example: quantbench formats --json")
@json_option
@debug_option
def formats(as_json: bool) -> None:
    """List the number formats.

    Any eXmY (exponent and mantissa bits) is a format too, e.g. e4m7.
    """
    from quantbench.numerics import all_formats

    def document(format: Format) -> dict[str, object]:
        return format.document()

    emit(all_formats(), document=document, columns=COLUMNS, as_json=as_json)
