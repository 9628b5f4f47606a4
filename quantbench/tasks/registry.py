"""The table of tasks."""

from __future__ import annotations

from collections.abc import Callable

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.references.schema import Reference, nearest
from quantbench.tasks.base import Task
from quantbench.tasks.classification import ClassificationTask
from quantbench.tasks.detection import DetectionTask
from quantbench.tasks.pronunciation import PronunciationTask
from quantbench.tasks.recognition import RecognitionTask

__all__ = ["make_task"]

_TASKS: dict[str, Callable[[Reference, Dataset], Task]] = {
    "image-classification": ClassificationTask.of,
    "object-detection": DetectionTask.of,
    "text-recognition": RecognitionTask.of,
    "pronunciation": PronunciationTask.of,
}


def make_task(reference: Reference, dataset: Dataset) -> Task:
    """The task of a reference, over its data set.

    Raises:
        InputError: no such task, or the data set lacks what the task needs to decode outputs.
    """
    if reference.task not in _TASKS:
        raise InputError(
            f"reference {reference.name}: there is no task {reference.task!r}{nearest(reference.task, _TASKS)} "
            f"(known: {', '.join(_TASKS)})"
        )
    return _TASKS[reference.task](reference, dataset)
