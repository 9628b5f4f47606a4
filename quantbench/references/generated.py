"""Model files that are made instead of fetched: weights drawn from a seed, kept in the user's cache."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from functools import cache
from pathlib import Path
from typing import Protocol, cast

from quantbench.errors import InputError
from quantbench.references import generators
from quantbench.references.schema import Reference, nearest
from quantbench.support import atomic_file, cache_folder

__all__ = ["generated_model"]


class Generator(Protocol):
    """A file in `generators/`. Its name with dashes is the generator's name; a leading `_` marks what they share."""

    SUFFIX: str
    """Of the file it makes: `.onnx`, or `.npz` for a checkpoint that the reference's builder reads."""

    def generate(self, file: Path, seed: int) -> None:
        """Write the model file. The same seed gives the same bytes on one machine."""


def generated_model(reference: Reference) -> Path:
    """The file that the reference's generator makes, from the cache, or made now.

    A change to any file of `generators/` makes the models anew.

    Raises:
        InputError: there is no such generator, or the cache cannot be written to.
    """
    name = reference.model.generator
    modules = [module.name for module in pkgutil.iter_modules(generators.__path__)]
    known = sorted(module.replace("_", "-") for module in modules if not module.startswith("_"))
    if name not in known:
        raise InputError(f"{reference.file}: there is no generator {name!r}{nearest(name or '', known)}")
    generator = cast(Generator, importlib.import_module(f"{generators.__name__}.{name.replace('-', '_')}"))
    seed = reference.model.seed or 0
    file = cache_folder() / "generated" / f"{name}-{seed}-{_code_sha256()[:16]}{generator.SUFFIX}"
    if not file.is_file():
        with atomic_file(file) as temporary:
            generator.generate(temporary, seed)
        for outdated in set(file.parent.glob(f"{name}-{seed}-*")) - {file}:
            outdated.unlink(missing_ok=True)
    return file


@cache
def _code_sha256() -> str:
    digest = hashlib.sha256()
    for source in sorted(Path(next(iter(generators.__path__))).glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return digest.hexdigest()
