"""Writes the report: `index.html` (one file, nothing fetched from elsewhere) and `index.md` from the same tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from quantbench.evaluation import format_score
from quantbench.reports.columns import TableColumn, study_columns, table_columns
from quantbench.reports.heatmap import page_heat_map
from quantbench.reports.plot import quality_against_size
from quantbench.reports.results import REFERENCE, Result
from quantbench.reports.studies import STUDIES, Cell, map_of
from quantbench.support import atomic_file

__all__ = ["write_report"]

NOTES = (
    "Ratio: score divided by the FP32 score on the same samples, with a paired bootstrap interval.",
    "Speed: inference throughput as a multiple of FP32's on this machine; in brackets where the format is emulated in "
    "FP32, which says what emulation costs and nothing about hardware that has the format.",
    "Scenarios: quick LoadGen runs of seconds, to see that a variant runs; they are no MLPerf results. A star marks a "
    "run that LoadGen calls invalid, a dash one that was not made because the gate said no.",
)


@dataclass(frozen=True)
class Section:
    """One reference's part of the page."""

    name: str
    metric: str
    samples: int
    target_ratio: float
    reference_score: float
    results: tuple[Result, ...]
    columns: tuple[TableColumn[Result], ...]

    @property
    def passed(self) -> int:
        """How many variants passed the gate."""
        return sum(result.verdict == "pass" for result in self.results)

    @property
    def variants(self) -> int:
        """How many variants there are beside the reference itself."""
        return sum(result.verdict != REFERENCE for result in self.results)


@dataclass(frozen=True)
class Study:
    """One reference's study on the page."""

    name: str
    metric: str
    samples: int
    target_ratio: float
    reference_score: str
    cells: tuple[Cell, ...]
    columns: tuple[TableColumn[Cell], ...]
    heat_map: str
    """An `<svg>` element; empty where no format has a place on the map."""
    heat_map_file: str
    """Where the same is a file, from the page."""

    @property
    def passed(self) -> int:
        """How many formats reach the target."""
        return sum(cell.verdict == "pass" for cell in self.cells)


def write_report(folder: Path, results: Sequence[Result], studies: Sequence[Sequence[Cell]] = ()) -> None:
    """Write `index.html` and `index.md` into `folder`; the same results and studies give the same bytes.

    Args:
        results: of the references and their variants.
        studies: the cells of each study; its files stand in `folder`.

    Raises:
        InputError: the folder cannot be written to.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    sections = _sections(results)
    plot = quality_against_size(results) if results else ""
    told = [_study(cells) for cells in studies]
    for name in ("index.html", "index.md"):
        page = environment.get_template(f"{name}.j2").render(sections=sections, plot=plot, notes=NOTES, studies=told)
        with atomic_file(folder / name) as temporary:
            temporary.write_text(page, encoding="utf-8")


def _sections(results: Sequence[Result]) -> list[Section]:
    columns = tuple(table_columns())
    sections = []
    for name in dict.fromkeys(result.reference for result in results):
        rows = tuple(result for result in results if result.reference == name)
        first = rows[0]
        sections.append(
            Section(
                name=name,
                metric=first.metric,
                samples=first.samples,
                target_ratio=first.target_ratio,
                reference_score=first.reference_score,
                results=rows,
                columns=columns,
            )
        )
    return sections


def _study(cells: Sequence[Cell]) -> Study:
    first = cells[0]
    ratios = map_of(cells)
    return Study(
        name=first.reference,
        metric=first.metric,
        samples=first.samples,
        target_ratio=first.target_ratio,
        reference_score=format_score(first.reference_score),
        cells=tuple(cells),
        columns=tuple(study_columns()),
        heat_map=page_heat_map(ratios, first.reference) if ratios else "",
        heat_map_file=f"{STUDIES}/{first.reference}/heatmap.svg",
    )
