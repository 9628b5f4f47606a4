"""What a study is made of: one cell for each reference and format, kept in `studies/REFERENCE/` beside the pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pydantic

from quantbench.numerics import Format, get_format
from quantbench.reports.heatmap import heat_map, png_bytes, svg_bytes
from quantbench.support import atomic_file, to_json

__all__ = ["STUDIES", "Cell", "map_of", "read_studies", "study_folder", "write_study"]

STUDIES = "studies"
"""The folder of all studies, in the folder of the pages."""

_TABLE = "study.json"
_HEAT_MAPS = ("heatmap.svg", "heatmap.png")


@dataclass(frozen=True)
class Cell:
    """One reference emulated in one format. Scores and ratios are fractions of 1."""

    reference: str
    format: str
    bits: int
    exponent_bits: int
    mantissa_bits: int
    metric: str
    reference_score: float
    score: float
    ratio: float
    ratio_low: float
    ratio_high: float
    target_ratio: float
    samples: int
    verdict: str
    """"pass" or "fail"."""

    def document(self) -> dict[str, Any]:
        """The cell as JSON."""
        return asdict(self)


def study_folder(reports: Path, reference: str) -> Path:
    """Where the study of a reference stands."""
    return reports / STUDIES / reference


def write_study(folder: Path, cells: Sequence[Cell]) -> None:
    """Write `study.json`, `heatmap.svg` and `heatmap.png`; the same cells give the same bytes.

    There is no map of block formats alone.

    Raises:
        InputError: the folder cannot be written to.
    """
    ratios = map_of(cells)
    pictures = {}
    if ratios:
        pictures = {"heatmap.svg": svg_bytes(heat_map(ratios)), "heatmap.png": png_bytes(heat_map(ratios))}
    for name, content in {_TABLE: to_json([cell.document() for cell in cells]).encode(), **pictures}.items():
        with atomic_file(folder / name) as temporary:
            temporary.write_bytes(content)
    for name in _HEAT_MAPS:
        if name not in pictures:
            (folder / name).unlink(missing_ok=True)


def read_studies(reports: Path) -> list[tuple[Cell, ...]]:
    """The studies that stand in a folder of pages, by reference; a file that holds none is passed over."""
    studies = []
    for file in sorted((reports / STUDIES).glob(f"*/{_TABLE}")):
        try:
            cells = tuple(_CELLS.validate_python(json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
        if cells:
            studies.append(cells)
    return studies


def map_of(cells: Sequence[Cell]) -> dict[tuple[int, int], float]:
    """The ratio at each (exponent bits, mantissa bits). Of several formats there, the one with IEEE 754 rules counts,
    else the first; block formats, whose range is that of their scales, have no place on the map."""
    ratios: dict[tuple[int, int], float] = {}
    plain = [cell for cell in cells if get_format(cell.format).kind != "block"]
    for cell in sorted(plain, key=lambda cell: not _ieee_like(get_format(cell.format))):
        ratios.setdefault((cell.exponent_bits, cell.mantissa_bits), cell.ratio)
    return ratios


def _ieee_like(entry: Format) -> bool:
    return entry.top_codes == "inf-nan" and entry.bias == 2 ** (entry.exponent_bits - 1) - 1


_CELLS = pydantic.TypeAdapter(list[Cell])
