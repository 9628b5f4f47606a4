"""What the rules leave to the system under test: rates, samples a query and batch sizes, from its measured speed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import mlperf_loadgen as lg

from quantbench.errors import InputError
from quantbench.references import Reference
from quantbench.scenarios.probe import Speed
from quantbench.scenarios.rounds import Settings, slow_settings

__all__ = ["Traffic", "highest_rate", "latency_bound_ms", "one_by_one", "paced", "plan_traffic", "roomier", "serving"]

HIGHEST_LOAD = 0.7
"""The part of the measured throughput that is asked for where the user asks for nothing."""
LOWEST_LOAD = 0.05
HURRY = 1e5
"""Server's queries a second in accuracy mode, where their latency does not count."""
BACKLOG_SECONDS = 5.0
BACKLOG_BOUNDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """How LoadGen is to load the system, and how the system takes it."""

    rules: Settings
    mode: str
    speed: Speed
    total: int
    """How many samples the data set has."""
    batch: int
    """The most samples that are computed at once."""
    samples_per_query: int
    workers: int = 1
    """Server's threads."""
    bound_ms: float | None = None
    target_qps: float | None = None
    """Server's arrival rate."""

    @property
    def expected_seconds(self) -> float:
        """About how long LoadGen will take."""
        throughput = self.speed.throughput(self.batch, sustained=True)
        if self.mode == "accuracy":
            return self.total / throughput
        samples = self.rules.min_queries * self.samples_per_query
        seconds = max(self.rules.min_seconds, samples / (self.target_qps or throughput))
        return min(seconds, self.rules.max_seconds or seconds)

    def settings(self) -> lg.TestSettings:
        """All of it, as LoadGen wants to be told."""
        rules, made = self.rules, lg.TestSettings()
        throughput = self.speed.throughput(self.batch)
        made.scenario = getattr(lg.TestScenario, rules.scenario)
        made.mode = lg.TestMode.AccuracyOnly if self.mode == "accuracy" else lg.TestMode.PerformanceOnly
        made.min_query_count = rules.min_queries
        if rules.at_most_the_data_set:
            made.min_query_count = min(rules.min_queries, self.total)
        made.min_duration_ms = round(rules.min_seconds * 1000)
        made.max_duration_ms = round(rules.max_seconds * 1000)
        made.qsl_rng_seed = rules.seeds.qsl
        made.sample_index_rng_seed = rules.seeds.sample_index
        made.schedule_rng_seed = rules.seeds.schedule
        made.single_stream_target_latency_percentile = rules.percentile
        made.multi_stream_target_latency_percentile = rules.percentile
        made.server_target_latency_percentile = rules.percentile
        # LoadGen prepares twice the queries that these latencies let through in the least duration.
        made.single_stream_expected_latency_ns = round(self.speed.best[1] * 1e9)
        made.multi_stream_expected_latency_ns = round(self.samples_per_query / throughput * 1e9)
        made.multi_stream_samples_per_query = self.samples_per_query
        # A fifth more samples than the best speed needs (LoadGen adds a tenth), lest the run is too short.
        made.offline_expected_qps = 1.2 * throughput
        if self.target_qps is not None:
            made.server_target_qps = self.target_qps
        if self.target_qps is not None and self.bound_ms is not None:
            bound = self.bound_ms / 1000
            made.server_target_latency_ns = round(bound * 1e9)
            # LoadGen ends a run that is so far behind; it is lost.
            made.server_max_async_queries = math.ceil(self.target_qps * max(BACKLOG_SECONDS, BACKLOG_BOUNDS * bound))
        return made


def latency_bound_ms(rules: Settings, reference: Reference) -> float | None:
    """What the scenario's latency percentile has to keep to; None where the rules have no bound.

    Raises:
        InputError: the reference lacks the bound that the scenario needs.
    """
    if rules.bound is None:
        return None
    bound: float | None = getattr(reference.latency, rules.bound, None)
    if bound is None:
        raise InputError(
            f"{rules.scenario} of round {rules.round} needs a latency bound and reference {reference.name} has none; "
            f"set {rules.bound} under [latency] in {reference.file}"
        )
    return bound


