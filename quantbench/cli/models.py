"""`quantbench models`: the built-in references, whether they are ready, and the published rows of the MLPerf suite."""

from __future__ import annotations

import re

import click

from quantbench.cli.options import debug_option, json_option
from quantbench.cli.output import Column, emit, print_table

__all__ = ["models"]

COLUMNS: list[Column] = [
    ("name", lambda entry: entry.name),
    ("suite", lambda entry: entry.suite),
    ("task", lambda entry: entry.task),
    ("metric", lambda entry: entry.metric),
    (">target", lambda entry: f"{entry.target_ratio:.0%}"),
    ("ready", lambda entry: "yes" if entry.ready else "no"),
]

PUBLISHED_COLUMNS: list[Column] = [
    ("model", lambda row: row.model),
    ("framework", lambda row: row.framework),
    (">accuracy", lambda row: row.accuracy),
    ("data set", lambda row: row.dataset),
    ("link", lambda row: _short(row.link)),
    ("precision", lambda row: row.precision),
]

MISSING_COLUMNS: list[Column] = [
    ("not ready", lambda entry: entry.name),
    ("what makes it so", lambda entry: entry.missing),
]


@click.command(epilog="Example: quantbench models --json")
@json_option
@debug_option
def models(as_json: bool) -> None:
    """List the built-in reference models, and what MLPerf publishes of those in its suite.

    --json has the whole links, and the bounds and sample counts of the rules.
    """
    from quantbench.operations import catalogue

    entries = emit(catalogue.models(), document=lambda entry: entry.document(), columns=COLUMNS, as_json=as_json)
    if as_json:
        return
    if published := [row for entry in entries for row in entry.published]:
        click.echo()
        print_table(published, PUBLISHED_COLUMNS)
    if missing := [entry for entry in entries if not entry.ready]:
        click.echo()
        print_table(missing, MISSING_COLUMNS)


def _short(link: str) -> str:
    """The archive and its record, which fit into a table: `zenodo 4735647`."""
    return re.sub(r"^https?://(\w+)\.org/record/(\d+)/.*$", r"\1 \2", link)
