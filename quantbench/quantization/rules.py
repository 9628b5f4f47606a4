"""What the benchmark's rules for a model ask of its recipes."""

from __future__ import annotations

from dataclasses import replace

from quantbench.errors import InputError
from quantbench.quantization.recipe import Recipe
from quantbench.references import Reference

__all__ = ["check_granularity", "within_rules"]


def within_rules(reference: Reference, recipe: Recipe) -> Recipe:
    """The recipe with the granularity that the reference's rules ask for, where it leaves that at its default.

    Raises:
        InputError: the recipe asks for another.
    """
    ruled = reference.rules.granularity
    if ruled is None or not recipe.has_integers or recipe.granularity == ruled:
        return recipe
    if recipe.granularity != Recipe.granularity:
        check_granularity(reference, recipe.granularity)
    return replace(recipe, granularity=ruled)


def check_granularity(reference: Reference, granularity: str | None) -> None:
    """
    Raises:
        InputError: `granularity` was asked for, and the reference's rules want another.
    """
    ruled = reference.rules.granularity
    if ruled is not None and granularity not in (None, ruled):
        raise InputError(
            f"the rules for {reference.name} ask for one scale a {ruled}, so --granularity {granularity} cannot be; "
            f"leave it out, or take [rules] out of a copy of {reference.file}"
        )
