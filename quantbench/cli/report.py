"""`quantbench report`: the whole way for every reference and dtype, ending in one table and the report pages."""

from __future__ import annotations

from pathlib import Path

import click

from quantbench.cli.options import (
    DtypeCommand,
    debug_option,
    dtype_option,
    json_option,
    out_option,
    references_argument,
    samples_option,
)
from quantbench.cli.output import Column, emit, note

__all__ = ["report"]


@click.command(cls=DtypeCommand, epilog="Example: quantbench report ppocr-cls --dtype int8 fp11 --samples 500")
@references_argument
@dtype_option(required=False)
@samples_option
@out_option
@click.option(
    "--logs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder for LoadGen's logs.",
)
@click.option(
    "--reports",
    type=click.Path(path_type=Path),
    default=Path("reports"),
    show_default=True,
    help="Folder for index.html, index.md and results.json.",
)
@click.option("--force", is_flag=True, help="Measure again what is up to date.")
@json_option
@debug_option
def report(
    references: tuple[str, ...],
    dtypes: tuple[str, ...],
    samples: int | None,
    out: Path,
    logs: Path,
    reports: Path,
    force: bool,
    as_json: bool,
) -> None:
    """Do all of it and write the report pages.

    Converts, scores, gates, and puts what passed through quick LoadGen runs of all four scenarios. Without --dtype:
    int8, fp16, bfloat16 and fp11. What is up to date since the last report is not measured again. The quick runs are
    no MLPerf results. A verdict of fail is a finding here and does not change the exit status.
    """
    from quantbench.operations import everything

    results = everything.report(references, dtypes, samples=samples, out=out, logs=logs, reports=reports, force=force)
    emit(results, document=lambda result: result.document(), columns=_columns(), as_json=as_json)
    note(f"report: {reports / 'index.html'}")


def _columns() -> list[Column]:
    from quantbench.reports import table_columns

    columns = [column for column in table_columns() if column.terminal]
    return [
        ("reference", lambda result: result.reference),
        *((f">{column.short}" if column.number else column.short, column.text) for column in columns),
    ]
