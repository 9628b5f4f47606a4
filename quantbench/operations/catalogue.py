"""Which references there are, which of them a command takes, and fetching them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from quantbench import references
from quantbench.references import Published, Reference

__all__ = ["AnyReference", "Fetched", "ModelEntry", "chosen", "fetch", "models", "over_dataset"]

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
    server_ms: float | None
    """Bound of the Server scenario; None where the reference has none."""
    multi_stream_ms: float | None
    performance_samples: int
    """How many samples LoadGen draws performance queries from."""
    granularity: str | None
    """What the rules ask to share a scale; None leaves it to the recipe."""
    published: tuple[Published, ...]
    """The benchmark's published rows for this model."""
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
            server_ms=reference.latency.server_ms if reference.latency else None,
            multi_stream_ms=reference.latency.multi_stream_ms if reference.latency else None,
            performance_samples=reference.performance_samples,
            granularity=reference.rules.granularity,
            published=reference.published,
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


def over_dataset(name: AnyReference, folder: Path) -> Reference:
    """A reference with its data set in `folder` (or in that file), whatever its own file says.

    Raises:
        InputError: an unknown name, or a reference file that cannot be used.
    """
    (reference,) = chosen([name])
    return replace(reference, dataset=replace(reference.dataset, path=str(folder.absolute()), variable=None))


def chosen(names: Iterable[AnyReference]) -> list[Reference]:
    """The references meant, each once; every embedded one where none is named.

    Raises:
        InputError: an unknown name, or a reference file that cannot be used.
    """
    loaded = [name if isinstance(name, Reference) else references.load_reference(name) for name in names]
    if not loaded:
        return [reference for reference in references.builtin_references() if reference.suite == "embedded"]
    return [reference for index, reference in enumerate(loaded) if reference not in loaded[:index]]
