"""What a report is made of: one result for each reference and dtype, kept as `results.json` beside the pages."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantbench.support import atomic_file, to_json

__all__ = ["REFERENCE", "ROUND", "Result", "ScenarioResult", "read_results", "write_results"]

REFERENCE = "reference"
"""The verdict of an FP32 row: it is what the others are compared with."""

ROUND = "current"
"""Whose rules the report's runs follow."""


@dataclass(frozen=True)
class ScenarioResult:
    """One LoadGen run in short."""

    scenario: str
    result: float
    unit: str
    valid: bool
    queries: int


@dataclass(frozen=True)
class Result:
    """One reference in one dtype: quality, size, speed and scenarios. Scores and ratios are fractions of 1."""

    reference: str
    dtype: str
    metric: str
    reference_score: float
    score: float
    ratio: float
    ratio_low: float
    ratio_high: float
    target_ratio: float
    samples: int
    verdict: str
    """"pass", "fail", or `REFERENCE` for the FP32 model itself."""
    model_bytes: int
    reference_bytes: int
    speed: float
    """Throughput as a multiple of FP32's, over the same prepared samples; 1.0 for FP32."""
    execution: str
    """"native", or "emulated": then `speed` says what emulation costs, not what the format would bring."""
    fingerprint: str
    """sha256 over all that the result depends on; the same fingerprint means nothing has to be measured again."""
    scenarios: tuple[ScenarioResult, ...] = ()

    @property
    def size(self) -> float:
        """Bytes of the variant's model files as a fraction of the reference's."""
        return self.model_bytes / self.reference_bytes

    def scenario(self, name: str) -> ScenarioResult | None:
        """The run of one scenario, or None when it was not run."""
        return next((run for run in self.scenarios if run.scenario == name), None)

    def document(self) -> dict[str, Any]:
        """The result as JSON."""
        return asdict(self)


def write_results(file: Path, results: Sequence[Result]) -> None:
    """Write `results.json`."""
    with atomic_file(file) as temporary:
        temporary.write_text(to_json([result.document() for result in results]), encoding="utf-8")


def read_results(file: Path) -> list[Result]:
    """Read `results.json` back; an absent file, or one of another version of quantbench, holds no results."""
    try:
        documents = json.loads(file.read_text(encoding="utf-8"))
        return [_result(document) for document in documents]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _result(document: Mapping[str, Any]) -> Result:
    scenarios = tuple(ScenarioResult(**scenario) for scenario in document["scenarios"])
    return Result(**{**document, "scenarios": scenarios})
