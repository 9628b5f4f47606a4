"""The lists in calibration/ are those of the built-in references."""

from __future__ import annotations

from pathlib import Path

import pytest

from quantbench.datasets import open_dataset
from quantbench.references import Reference, builtin_references, missing
from quantbench.support import sha256_file

LISTS = Path(__file__).parents[2] / "calibration"
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


def test_every_list_has_a_reference_and_a_line_in_the_readme() -> None:
    assert {file.stem for file in LISTS.glob("*.txt")} == {reference.name for reference in EMBEDDED}
    readme = (LISTS / "README.md").read_text()
    for reference in EMBEDDED:
        assert f"| `{reference.name}.txt` | {reference.calibration.samples} |" in readme
