"""Tables, the plot and the pages of a report."""

from quantbench.reports.columns import TableColumn, table_columns
from quantbench.reports.pages import write_report
from quantbench.reports.results import REFERENCE, ROUND, Result, ScenarioResult, read_results, write_results

__all__ = [
    "REFERENCE",
    "ROUND",
    "Result",
    "ScenarioResult",
    "TableColumn",
    "read_results",
    "table_columns",
    "write_report",
    "write_results",
]
