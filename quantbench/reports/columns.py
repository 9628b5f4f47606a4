"""The columns of the tables of results and studies, the same on the terminal and on the pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from quantbench.evaluation import format_score
from quantbench.reports.results import REFERENCE, ROUND, Result
from quantbench.reports.studies import Cell
from quantbench.scenarios import SCENARIOS
from quantbench.scenarios.rounds import settings

__all__ = ["TableColumn", "study_columns", "table_columns"]

Row = TypeVar("Row")


@dataclass(frozen=True)
class TableColumn(Generic[Row]):
    """One column of a table; a row is a result or a cell of a study."""

    heading: str
    short: str
    """The heading where room is scarce."""
    text: Callable[[Row], str]
    number: bool = True
    """Numbers are aligned right."""
    terminal: bool = True
    """Whether it is worth its place in a table of 100 characters."""


def table_columns() -> list[TableColumn[Result]]:
    """The columns of a table of results, after the one that names the reference."""
    return [
        TableColumn("dtype", "dtype", lambda result: result.dtype, number=False),
        TableColumn("score", "score", lambda result: format_score(result.score)),
        TableColumn("ratio to FP32", "ratio", lambda result: _unless_reference(result, f"{result.ratio:.2%}")),
        TableColumn(
            "95% interval",
            "interval",
            lambda result: _unless_reference(result, _interval(result.ratio_low, result.ratio_high)),
            terminal=False,
        ),
        TableColumn("verdict", "verdict", lambda result: _unless_reference(result, result.verdict), number=False),
        TableColumn("size, MB", "MB", lambda result: f"{result.model_bytes / 1e6:.2f}"),
        TableColumn("speed", "speed", _speed),
        *(_scenario_column(name) for name in SCENARIOS),
    ]


def study_columns() -> list[TableColumn[Cell]]:
    """The columns of a table of a study's cells, after the one that names the reference."""
    return [
        TableColumn("format", "format", lambda cell: cell.format, number=False),
        TableColumn("bits", "bits", lambda cell: str(cell.bits)),
        TableColumn("exponent bits", "exp", lambda cell: str(cell.exponent_bits)),
        TableColumn("mantissa bits", "man", lambda cell: str(cell.mantissa_bits)),
        TableColumn("score", "score", lambda cell: format_score(cell.score)),
        TableColumn("ratio to FP32", "ratio", lambda cell: f"{cell.ratio:.2%}"),
        TableColumn("95% interval", "interval", lambda cell: _interval(cell.ratio_low, cell.ratio_high)),
        TableColumn("samples", "samples", lambda cell: str(cell.samples)),
        TableColumn("verdict", "verdict", lambda cell: cell.verdict, number=False),
    ]


def _interval(low: float, high: float) -> str:
    return f"{100 * low:.2f}–{100 * high:.2f}%"


def _unless_reference(result: Result, text: str) -> str:
    return "–" if result.verdict == REFERENCE else text


def _speed(result: Result) -> str:
    """A multiple of FP32's throughput; in brackets where emulation runs, which says nothing of the format."""
    return f"({result.speed:.2f}×)" if result.execution == "emulated" else f"{result.speed:.2f}×"


def _figures(value: float) -> str:
    """Four significant digits or all before the point: 0.1230, 12.30, 1,234, 123,456."""
    return f"{value:,.0f}" if abs(value) >= 1000 else format(value, "#.4g")


def _scenario_column(name: str) -> TableColumn[Result]:
    unit = settings(ROUND, name, task="").unit

    def text(result: Result) -> str:
        run = result.scenario(name)
        return "–" if run is None else _figures(run.result) + ("" if run.valid else "*")

    return TableColumn(f"{name}, {unit}", name.removesuffix("Stream").lower(), text)
