"""Quantization: from a recipe and observations to a plan, and from a plan to a variant on disk."""

from quantbench.quantization.convert import convert
from quantbench.quantization.manifest import Calibration, Conversion
from quantbench.quantization.plan import GraphPlan, Plan, TensorPlan
from quantbench.quantization.recipe import LayerRule, Recipe, load_recipe
from quantbench.quantization.variant import Variant, load_variant, open_variant, variant_folder

__all__ = [
    "Calibration",
    "Conversion",
    "GraphPlan",
    "LayerRule",
    "Plan",
    "Recipe",
    "TensorPlan",
    "Variant",
    "convert",
    "load_recipe",
    "load_variant",
    "open_variant",
    "variant_folder",
]
