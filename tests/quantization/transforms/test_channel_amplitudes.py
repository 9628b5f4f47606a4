"""The largest magnitudes per channel, against numpy on the tensors themselves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_models import graph, normal, run

from quantbench.graphs.load import prepare
from quantbench.quantization.transforms.channel_amplitudes import channel_amplitudes

TEXT = "g (float[n,3,6,6] x) => (float[n,4] y) { c = Conv(x, w)  p = GlobalAveragePool(c)  y = Flatten(p) }"


def test_the_largest_of_all_batches():
    proto = graph(TEXT, w=normal(4, 3, 3, 3, seed=1))
    model = prepare(proto)
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    feeds = [{"x": normal(2, 3, 6, 6, seed=seed)} for seed in range(3)]
    found = channel_amplitudes(model, {"c": 1, "p": 1}, feeds)
    exposed = graph(TEXT.replace("y)", "y, float[n,4,4,4] c, float[n,4,1,1] p)", 1), w=normal(4, 3, 3, 3, seed=1))
    rows = [run(exposed, feed) for feed in feeds]
    for name, index in (("c", 1), ("p", 2)):
        expected = np.abs(np.concatenate([row[index] for row in rows])).max(axis=(0, 2, 3))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_nothing_asked_or_nothing_fed():
    model = prepare(graph(TEXT, w=normal(4, 3, 3, 3)))
    assert channel_amplitudes(model, {}, [{"x": normal(1, 3, 6, 6)}]) == {}
    assert channel_amplitudes(model, {"c": 1}, []) == {}
