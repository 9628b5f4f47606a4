"""The table of tasks."""

from __future__ import annotations

from collections.abc import Callable

from quantbench.datasets.base import Dataset
from quantbench.errors import InputError
from quantbench.references.schema import Reference, nearest
from quantbench.tasks.base import Task
from quantbench.tasks.box_detection import BoxDetectionTask
from quantbench.tasks.classification import ClassificationTask
from quantbench.tasks.detection import DetectionTask
from quantbench.tasks.pronunciation import PronunciationTask
from quantbench.tasks.recognition import RecognitionTask
from quantbench.tasks.translation import TranslationTask

__all__ = ["make_task"]


def _object_detection(reference: Reference, dataset: Dataset) -> Task:
    """A graph ends in boxes where the reference says so, else in a probability map."""
    make = DetectionTask.of if reference.detection is None else BoxDetectionTask.of
    return make(reference, dataset)


_TASKS: dict[str, Callable[[Reference, Dataset], Task]] = {
    "image-classification": ClassificationTask.of,
    "object-detection": _object_detection,
    "text-recognition": RecognitionTask.of,
    "pronunciation": PronunciationTask.of,
    "translation": TranslationTask.of,
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
