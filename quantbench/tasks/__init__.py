"""Tasks: what one does with opened graphs, from prepared samples to predictions."""

from quantbench.tasks.base import Task
from quantbench.tasks.batching import max_batch
from quantbench.tasks.own_truths import open_with_truths
from quantbench.tasks.registry import make_task

__all__ = ["Task", "make_task", "max_batch", "open_with_truths"]
