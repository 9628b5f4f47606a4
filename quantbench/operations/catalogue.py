"""Which references there are, which of them a command takes, and fetching them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quantbench import references
from quantbench.references import Reference

__all__ = ["AnyReference", "Fetched", "ModelEntry", "chosen", "fetch", "models"]

AnyReference = str | Path | Reference
"""A built-in name, the path of a reference file, or a loaded reference."""


@dataclass(frozen=True)
class ModelEntry:
    """One line of `quantbench models`."""

    name: str
    suite: str
    task: str
    metric: str
    target_ratio: float
    ready: bool
    missing: str | None
    """The command or step that makes it ready; None when it is."""

    def document(self) -> dict[str, Any]:
        """The entry as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Fetched:
    """A reference whose model and data are on this machine now."""

    reference: str
    path: Path


def models() -> Iterator[ModelEntry]:
    """Every built-in reference, by name."""
    for reference in references.builtin_references():
        missing = references.missing(reference)
        yield ModelEntry(
            name=reference.name,
            suite=reference.suite,
            task=reference.task,
            metric=reference.quality.metric,
            target_ratio=reference.quality.target_ratio,
            ready=missing is None,
            missing=missing,
        )


def fetch(names: Iterable[AnyReference] = ()) -> Iterator[Fetched]:
    """Get the models and data of references into the user's cache.

    Raises:
        InputError: an unknown reference, or a file with another sha256 than its own.
        MissingError: a file could not be got.
    """
    for reference in chosen(names):
        yield Fetched(reference.name, references.fetch(reference))


def chosen(names: Iterable[AnyReference]) -> list[Reference]:
    """The references meant, each once; every embedded one where none is named.

    Raises:
        InputError: an unknown name, or a reference file that cannot be used.
    """
    loaded = [name if isinstance(name, Reference) else references.load_reference(name) for name in names]
    if not loaded:
        return [reference for reference in references.builtin_references() if reference.suite == "embedded"]
    return [reference for index, reference in enumerate(loaded) if reference not in loaded[:index]]
