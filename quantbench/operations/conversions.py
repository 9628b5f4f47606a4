"""Making variants: as asked for, or because another operation needs one."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from quantbench import quantization
from quantbench.errors import InputError
from quantbench.operations.catalogue import AnyReference, chosen
from quantbench.operations.speed import only_stores_integers, speedup
from quantbench.quantization import Conversion, Recipe, load_recipe
from quantbench.quantization.backends import PeerRecipe, get_backend
from quantbench.quantization.backends.conversion import convert_with
from quantbench.quantization.rules import check_granularity
from quantbench.quantization.variant import NATIVE, read_manifest, split_dtype, variant_folder
from quantbench.references import Reference

__all__ = ["REFERENCE_DTYPE", "convert", "convert_all", "up_to_date_variant"]

REFERENCE_DTYPE = "fp32"
"""The dtype of the reference itself, which needs no variant."""

logger = logging.getLogger(__name__)


def convert(
    reference: AnyReference,
    dtype: str | None = None,
    *,
    recipe: Recipe | str | Path | None = None,
    backend: str = NATIVE,
    out: str | Path = "variants",
    force: bool = False,
    observations: str | Path | None = None,
    **options: Any,
) -> Conversion:
    """Make one variant, or keep the one that is there and up to date.

    Args:
        dtype: the variant's number format; may be left out where the recipe names one.
        recipe: a recipe, the name of a built-in one ("auto"), or the path of a recipe file.
        backend: what quantizes: "native", or another project's quantizer ("onnxruntime", "nncf",
            "neural-compressor"), whose own defaults hold where no option is given.
        out: the folder of all variants; this one goes to `out/reference/dtype`, or `dtype@backend` by another backend.
        force: rebuild even what is up to date.
        observations: a folder to keep what calibration has seen in, and to take it from where it is there already.
        options: attributes of `Recipe` (of `PeerRecipe` with another backend), such as `granularity="tensor"`. They
            win over the recipe; None leaves them to it.

    Raises:
        InputError: the reference, the model, the data, an option or the output folder cannot be used.
        MissingError: the model, the calibration data or the backend is not there.
    """
    dtypes = [] if dtype is None else [dtype]
    (conversion,) = convert_all(
        [reference], dtypes, recipe=recipe, backend=backend, out=out, force=force, observations=observations, **options
    )
    return conversion


def convert_all(
    names: Iterable[AnyReference],
    dtypes: Sequence[str],
    *,
    recipe: Recipe | str | Path | None = None,
    backend: str = NATIVE,
    out: str | Path = "variants",
    force: bool = False,
    observations: str | Path | None = None,
    **options: Any,
) -> Iterator[Conversion]:
    """`convert` for each reference and dtype."""
    if not dtypes and recipe is None:
        raise InputError("--dtype or --recipe is needed: it says which format to convert to")
    given = {key: value for key, value in options.items() if value is not None}
    asked = [given | {"dtype": dtype} for dtype in dtypes] or [given]
    folder = None if observations is None else Path(observations)
    if backend != NATIVE:
        if folder is not None:
            raise InputError(f"--observations are our own; --backend {backend} makes its own and keeps none")
        peer_recipes = [_peer_recipe(backend, recipe, each) for each in asked]
        for reference in chosen(names):
            for peer_recipe in peer_recipes:
                yield _timed(reference, convert_with(reference, peer_recipe, out=Path(out), force=force))
        return
    recipes = [_recipe(recipe, each) for each in asked]
    for reference in chosen(names):
        check_granularity(reference, given.get("granularity"))
        for own in recipes:
            yield _timed(
                reference, quantization.convert(reference, own, out=Path(out), force=force, observations=folder)
            )


def up_to_date_variant(reference: Reference, dtype: str, out: Path) -> Conversion:
    """The variant of a reference, converted first when there is none, or when what it was made of has changed.

    A variant that is there keeps the recipe it was made with; a new one takes the default recipe of its dtype.

    Raises:
        InputError, MissingError: as `convert`.
    """
    manifest = read_manifest(variant_folder(out, reference.name, dtype))
    name, backend = split_dtype(dtype)
    document = {"dtype": name} if manifest is None else manifest["recipe"]
    if backend == NATIVE:
        conversion = quantization.convert(reference, TypeAdapter(Recipe).validate_python(document), out=out)
    else:
        peer_recipe = TypeAdapter(PeerRecipe).validate_python({"backend": backend} | document)
        conversion = convert_with(reference, peer_recipe, out=out)
    if not conversion.kept:
        why = "there was none" if manifest is None else "it was out of date"
        logger.info("converted %s to %s first, because %s (%.1f s)", reference.name, dtype, why, conversion.seconds)
    return conversion


def _timed(reference: Reference, conversion: Conversion) -> Conversion:
    """The conversion with the speed of what it made, and a word to the user where that is below FP32's."""
    if conversion.kept:
        return conversion
    ratio = speedup(reference, conversion)
    if ratio is not None and ratio < 1:
        logger.warning(
            "the %s variant of %s runs at %.2f times the speed of FP32 on this machine: slower, though smaller",
            conversion.dtype,
            conversion.reference,
            ratio,
        )
    if only_stores_integers(conversion):
        logger.info(
            "every operation of the %s variant of %s computes in float, which is faster there; integers are what its "
            'weights are stored in. A recipe with placement = "everywhere" computes in integers whatever can',
            conversion.dtype,
            conversion.reference,
        )
    return replace(conversion, speedup=ratio)


def _peer_recipe(backend: str, recipe: Recipe | str | Path | None, options: Mapping[str, Any]) -> PeerRecipe:
    foreign = [key for key in options if key not in {field.name for field in fields(PeerRecipe)}]
    foreign += [] if recipe is None else ["recipe"]
    if foreign:
        raise InputError(f"--{foreign[0].replace('_', '-')} is for --backend {NATIVE} and --backend is {backend}")
    return PeerRecipe(backend=get_backend(backend).name, **options)


def _recipe(recipe: Recipe | str | Path | None, options: Mapping[str, Any]) -> Recipe:
    if isinstance(recipe, str | Path):
        return load_recipe(recipe, **options)
    document = {**options} if recipe is None else {**recipe.document(), **options}
    try:
        return TypeAdapter(Recipe).validate_python(document)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}, not {wrong['input']!r}") from error
