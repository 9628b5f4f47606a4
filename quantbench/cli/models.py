"""`quantbench models`: the built-in references and whether they are ready."""

from __future__ import annotations

import click

from quantbench.cli.options import debug_option, json_option
from quantbench.cli.output import Column, emit

__all__ = ["models"]

COLUMNS: list[Column] = [
    ("name", lambda entry: entry.name),
    ("suite", lambda entry: entry.suite),
    ("task", lambda entry: entry.task),
    ("metric", lambda entry: entry.metric),
    (">target", lambda entry: f"{entry.target_ratio:.0%}"),
    ("ready", lambda entry: "yes" if entry.ready else f"no: {entry.missing}"),
]


@click.command(epilog="Example: quantbench models --json")
@json_option
@debug_option
def models(as_json: bool) -> None:
    """List the built-in reference models."""
    from quantbench.operations import catalogue

    emit(catalogue.models(), document=lambda entry: entry.document(), columns=COLUMNS, as_json=as_json)
