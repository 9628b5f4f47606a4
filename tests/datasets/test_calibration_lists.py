"""The lists in calibration/ are those of the built-in references."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.datasets import open_dataset
from quantbench.references import Reference, builtin_references, calibration_file, missing
from quantbench.support import sha256_file

LISTS = Path(__file__).parents[2] / "calibration"
OFFICIAL = {
    "imagenet_option_1.txt": "7662247d1d9407d6cb564268f64c5a4a6cf9f1a34fd2e6cdc3b94dcf278b3dc9",
    "imagenet_option_2.txt": "11ce810122226ec0ca8c56e47ee356e3c1185f3c6ce8262edb50c3c1d0a9705e",
    "coco.txt": "ca6f97a9e49db992d18bf01dc98d7b164c5f57c0ce2553c45365ca8445bec559",
    "wmt16_tok_bpe_en.txt": "2c3a525d8b74950a9eb017b72ec8edc18407c227757eba19ee83c37e3629a93c",
}
EMBEDDED = [reference for reference in builtin_references() if reference.suite == "embedded"]


@pytest.mark.parametrize("reference", EMBEDDED, ids=lambda reference: reference.name)
def test_the_list_is_what_calibrates(reference: Reference) -> None:
    if (command := missing(reference)) is not None:
        pytest.skip(f"not fetched: {command}")
    data = open_dataset(reference)
    file = LISTS / f"{reference.name}.txt"
    assert file.read_text().splitlines() == list(data.calibration.ids)
    assert sha256_file(file) == data.calibration_sha256
    assert not set(data.calibration.ids) & set(data.scored.ids)
    assert len(data.calibration) == reference.calibration.samples
    assert len(data.scored) == reference.dataset.samples


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_official_lists_are_unchanged(name: str) -> None:
    """sha256 and lengths as the suite's rules give them."""
    assert sha256_file(LISTS / name) == OFFICIAL[name]
    assert len((LISTS / name).read_text(encoding="utf-8").splitlines()) == 500
    assert f"| `{name}` | 500 | `{OFFICIAL[name]}` |" in (LISTS / "README.md").read_text()


@pytest.mark.parametrize(
    "reference", [each for each in builtin_references() if each.suite == "mlperf-v0.5"], ids=lambda each: each.name
)
def test_a_reference_of_the_suite_names_an_official_list(reference: Reference) -> None:
    rule = reference.calibration
    assert rule.list is not None and rule.sha256 == OFFICIAL[rule.list]
    assert calibration_file(reference) == LISTS / rule.list
    assert rule.url is not None and rule.url.startswith("https://raw.githubusercontent.com/mlcommons/inference/")


def test_every_list_has_a_reference_and_a_line_in_the_readme() -> None:
    assert {file.stem for file in LISTS.glob("*.txt") if file.name not in OFFICIAL} == {each.name for each in EMBEDDED}
    readme = (LISTS / "README.md").read_text()
    for reference in EMBEDDED:
        assert f"| `{reference.name}.txt` | {reference.calibration.samples} |" in readme
