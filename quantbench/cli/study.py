"""`quantbench study`: the emulated quality of many number formats."""

from __future__ import annotations

import re
from pathlib import Path

import click

from quantbench.cli.options import debug_option, json_option, references_argument, samples_option, split_formats
from quantbench.cli.output import Column, emit, note
from quantbench.errors import InputError

__all__ = ["study"]


def _bits(ctx: click.Context, param: click.Parameter, value: str | None) -> range:
    """The numbers of "5" or "2..8"."""
    if value is None:
        return range(0)
    found = re.fullmatch(r"\s*(\d{1,3})\s*(?:\.\.\s*(\d{1,3}))?\s*", value)
    if found is None:
        raise InputError(f"--{param.name} is {value!r}; write one number of bits, or a range such as 2..8")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise InputError(f"--{param.name} is {value!r}, a range that ends before it begins; write {last}..{first}")
    return range(first, last + 1)


@click.command(epilog="Example: quantbench study ppocr-cls --exponent 3..6 --mantissa 1..6 --formats bf16")
@references_argument
@click.option(
    "--formats",
    multiple=True,
    callback=split_formats,
    metavar="F,F,...",
    help="Float or block formats: any name of `quantbench formats`, or eXmY.",
)
@click.option("--exponent", callback=_bits, metavar="A..B", help="A grid of eXmY: from A to B exponent bits.")
@click.option("--mantissa", callback=_bits, metavar="A..B", help="And from A to B mantissa bits.")
@samples_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder of the report pages; the study goes to studies/REFERENCE in it.",
)
@click.option("--force", is_flag=True, help="Score again what is known.")
@json_option
@debug_option
def study(
    references: tuple[str, ...],
    formats: tuple[str, ...],
    exponent: range,
    mantissa: range,
    samples: int | None,
    out: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Score REFERENCE in many float or block formats by emulation: weights and activations rounded, sums in FP32.

    Names formats with --formats, a grid of them with --exponent and --mantissa, or both. A plain eXmY follows IEEE 754:
    e4m3 has infinities and ends at 240, the OCP format that ends at 448 is fp8_e4m3fn (e5m2 is the OCP format too).
    Writes a table, JSON, a heat map (SVG and PNG) and the report pages. An interrupted study goes on where it was.
    A verdict of fail is a finding here and does not change the exit status.
    """
    from quantbench.operations import studies
    from quantbench.reports import study_columns

    if bool(exponent) != bool(mantissa):
        raise InputError("a grid needs both --exponent and --mantissa, such as --exponent 2..8 --mantissa 1..10")
    columns: list[Column] = [
        ("reference", lambda cell: cell.reference),
        *((f">{column.short}" if column.number else column.short, column.text) for column in study_columns()),
    ]
    asked = [*formats, *(entry.name for entry in studies.grid(exponent, mantissa))]
    cells = studies.study_all(references, asked, samples=samples, out=out, force=force)
    emit(cells, document=lambda cell: cell.document(), columns=columns, as_json=as_json)
    note(f"report: {out / 'index.html'}")
