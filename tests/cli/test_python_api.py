"""The operations from Python: the same as the commands, returning the nouns."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_workshop import Runner

import quantbench as package
from quantbench.errors import InputError


def test_importing_the_package_imports_nothing_else() -> None:
    script = (
        "import sys, quantbench; print(*[name for name in sys.modules if name.startswith(('quantbench.', 'numpy'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_public_names() -> None:
    assert {"convert", "evaluate", "gate", "load_reference"} <= set(package.__all__)
    assert all(callable(getattr(package, name)) for name in package.__all__)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = package.nonsense


@pytest.mark.parametrize("given", [str, Path, package.load_reference], ids=["str", "Path", "Reference"])
def test_the_same_operations_as_the_commands(given: type, tiny: Path, quantbench: Runner) -> None:
    out = tiny.parent / "variants"
    reference = given(tiny)
    conversion = package.convert(reference, "int8", out=out)
    score = package.evaluate(reference, "int8", samples=40, out=str(out))
    verdict = package.gate(reference, "int8", samples=40, out=out)
    for noun in (conversion, score, verdict):
        assert dataclasses.is_dataclass(noun)
        with pytest.raises(dataclasses.FrozenInstanceError):
            noun.dtype = "fp16"
    (kept,) = json.loads(quantbench("convert", tiny, "--dtype", "int8", "--out", out, "--json").stdout)
    assert kept["path"] == str(conversion.path) and kept["model_bytes"] == conversion.model_bytes
    words = (tiny, "--dtype", "int8", "--samples", "40", "--out", out, "--json")
    _, scored = json.loads(quantbench("evaluate", *words).stdout)
    assert (scored["score"], scored["samples"]) == (score.score, score.samples)
    (judged,) = json.loads(quantbench("gate", *words).stdout)
    assert judged == verdict.document()


def test_a_recipe_file_and_options(tiny: Path, quantbench: Runner) -> None:
    """The recipe file says the format, an option beside it wins over what it says."""
    recipe = tiny.parent / "recipe.toml"
    recipe.write_text('dtype = "int8"\ncalibrator = "percentile"\ngranularity = "tensor"\n')
    out = tiny.parent / "variants"
    conversion = package.convert(tiny, recipe=recipe, out=out)
    assert (conversion.dtype, conversion.calibration.calibrator) == ("int8", "percentile")
    words = (tiny, "--recipe", recipe, "--calibrator", "entropy", "--out", out, "--json")
    (document,) = json.loads(quantbench("convert", *words).stdout)
    assert (document["dtype"], document["calibration"]["calibrator"]) == ("int8", "entropy")
    manifest = json.loads((conversion.path / "variant.json").read_text())
    assert manifest["recipe"]["granularity"] == "tensor"


def test_errors_are_of_the_one_family(tiny: Path) -> None:
    with pytest.raises(InputError, match="int88"):
        package.convert(tiny, "int88")
    with pytest.raises(InputError, match="samples"):
        package.evaluate(tiny, samples=0)
    with pytest.raises(InputError, match="dtype"):
        package.convert(tiny)
    with pytest.raises(InputError, match="granularity"):
        package.convert(tiny, "int8", granularity=[1])