def plan_traffic(
    rules: Settings,
    speed: Speed,
    *,
    mode: str,
    total: int,
    bound_ms: float | None = None,
    target_qps: float | None = None,
    samples_per_query: int | None = None,
) -> Traffic:
    """Choose what the rules leave open.

    Args:
        total: how many samples the data set has.
        bound_ms: the latency to keep to, where there is one.
        target_qps, samples_per_query: the user's own choice for Server, and for MultiStream where the round has none.

    Raises:
        InputError: a number is not above 0.
    """
    for name, number in (("target_qps", target_qps), ("samples_per_query", samples_per_query)):
        if number is not None and number <= 0:
            raise InputError(f"{name} must be above 0, not {number}")
    bound = math.inf if bound_ms is None else bound_ms / 1000
    samples, workers = rules.samples_per_query or 1, 1
    match rules.scenario:
        case "SingleStream":
            batch = 1
        case "MultiStream":
            samples = rules.samples_per_query or samples_per_query or _fitting_samples(speed, bound)
            batch = speed.batch(largest=samples)
        case "Server":
            batch = serving(speed, bound_ms)
            workers = speed.workers(batch, within=bound / 2)
            target_qps = HURRY if mode == "accuracy" else target_qps or _sustainable_rate(speed, batch, workers, bound)
        case _:
            batch = speed.batch()
    return Traffic(
        rules=rules,
        mode=mode,
        speed=speed,
        total=total,
        batch=batch,
        samples_per_query=samples,
        workers=workers,
        bound_ms=bound_ms,
        target_qps=target_qps if rules.scenario == "Server" else None,
    )


def _fitting_samples(speed: Speed, bound: float) -> int:
    """How many samples the system should get done within the bound, with some room; a batch where there is none."""
    if math.isinf(bound):
        return speed.batch()
    return max(1, int(HIGHEST_LOAD * bound * speed.throughput(speed.batch(within=bound), sustained=True)))


def serving(speed: Speed, bound_ms: float | None) -> int:
    """Server's largest batch: a query may have to wait for the batch before its own."""
    return speed.batch(within=math.inf if bound_ms is None else bound_ms / 2000)


def roomier(rules: Settings, bound_ms: float | None) -> Settings:
    """The rules with room for the least queries at twice the bound, where a quick run would be cut off before that."""
    if bound_ms is None or not rules.max_seconds:
        return rules
    return replace(rules, max_seconds=max(rules.max_seconds, rules.min_queries * 2 * bound_ms / 1000))


def highest_rate(speed: Speed) -> float:
    """Single samples a second that may be asked for where their latency does not matter."""
    return HIGHEST_LOAD * speed.throughput(1, sustained=True)


def one_by_one(rules: Settings, speed: Speed) -> float:
    """Queries a second, one after the other."""
    size = rules.samples_per_query or 1
    return speed.throughput(speed.batch(largest=size), sustained=True) / size


def paced(rules: Settings, queries_per_second: float) -> Settings:
    """A quick run's rules for a rate: with fewer queries where the least would fill more than half of the time."""
    return slow_settings(rules) if 0 < rules.max_seconds < 2 * rules.min_queries / queries_per_second else rules


def _sustainable_rate(speed: Speed, batch: int, workers: int, bound: float) -> float:
    """Queries a second of which 99% should be done within the bound.

    With random arrivals and constant service time s, a queue at load r keeps a query waiting longer than t with a
    probability of about exp(-2 (1 - r) / r · t / s) (M/D/1 in heavy traffic; Kingman 1961). Set to 1% at t = bound - s.
    """
    single = speed.mean[1]
    room = 2 * max(bound - single, 0.0) / (math.log(100) * single)
    load = min(max(room / (1 + room), LOWEST_LOAD), HIGHEST_LOAD)
    return load * speed.concurrent.get(workers, speed.throughput(batch, sustained=True))
