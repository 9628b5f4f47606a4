"""What a user may ask for, and what is answered when it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.errors import InputError
from quantbench.quantization import LayerRule, Recipe, load_recipe

TEXT = """\
dtype = "int8"
granularity = "block:32"
calibrator = "percentile"
calibration_samples = 50
bias_correction = false
seed = 7

[[layers]]
match = "head.*"
weights = "int16"
activations = "uint16"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("dtype", "weights", "activations"),
    [
        ("int8", "int8", "uint8"),
        ("uint8", "uint8", "uint8"),
        ("int4", "int4", "uint8"),
        ("int16", "int16", "uint16"),
        ("uint16", "uint16", "uint16"),
        ("fp16", "fp16", "fp16"),
        ("bfloat16", "bfloat16", "bfloat16"),
        ("e5m5", "fp11", "fp11"),
    ],
)
def test_what_a_dtype_stands_for(dtype: str, weights: str, activations: str):
    recipe = Recipe(dtype)
    assert (recipe.weight_format, recipe.activation_format) == (weights, activations)
    assert recipe.has_integers == ("int" in weights)


def test_weights_and_activations_of_their_own():
    recipe = Recipe("int8", weights="int4", activations="fp16")
    assert (recipe.weight_format, recipe.activation_format) == ("int4", "fp16")
    assert Recipe("fp16", weights="int8").has_integers and not Recipe("int8", "fp16", "fp16").has_integers
    assert Recipe("fp16", layers=(LayerRule("x", weights="int8"),)).has_integers


def test_a_file(tmp_path: Path):
    assert load_recipe(written(tmp_path, TEXT)) == Recipe(
        "int8",
        granularity="block:32",
        calibrator="percentile",
        calibration_samples=50,
        bias_correction=False,
        seed=7,
        layers=(LayerRule("head.*", "int16", "uint16"),),
    )


def test_options_win_over_the_file(tmp_path: Path):
    recipe = load_recipe(written(tmp_path, TEXT), dtype="int4", seed=None, calibrator="minmax", granularity="tensor")
    assert (recipe.dtype, recipe.seed, recipe.calibrator, recipe.block_size) == ("int4", 7, "minmax", 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('dtype = "int8"\ncalibrater = "mse"', r"unknown key 'calibrater'; did you mean 'calibrator'\?"),
        ('dtype = "int8"\nzzz = 1', "unknown key 'zzz'; known: dtype, weights"),
        (TEXT + 'wieghts = "int8"', r"did you mean 'weights'\?"),
        ('dtype = "int8"\n[[layers]]\nweights = "int8"', "match"),
        ('dtype = "int8"\ncalibration_samples = "many"', "calibration_samples"),
        ('dtype = "int8"\ncalibration_samples = 0', "calibration samples must be at least 1"),
        ('dtype = "int8"\noutput_error = -0.1', "output_error must be at least 0, not -0.1"),
        ('dtype = "int8"\noutput_error = nan', "output_error must be at least 0, not nan"),
        ('dtype = "int8"\ncalibrator = "mean"', "unknown calibrator 'mean'"),
        ('dtype = "itn8"', "unknown number format 'itn8'"),
        ('dtype = "int8"\n[[layers]]\nmatch = "a"\nweights = "nt8"', "unknown number format 'nt8'"),
        ("seed = 1", "dtype"),
        ("dtype = int8", "is not TOML"),
    ],
)
def test_mistakes_are_told_in_one_sentence(text: str, sentence: str, tmp_path: Path):
    with pytest.raises(InputError, match=sentence) as caught:
        load_recipe(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot read recipe .*nowhere\.toml: No such file"):
        load_recipe(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot read recipe .*binary\.toml"):
        load_recipe(tmp_path / "binary.toml")


@pytest.mark.parametrize("granularity", ["block", "block:", "block:0", "block:-4", "block:x", "row", "block:1.5", ""])
def test_granularities_that_are_none(granularity: str):
    with pytest.raises(InputError, match="unknown granularity"):
        Recipe("int8", granularity=granularity)


def test_rules_match_nodes_or_weights_and_the_last_wins():
    rules = (
        LayerRule("conv*", weights="int4"),
        LayerRule("conv2", "int16", "uint16"),
        LayerRule("*.w", activations="fp16"),
    )
    recipe = Recipe("int8", layers=rules)

    def formats(*names: str) -> tuple[str, str]:
        weights, activations = recipe.formats_for(*names)
        return weights.name, activations.name

    assert formats("gemm") == ("int8", "uint8")
    assert formats("conv1") == ("int4", "uint8")
    assert formats("conv2") == ("int16", "uint16")
    assert formats("conv2", "c.w") == ("int16", "fp16")
    assert formats("Conv1") == ("int8", "uint8"), "patterns tell case apart"


def test_the_document_says_only_what_was_asked(tmp_path: Path):
    assert Recipe("int8").document() == {"dtype": "int8"}
    document = load_recipe(written(tmp_path, TEXT)).document()
    assert document["layers"] == [{"match": "head.*", "weights": "int16", "activations": "uint16"}]
    assert Recipe(**{**document, "layers": tuple(LayerRule(**rule) for rule in document["layers"])}) == load_recipe(
        tmp_path / "recipe.toml"
    )


def test_an_unknown_rounding_names_the_nearest_known_one():
    with pytest.raises(InputError, match="unknown weight rounding 'gtpq'; did you mean gptq"):
        Recipe("int4", rounding="gtpq")
    assert Recipe("int4", rounding="gptq").document() == {"dtype": "int4", "rounding": "gptq"}


@pytest.mark.parametrize("activations", ["uint4", "int2", "int6"])
def test_activations_that_nothing_computes_with(activations: str):
    for recipe in (
        lambda: Recipe("int8", activations=activations),
        lambda: Recipe("int8", layers=(LayerRule("x", activations=activations),)),
    ):
        with pytest.raises(InputError, match=f"does not compute with {activations} activations; .* 8 or 16 bits"):
            recipe()
