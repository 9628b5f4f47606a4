"""A reference of one small convolution network with data and calibration samples, written into a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx_models import graph, normal, run

from quantbench.references import Reference, load_reference

SAMPLES = 24
TEXT = """\
name = "small"
task = "image-classification"
[model]
path = "small.onnx"
[dataset]
kind = "npz"
path = "small.npz"
[calibration]
samples = 24
[quality]
metric = "top1"
target_ratio = 0.9
"""


def network(draw: int = 0) -> onnx.ModelProto:
    """Conv → Clip → depthwise Conv → Relu → Conv → Add → mean → Gemm: 432 + 144 + 256 + 80 weights, 53 biases."""

    def drawn(*shape: int, seed: int = 0) -> np.ndarray:
        return normal(*shape, seed=seed + 100 * draw)

    return graph(
        """
        g (float[n,3,8,8] x) => (float[n,5] y)
        <float lo = {0.0}, float hi = {6.0}>
        {
          c1 = Conv <pads=[1,1,1,1]> (x, w1, b1)  r1 = Clip(c1, lo, hi)
          c2 = Conv <group=16, pads=[1,1,1,1]> (r1, w2, b2)  r2 = Relu(c2)
          c3 = Conv(r2, w3, b3)  s = Add(c3, r1)
          p = GlobalAveragePool(s)  f = Flatten(p)  y = Gemm <transB=1> (f, w4, b4)
        }
        """,
        w1=drawn(16, 3, 3, 3), b1=drawn(16, seed=1), w2=drawn(16, 1, 3, 3, seed=2), b2=drawn(16, seed=3),
        w3=0.3 * drawn(16, 16, 1, 1, seed=4), b3=drawn(16, seed=5), w4=drawn(5, 16, seed=6), b4=drawn(5, seed=7),
    )  # fmt: skip


def images() -> np.ndarray:
    """Calibration samples first, then scored ones."""
    return normal(SAMPLES + 8, 3, 8, 8, seed=20)


def small_reference(folder: Path) -> Reference:
    """Write model, data and reference file; labels are what the model says."""
    onnx.save(network(), folder / "small.onnx")
    np.savez(folder / "small.npz", x=images(), y=run(network(), {"x": images()})[0].argmax(1))
    (folder / "small.toml").write_text(TEXT, encoding="utf-8")
    return load_reference(str(folder / "small.toml"))
