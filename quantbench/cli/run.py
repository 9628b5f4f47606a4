"""`quantbench run`: put variants that passed the gate through MLPerf LoadGen."""

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
)
from quantbench.cli.output import Column, emit

__all__ = ["run"]

COLUMNS: list[Column] = [
    ("reference", lambda run: run.reference),
    ("dtype", lambda run: run.dtype),
    ("scenario", lambda run: run.scenario),
    ("mode", lambda run: run.mode),
    ("valid", lambda run: "yes" if run.valid else "no"),
    (">result", lambda run: f"{run.result:.4g}"),
    ("unit", lambda run: run.unit),
    (">queries", lambda run: str(run.queries)),
    (">seconds", lambda run: f"{run.seconds:.1f}"),
]


@click.command(cls=DtypeCommand, epilog="Example: quantbench run ppocr-cls --dtype int8 --scenario Offline --quick")
@references_argument
@dtype_option(required=True)
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice(["SingleStream", "MultiStream", "Server", "Offline"], case_sensitive=False),
    multiple=True,
    required=True,
    help="How LoadGen sends its queries; may be repeated.",
)
@click.option("--mode", type=click.Choice(["performance", "accuracy"]), default="performance", show_default=True)
@click.option(
    "--round",
    "round_",
    type=click.Choice(["v0.5", "current"]),
    default="current",
    show_default=True,
    help="Whose rules.",
)
@click.option("--quick", is_flag=True, help="A run of seconds; it is marked as no result.")
@click.option("--ungated", is_flag=True, help="Run without a passing verdict; the run is marked so.")
@out_option
@click.option(
    "--logs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Folder for LoadGen's logs.",
)
@json_option
@debug_option
def run(
    references: tuple[str, ...],
    dtypes: tuple[str, ...],
    scenarios: tuple[str, ...],
    mode: str,
    round_: str,
    quick: bool,
    ungated: bool,
    out: Path,
    logs: Path,
    as_json: bool,
) -> None:
    """Run proven variants through LoadGen.

    A variant without a fresh passing verdict is refused (exit 1); see `quantbench gate`.
    """
    from quantbench.operations import runs

    finished = emit(
        runs.run_all(
            references,
            dtypes,
            scenarios,
            mode=mode,
            round=round_,
            quick=quick,
            ungated=ungated,
            out=out,
            logs=logs,
        ),
        document=lambda run: run.document(),
        columns=COLUMNS,
        as_json=as_json,
    )
    for done in finished:  # a line a run, as the reference harness prints it
        for line in [each.line for each in done.repeats] or [done.line()]:
            click.echo(line, err=as_json)
