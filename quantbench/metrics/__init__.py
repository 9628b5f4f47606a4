"""Metrics: what predictions are worth against truths."""

from quantbench.metrics.outcomes import MeanOutcomes, Outcomes
from quantbench.metrics.registry import Metric, get_metric, metric_names

__all__ = ["MeanOutcomes", "Metric", "Outcomes", "get_metric", "metric_names"]
