"""A variant on disk: a folder of graphs, the plan, and where they came from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from quantbench.errors import InputError, MissingError
from quantbench.graphs import Executor, SessionExecutor
from quantbench.graphs.emulation import strip_emulation
from quantbench.graphs.staging import StagedExecutor
from quantbench.graphs.widen import widen_weights
from quantbench.numerics import get_format
from quantbench.numerics.threads import side_by_side
from quantbench.references import Reference, source_models
from quantbench.support import sha256_file

__all__ = ["NATIVE", "Variant", "load_variant", "open_variant", "split_dtype", "variant_folder"]

NATIVE = "native"
"""The backend that is this project's own."""

MANIFEST = "variant.json"
PLAN = "plan.json"


@dataclass(frozen=True)
class Variant:
    """Attributes:
    path: the folder.
    reference: name of the reference.
    dtype: what was asked for.
    manifest: the content of variant.json.
    sha256: of variant.json, which holds the sha256 of every other file; it stands for the whole variant.
    """

    path: Path
    reference: str
    dtype: str
    manifest: dict[str, Any]
    sha256: str

    @property
    def graphs(self) -> dict[str, Path]:
        """The ONNX files by graph name."""
        return {Path(name).stem: self.path / name for name in self.manifest["files"] if name.endswith(".onnx")}


def variant_folder(out: Path, reference: str, dtype: str) -> Path:
    """Where the variant of a reference stands under `--out`: in `int8`, or `int8@nncf` by another backend."""
    name, backend = split_dtype(dtype)
    return out / reference / (name if backend == NATIVE else f"{name}@{backend}")


def split_dtype(dtype: str) -> tuple[str, str]:
    """(canonical name of the format, backend) of what names a variant: `int8`, or `int8@nncf` by another backend.

    Raises:
        InputError: there is no such format.
    """
    name, _, backend = dtype.partition("@")
    return get_format(name).name, backend or NATIVE


def load_variant(out: Path, reference: Reference, dtype: str) -> Variant:
    """Read a variant's manifest and check its files.

    Raises:
        MissingError: there is no such variant.
        InputError: a file of it is missing or changed.
    """
    folder = variant_folder(out, reference.name, dtype)
    manifest = read_manifest(folder)
    if manifest is None:
        raise MissingError(
            f"no {dtype} variant of {reference.name} in {out}; "
            f"make it with: quantbench convert {reference.command_name} {_options(dtype)} --out {out}"
        )
    damaged = damaged_file(folder, manifest)
    if damaged is not None:
        raise InputError(f"{damaged} is missing or was changed since it was written; convert again with --force")
    return Variant(folder, reference.name, manifest["dtype"], manifest, sha256_file(folder / MANIFEST))


def _options(dtype: str) -> str:
    name, backend = split_dtype(dtype)
    return f"--dtype {name}" + ("" if backend == NATIVE else f" --backend {backend}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the variant in a folder, or None where there is none that can be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None


def damaged_file(folder: Path, manifest: Mapping[str, Any]) -> Path | None:
    """The first file of a variant that is missing or not as it was written, or None."""
    files: dict[str, str] = manifest["files"]
    for name, digest in files.items():
        file = folder / name
        if not file.is_file() or sha256_file(file) != digest:
            return file
    return None


def open_variant(
    reference: Reference, dtype: str, out: Path, threads: int | None = None, *, scoring: bool = False
) -> Executor:
    """Open a variant for inference; dtype fp32 opens the reference's own graphs.

    Integer variants run whole in ONNX Runtime. Variants with rounding run in stages, rounded in between: the same
    results as their portable graphs give, sooner.

    Args:
        threads: intra-op threads; None takes the cores.
        scoring: samples a second count, not the time of a call: what runs in stages takes calls side by side.

    Raises:
        MissingError, InputError: as `load_variant`.
    """
    if split_dtype(dtype) == ("fp32", NATIVE):
        models = source_models(reference)  # of which each goes once it is serialized
        return SessionExecutor({name: models.pop(name).SerializeToString() for name in [*models]}, threads)
    return open_graphs(load_variant(out, reference, dtype).graphs, threads, scoring=scoring)


def open_graphs(graphs: dict[str, Path], threads: int | None = None, *, scoring: bool = False) -> Executor:
    """Open written graphs, with narrow weights widened: in stages where they hold rounding, else whole.

    The arguments are those of `open_variant`.
    """
    opened = {name: ir.from_proto(onnx.load(file)) for name, file in graphs.items()}
    widened = [widen_weights(model) for model in opened.values()]
    calls, staged_threads = side_by_side() if scoring else (1, threads)
    taps = {name: strip_emulation(model, staged_threads) for name, model in opened.items()}
    if not any(taps.values()):
        if not any(widened):
            return SessionExecutor(graphs, threads)
        return SessionExecutor(
            {name: ir.to_proto(model).SerializeToString() for name, model in opened.items()}, threads
        )
    return StagedExecutor(opened, taps, staged_threads, calls)
