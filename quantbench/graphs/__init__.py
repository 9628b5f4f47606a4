"""Graphs: load and check, rewrite, run whole or in stages, and write what a plan decided into them."""

from quantbench.graphs.executor import Executor, SessionExecutor, TensorSpec

__all__ = ["Executor", "SessionExecutor", "TensorSpec"]
