"""Scales per tensor for the models whose rule says so."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_reference import small_reference

from quantbench.errors import InputError
from quantbench.operations.conversions import convert
from quantbench.quantization.recipe import Recipe
from quantbench.quantization.rules import within_rules
from quantbench.references import load_reference
from quantbench.references.schema import Rules


@pytest.mark.parametrize("name", ["mobilenet", "ssd-mobilenet"])
def test_the_two_models_whose_rule_says_so(name: str) -> None:
    assert within_rules(load_reference(name), Recipe("int8")).granularity == "tensor"
    with pytest.raises(InputError, match=f"rules for {name} ask for one scale a tensor.*block:32"):
        within_rules(load_reference(name), Recipe("int8", granularity="block:32"))
    assert within_rules(load_reference(name), Recipe("fp11")) == Recipe("fp11")  # nothing is scaled


def test_others_keep_what_the_recipe_says() -> None:
    for granularity in ("channel", "tensor", "block:32"):
        recipe = Recipe("int8", granularity=granularity)
        assert within_rules(load_reference("resnet50"), recipe) == recipe


def axes(folder: Path) -> set[object]:
    """The axes along which weights have a scale each."""
    plan = json.loads((folder / "plan.json").read_text())
    tensors = [tensor for graph in plan["graphs"].values() for tensor in graph["tensors"].values()]
    return {tensor.get("axis") for tensor in tensors if tensor["role"] == "weight"}


def test_a_conversion_keeps_to_it(tmp_path: Path) -> None:
    own = small_reference(tmp_path)
    assert axes(convert(own, "int8", out=tmp_path / "free").path) == {0}
    ruled = replace(own, rules=Rules(granularity="tensor"))
    assert axes(convert(ruled, "int8", out=tmp_path / "ruled").path) == {None}
    with pytest.raises(InputError, match="--granularity channel cannot be"):
        convert(ruled, "int8", granularity="channel", out=tmp_path / "ruled")
