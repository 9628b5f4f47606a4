"""What the stages' arena took goes back to the system, as the system counts it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import numpy as np, onnx, onnx_ir as ir
from quantbench.graphs.arena import shrink_shared_arena
from quantbench.graphs.staging import StagedSession, Tap
from quantbench.support import return_memory

def resident():
    lines = open("/proc/self/status").read().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) // 1024

shrink_shared_arena()  # there is none yet
proto = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { a = Exp(x)  b = Neg(a)  y = Exp(b) }'
)
session = StagedSession(ir.from_proto(proto), {"a": Tap(lambda values: None)})
session.run({"x": np.zeros(40 << 20, np.float32)})
del session
return_memory()
before = resident()
shrink_shared_arena()
return_memory()
print(before - resident())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what is resident")
def test_what_was_taken_goes_back():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 150, "MB; a tensor of the session has 160"
