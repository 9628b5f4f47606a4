"""Backends: other projects' quantizers, which make variants through the same commands as our own.

A backend is one file with one `BACKEND`, registered by its name here. What it needs is an optional extra and imported
when it is used.
"""

from __future__ import annotations

from quantbench.errors import InputError
from quantbench.quantization.backends import neural_compressor, nncf, onnxruntime
from quantbench.quantization.backends.backend import Backend, PeerRecipe
from quantbench.quantization.variant import NATIVE
from quantbench.references.schema import nearest

__all__ = ["BACKENDS", "Backend", "PeerRecipe", "get_backend", "installed_backends"]

BACKENDS: dict[str, Backend] = {
    "onnxruntime": onnxruntime.BACKEND,
    "nncf": nncf.BACKEND,
    "neural-compressor": neural_compressor.BACKEND,
}


def get_backend(name: str) -> Backend:
    """The other project's quantizer of that name.

    Raises:
        InputError: there is none.
    """
    if name not in BACKENDS:
        known = (NATIVE, *BACKENDS)
        raise InputError(f"there is no backend {name!r}{nearest(name, known)} (known: {', '.join(known)})")
    return BACKENDS[name]


def installed_backends() -> list[str]:
    """The names of those that can be used here."""
    return [name for name, backend in BACKENDS.items() if backend.is_installed]
