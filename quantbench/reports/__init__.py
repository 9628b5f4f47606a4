"""Tables, plots and pages: of results, and of studies of formats."""

from quantbench.reports.columns import TableColumn, study_columns, table_columns
from quantbench.reports.pages import write_report
from quantbench.reports.results import REFERENCE, ROUND, Result, ScenarioResult, read_results, write_results
from quantbench.reports.studies import Cell, read_studies, study_folder, write_study

__all__ = [
    "REFERENCE",
    "ROUND",
    "Cell",
    "Result",
    "ScenarioResult",
    "TableColumn",
    "read_results",
    "read_studies",
    "study_columns",
    "study_folder",
    "table_columns",
    "write_report",
    "write_results",
    "write_study",
]
