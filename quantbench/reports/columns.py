"""The columns of a result's tables, the same on the terminal and on the pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from quantbench.evaluation import format_score
from quantbench.reports.results import REFERENCE, ROUND, Result
from quantbench.scenarios import SCENARIOS
from quantbench.scenarios.rounds import settings

__all__ = ["TableColumn", "table_columns"]


@dataclass(frozen=True)
class TableColumn:
    """One column of a result's table."""

    heading: str
    short: str
    """The heading where room is scarce."""
    text: Callable[[Result], str]
    number: bool = True
    """Numbers are aligned right."""
    terminal: bool = True
    """Whether it is worth its place in a table of 100 characters."""


def table_columns() -> list[TableColumn]:
    """The columns of a table of results, after the one that names the reference."""
    return [
        TableColumn("dtype", "dtype", lambda result: result.dtype, number=False),
        TableColumn("score", "score", lambda result: format_score(result.score)),
        TableColumn("ratio to FP32", "ratio", lambda result: _unless_reference(result, f"{result.ratio:.2%}")),
        TableColumn(
            "95% interval",
            "interval",
            lambda result: _unless_reference(result, f"{100 * result.ratio_low:.2f}–{100 * result.ratio_high:.2f}%"),
            terminal=False,
        ),
        TableColumn("verdict", "verdict", lambda result: _unless_reference(result, result.verdict), number=False),
        TableColumn("size, MB", "MB", lambda result: f"{result.model_bytes / 1e6:.2f}"),
        TableColumn("speed", "speed", _speed),
        *(_scenario_column(name) for name in SCENARIOS),
    ]


def _unless_reference(result: Result, text: str) -> str:
    return "–" if result.verdict == REFERENCE else text


def _speed(result: Result) -> str:
    """A multiple of FP32's throughput; in brackets where emulation runs, which says nothing of the format."""
    return f"({result.speed:.2f}×)" if result.execution == "emulated" else f"{result.speed:.2f}×"


def _figures(value: float) -> str:
    """Four significant digits or all before the point: 0.1230, 12.30, 1,234, 123,456."""
    return f"{value:,.0f}" if abs(value) >= 1000 else format(value, "#.4g")


def _scenario_column(name: str) -> TableColumn:
    unit = settings(ROUND, name, task="").unit

    def text(result: Result) -> str:
        run = result.scenario(name)
        return "–" if run is None else _figures(run.result) + ("" if run.valid else "*")

    return TableColumn(f"{name}, {unit}", name.removesuffix("Stream").lower(), text)
