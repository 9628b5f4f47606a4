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
    return "" if value is None else f"{value:.5g}"


COLUMNS: list[Column] = [
    ("name", lambda entry: entry.name),
    ("kind", lambda entry: entry.kind),
    (">bits", lambda entry: _number(entry.bits)),
    (">exp", lambda entry: _number(entry.exponent_bits)),
    (">man", lambda entry: _number(entry.mantissa_bits)),
    (">bias", lambda entry: _number(entry.bias)),
    (">max", lambda entry: _number(entry.max)),
    (">normal", lambda entry: _number(entry.min_normal)),
    (">subnormal", lambda entry: _number(entry.min_subnormal)),
    ("inf", lambda entry: "yes" if entry.has_inf else ""),
    ("nan", lambda entry: "yes" if entry.has_nan else ""),
    ("v0.5", lambda entry: "yes" if entry.mlperf_v05 else ""),
]


KEYS = (
    "name",
    "kind",
    "bits",
    "exponent_bits",
    "mantissa_bits",
    "bias",
    "max",
    "min",
    "min_normal",
    "min_subnormal",
    "has_subnormals",
    "has_inf",
    "has_nan",
    "top_codes",
    "signed",
    "mlperf_v05",
    "aliases",
    "element",
    "block_size",
    "scale",
    "tensor_scale",
    "bits_per_value",
    "source",
)


@click.command(epilog="Example: quantbench formats --json")
@json_option
@debug_option
def formats(as_json: bool) -> None:
    """List the number formats.

    Any eXmY (exponent and mantissa bits) is a format too, e.g. e4m7.
    """
    from quantbench.numerics import Format, all_formats

    def document(entry: Format) -> dict[str, object]:
        values = {key: getattr(entry, key) for key in KEYS}
        return {key: value.name if isinstance(value, Format) else value for key, value in values.items()}

    emit(all_formats(), document=document, columns=COLUMNS, as_json=as_json)
