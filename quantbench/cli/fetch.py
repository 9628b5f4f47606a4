"""`quantbench fetch`: get the models and data sets of references ahead of time."""

from __future__ import annotations

import click

from quantbench.cli.options import debug_option, references_argument
from quantbench.cli.output import Column, emit

__all__ = ["fetch"]

COLUMNS: list[Column] = [
    ("reference", lambda fetched: fetched.reference),
    ("model", lambda fetched: str(fetched.path)),
]


@click.command(epilog="Example: quantbench fetch ppocr-cls ppocr-rec")
@references_argument
@debug_option
def fetch(references: tuple[str, ...]) -> None:
    """Fetch models and data into the user's cache.

    Everything is checked by sha256; what is there already is kept.
    """
    from quantbench.operations import catalogue

    emit(catalogue.fetch(references), document=vars, columns=COLUMNS, as_json=False)
