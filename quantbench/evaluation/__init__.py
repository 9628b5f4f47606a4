"""Evaluation: scoring, and the gate that a variant has to pass."""

from quantbench.evaluation.formatting import format_score
from quantbench.evaluation.gate import Verdict, judge
from quantbench.evaluation.scoring import Score, evaluate
from quantbench.evaluation.speed import speedup
from quantbench.evaluation.verdict_file import fresh, read_verdict, write_verdict

__all__ = [
    "Score",
    "Verdict",
    "evaluate",
    "format_score",
    "fresh",
    "judge",
    "read_verdict",
    "speedup",
    "write_verdict",
]
