"""Tasks: what one does with opened graphs, from prepared samples to predictions."""

from quantbench.tasks.base import Task
from quantbench.tasks.batching import fitting_batch, max_batch
from quantbench.tasks.own_truths import open_with_truths
from quantbench.tasks.registry import make_task

__all__ = ["Task", "fitting_batch", "make_task", "max_batch", "open_with_truths"]
