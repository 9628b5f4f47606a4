"""Compiled functions that numba keeps on disk are renewed when the kernel changes that was compiled into them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import quantbench

ROOM = Path(quantbench.__file__).parent / "numerics"


def test_files_that_compile_the_kernel_in_hold_its_sha256() -> None:
    kernel = hashlib.sha256((ROOM / "kernel.py").read_bytes()).hexdigest()
    compiling = [file for file in sorted(ROOM.glob("*.py")) if "@compiled" in file.read_text(encoding="utf-8")]
    assert {"accumulation.py", "blocks.py"} <= {file.name for file in compiling}
    for file in compiling:
        if file.name != "kernel.py":
            found = re.findall(r'^KERNEL_SHA256 = "(\w*)"$', file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert found == [kernel], f"{file.name}: set KERNEL_SHA256 to {kernel}"
