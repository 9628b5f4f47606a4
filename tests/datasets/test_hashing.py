"""The hash of samples: of the values, in their order, each input prepared once."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_models import normal

from quantbench.datasets.base import LazySamples
from quantbench.datasets.hashing import HashedSamples

VALUES = normal(5, 3, 4)


def hashed(values: np.ndarray = VALUES) -> tuple[HashedSamples, list[int]]:
    asked: list[int] = []

    def load(index: int) -> np.ndarray:
        asked.append(index)
        return values[index]

    return HashedSamples(LazySamples([str(index) for index in range(5)], load, lambda index: -index)), asked


def test_what_was_asked_for_is_not_asked_for_again():
    samples, asked = hashed()
    np.testing.assert_array_equal(samples.input(3), VALUES[3])
    fresh, _ = hashed()
    assert samples.inputs_sha256(4) == fresh.inputs_sha256(4)
    assert sorted(asked) == [0, 1, 2, 3]
    assert (len(samples), list(samples.ids), samples.truth(2)) == (5, ["0", "1", "2", "3", "4"], -2)


@pytest.mark.parametrize(
    "changed",
    [VALUES[[1, 0, 2, 3, 4]], VALUES + np.float32([0, 0, 0, 1e-6]), VALUES.astype(np.float64), VALUES.reshape(5, 12)],
)
def test_order_values_types_and_shapes_count(changed: np.ndarray):
    assert hashed(changed)[0].inputs_sha256(5) != hashed()[0].inputs_sha256(5)


def test_only_as_many_as_are_asked_for():
    changed = VALUES.copy()
    changed[4] = 0
    assert hashed(changed)[0].inputs_sha256(4) == hashed()[0].inputs_sha256(4) != hashed()[0].inputs_sha256(5)
