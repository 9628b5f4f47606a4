"""The catalogue of FP32 references, a user's own references, and where their models come from."""

from quantbench.references.models import source_models
from quantbench.references.schema import Published, Reference, builtin_references, load_reference
from quantbench.references.sources import calibration_file, data_folder, fetch, missing

__all__ = [
    "Published",
    "Reference",
    "builtin_references",
    "calibration_file",
    "data_folder",
    "fetch",
    "load_reference",
    "missing",
    "source_models",
]
