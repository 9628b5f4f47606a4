"""Observations come back from a file as they were, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from quantbench.calibration import Histogram, Observation, load_observations, save_observations

VALUES = npst.arrays(
    np.float32, st.integers(1, 50), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


def seen(values: np.ndarray) -> Observation:
    histogram = Histogram("t")
    histogram.add(values)
    return histogram.observation()


@given(st.dictionaries(st.text(max_size=3), st.dictionaries(st.text(max_size=3), VALUES, max_size=3), max_size=3))
def test_what_is_saved_comes_back(tmp_path_factory: pytest.TempPathFactory, arrays: dict):
    file = tmp_path_factory.mktemp("observations") / "seen.npz"
    given = {graph: {name: seen(values) for name, values in named.items()} for graph, named in arrays.items() if named}
    save_observations(file, given, "key")
    found = load_observations(file, "key")
    assert found is not None and {graph: list(named) for graph, named in found.items()} == {
        graph: list(named) for graph, named in given.items()
    }
    for graph, named in given.items():
        for name, wanted in named.items():
            got = found[graph][name]
            assert (got.minimum, got.maximum) == (wanted.minimum, wanted.maximum)
            np.testing.assert_array_equal(got.counts, wanted.counts)


def test_another_key_a_missing_and_a_cut_file(tmp_path: Path):
    file = tmp_path / "seen.npz"
    assert load_observations(file, "key") is None
    save_observations(file, {"model": {"x": seen(np.arange(9, dtype=np.float32))}}, "key")
    assert load_observations(file, "other") is None
    data = file.read_bytes()
    for size in (0, 10, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        assert load_observations(file, "key") is None
