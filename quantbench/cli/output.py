"""How results reach the terminal: one JSON document or one table on stdout, everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from quantbench.errors import QuantbenchError

__all__ = ["Column", "emit", "note", "print_table"]

Row = TypeVar("Row")

WIDTH = 100

Column = tuple[str, Callable[[Any], str]]
"""A table's column: its heading (a leading ">" aligns it right) and the text of a result's cell."""


def emit(
    results: Iterable[Row],
    *,
    document: Callable[[Row], Mapping[str, Any]],
    columns: Sequence[Column],
    as_json: bool,
) -> list[Row]:
    """Work through `results` and print them; what was done before an error is printed too.

    Raises:
        QuantbenchError: what working through `results` raised, after the results that came before it are printed.
    """
    done: list[Row] = []
    failure: QuantbenchError | None = None
    with _stdout_to_stderr():
        try:
            for result in results:
                done.append(result)  # noqa: PERF402 (extend would lose the earlier results when a later one fails)
        except QuantbenchError as error:
            failure = error
    if done or failure is None:
        if as_json:
            from quantbench.support import to_json

            click.echo(to_json([document(result) for result in done]), nl=False)
        else:
            print_table(done, columns)
    if failure is not None:
        raise failure
    return done


def note(sentence: str) -> None:
    """Tell the user something that is no result."""
    click.echo(sentence, err=True)


def print_table(rows: Sequence[Row], columns: Sequence[Column]) -> None:
    """One table on stdout."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for heading, _ in columns:
        table.add_column(heading.lstrip(">"), justify="right" if heading.startswith(">") else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(row) for _, text in columns))
    console = Console(file=sys.stdout, highlight=False, markup=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    with console.capture() as captured:  # rich would answer a closed pipe with an exit status of its own
        console.print(table)
    click.echo(captured.get(), nl=False)


@contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send whatever libraries print (LoadGen and pip among them) to stderr, down to the file descriptor."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
    except OSError:  # the process was started without a stdout
        yield
        return
    python_stdout = sys.stdout
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        yield
    finally:
        sys.stdout = python_stdout
        os.dup2(saved, 1)
        os.close(saved)
