"""What a variant was made from and what came of it: `variant.json`, and the account of one conversion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from quantbench.datasets import Dataset
from quantbench.quantization.variant import MANIFEST, PLAN, damaged_file, read_manifest
from quantbench.references import Reference, fetch
from quantbench.support import atomic_folder, sha256_file, sha256_lines, to_json

__all__ = [
    "Calibration",
    "Conversion",
    "account",
    "provenance",
    "up_to_date_manifest",
    "write_variant",
]

_TOOLS = ("quantbench", "numpy", "onnx", "onnx_ir", "onnxruntime")


@dataclass(frozen=True)
class Calibration:
    """How a variant was calibrated. Nothing was observed where `samples` is 0."""

    samples: int
    seconds: float
    list_sha256: str
    calibrator: str


@dataclass(frozen=True)
class Conversion:
    """What one conversion did.

    Attributes:
        seconds: wall time of the whole conversion; near 0 where the variant was up to date and kept.
        weight_elements: number of weight elements by format.
        model_bytes: size of the variant's graphs; reference_bytes: of the reference's files.
        kept: whether an up-to-date variant was found and kept.
        backend: what quantized.
        speedup: FP32's time over the variant's on this machine, one sample at a time; None where it was not measured:
            formats that are emulated, variants that were kept.
    """

    reference: str
    dtype: str
    path: Path
    seconds: float
    calibration: Calibration
    weight_elements: dict[str, int]
    model_bytes: int
    reference_bytes: int
    kept: bool
    backend: str
    speedup: float | None = None

    def document(self) -> dict[str, Any]:
        """The JSON document of the command."""
        return asdict(self) | {"path": str(self.path)}


def provenance(
    reference: Reference,
    dataset: Dataset,
    count: int,
    inputs: str,
    *,
    dtype: str,
    backend: str,
    recipe: Mapping[str, Any],
    calibrator: str,
    seed: int,
    tools: Sequence[str] = (),
) -> dict[str, Any]:
    """Everything a variant depends on; the first part of its manifest.

    Args:
        count: how many calibration samples the conversion looks at.
        inputs: the sha256 of their prepared inputs.
        tools: distributions besides our own whose versions count.
    """
    file = fetch(reference)
    description = json.dumps(asdict(reference) | {"file": ""}, default=str, sort_keys=True)
    return {
        "reference": reference.name,
        "dtype": dtype,
        "backend": backend,
        "reference_sha256": hashlib.sha256(f"{description}\n{sha256_file(file)}\n".encode()).hexdigest(),
        "reference_bytes": file.stat().st_size,
        "recipe": dict(recipe),
        "calibration": {
            "samples": count,
            "list_sha256": sha256_lines(dataset.calibration.ids[:count]),
            "inputs_sha256": inputs,
            "calibrator": calibrator,
        },
        "seed": seed,
        "tools": {name: version(name) for name in (*_TOOLS, *(tool for tool in tools if tool not in _TOOLS))},
    }


def up_to_date_manifest(folder: Path, source: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of the variant that stands there, if it was made from `source` and is whole; else None."""
    manifest = read_manifest(folder)
    if manifest is None or any(manifest.get(key) != value for key, value in source.items()):
        return None
    return None if damaged_file(folder, manifest) else manifest


def write_variant(
    folder: Path,
    source: Mapping[str, Any],
    plan: str,
    graphs: Mapping[str, bytes],
    weight_elements: Mapping[str, int],
) -> dict[str, Any]:
    """Write the variant's folder in one step; returns its manifest.

    Args:
        source: its provenance.
        plan: the text of plan.json.
        graphs: serialized ONNX by graph name.
        weight_elements: number of weight elements by format.

    Raises:
        InputError: the folder cannot be written.
    """
    with atomic_folder(folder) as temporary:
        for name, graph in graphs.items():
            (temporary / f"{name}.onnx").write_bytes(graph)
        (temporary / PLAN).write_text(plan, encoding="utf-8")
        manifest = {
            **source,
            "weight_elements": dict(sorted(weight_elements.items())),
            "model_bytes": sum(len(graph) for graph in graphs.values()),
            "files": {file.name: sha256_file(file) for file in sorted(temporary.iterdir())},
        }
        (temporary / MANIFEST).write_text(to_json(manifest), encoding="utf-8")
    return manifest


def account(
    folder: Path, manifest: Mapping[str, Any], seconds: float, calibration_seconds: float, *, kept: bool
) -> Conversion:
    """What a conversion did, from the manifest that it wrote or found."""
    calibration = manifest["calibration"]
    return Conversion(
        reference=manifest["reference"],
        dtype=manifest["dtype"],
        path=folder,
        seconds=seconds,
        calibration=Calibration(
            calibration["samples"], calibration_seconds, calibration["list_sha256"], calibration["calibrator"]
        ),
        weight_elements=manifest["weight_elements"],
        model_bytes=manifest["model_bytes"],
        reference_bytes=manifest["reference_bytes"],
        kept=kept,
        backend=manifest["backend"],
    )
