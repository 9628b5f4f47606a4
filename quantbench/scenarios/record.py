"""What a LoadGen run showed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["PERCENTILES", "Probe", "Run"]

PERCENTILES = (50.0, 80.0, 90.0, 95.0, 99.0, 99.9)


@dataclass(frozen=True)
class Probe:
    """One run of a search.

    Attributes:
        tried: queries a second (Server) or samples a query (MultiStream).
        valid: whether LoadGen calls the run valid and the percentile keeps to the bound.
        result: as of the run; bounded_ms: the percentile that has to keep to the bound.
        line: the reference harness's line.
    """

    tried: float
    valid: bool
    result: float
    bounded_ms: float | None
    queries: int
    seconds: float
    line: str


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a LoadGen run showed.

    In performance mode `result` and `unit` are what the round reports for the scenario, and `valid` is LoadGen's
    verdict, and in v0.5's MultiStream, whose interval LoadGen no longer knows, also whether the percentile keeps to it.
    In accuracy mode `result` is the score, `unit` the metric, and `valid` says that LoadGen logged no error.
    Latencies are those of queries; in Offline, which has a single query, those of samples. Of a search `valid` says
    that something was found that keeps to the bound at full length.
    """

    reference: str
    dtype: str
    scenario: str
    mode: str
    round: str
    valid: bool
    result: float
    unit: str
    latency_ms: Mapping[str, float]
    queries: int
    samples: int
    seconds: float
    accuracy: float | None
    """The metric over the whole scored set; None in performance mode."""
    logs: str
    quick: bool
    """A shortened run, which is no result."""
    gated: bool
    """Whether a passing verdict was asked for."""
    target_qps: float | None
    """Server's arrival rate in queries a second."""
    samples_per_query: int
    """MultiStream's samples a query; 1 in the other scenarios."""
    bound_ms: float | None
    """What the round's latency percentile has to keep to."""
    bounded_ms: float | None
    """What that percentile was; None where there is no bound."""
    search: tuple[Probe, ...] = ()
    """The probes of the search that found the rate or the samples a query, in the order they were made."""
    repeats: tuple[Probe, ...] = ()
    """Every run of full length at what the search found, where the round wants several; this run is the worst one."""

    def document(self) -> dict[str, Any]:
        """The run as one JSON object."""
        document = asdict(self)
        return document | {key: list(document[key]) for key in ("search", "repeats")}

    def probe(self) -> Probe:
        """The run as a line of evidence."""
        tried = self.target_qps if self.target_qps is not None else self.samples_per_query
        return Probe(tried, self.valid, self.result, self.bounded_ms, self.queries, self.seconds, self.line())

    def line(self) -> str:
        """The reference harness's line, times in seconds. Offline counts samples, the other scenarios queries."""
        count = self.samples if self.scenario == "Offline" else self.queries
        accuracy = "" if self.accuracy is None else f"acc={100 * self.accuracy:.3f}%, "
        tiles = ",".join(f"{fraction}:{self.latency_ms[str(fraction)] / 1000:.4f}" for fraction in PERCENTILES)
        return (
            f"TestScenario.{self.scenario} qps={count / self.seconds:.2f}, mean={self.latency_ms['mean'] / 1000:.4f}, "
            f"time={self.seconds:.3f}, {accuracy}queries={count}, tiles={tiles}"
        )
