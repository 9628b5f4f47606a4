"""Ctrl-C and kill -9 at every step that convert takes on the disk, and two converts at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_workshop import Runner, tree

# A child process that imports once and then forks for each step: the fork sends itself the signal at its N-th
# operating system event (file opened, folder made, renamed, removed) under --out, until one runs through to its end.
# Python reports these events to audit hooks before they happen.
CHILD = """
import os, shutil, sys
from quantbench.cli import main
import quantbench.operations.conversions

out, stand, reference, signal = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
WATCHED = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "shutil.rmtree", "tempfile.mkdtemp"}

def one(step):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in WATCHED and str(arguments[0]).startswith(out):
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal)
    sys.addaudithook(hook)
    status = main(["convert", reference, "--dtype", "int8", "--calibrator", "minmax", "--out", out])
    sys.stdout.flush()
    os._exit(status if seen >= step else 99)

for step in range(1, 400):
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(stand, out)
    child = os.fork()
    if child == 0:
        one(step)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    shutil.copytree(out, f"{out}-after-{step}-{code}")
    if code == 99:
        break
"""


@pytest.fixture
def stand(tiny: Path, quantbench: Runner) -> Path:
    """A variants folder with a good INT8 variant in it."""
    folder = tiny.parent / "stand"
    assert quantbench("convert", tiny, "--dtype", "int8", "--out", folder).status == 0
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_interrupted_at_every_step(number: signal.Signals, tiny: Path, stand: Path, quantbench: Runner) -> None:
    whole = tiny.parent / "whole"
    assert quantbench("convert", tiny, "--dtype", "int8", "--calibrator", "minmax", "--out", whole).status == 0
    old, new = tree(stand / "tiny" / "int8"), tree(whole / "tiny" / "int8")
    assert old != new

    work = tiny.parent / "work"
    done = subprocess.run(
        [sys.executable, "-c", CHILD, work, stand, tiny, str(int(number))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr

    afters = sorted(tiny.parent.glob("work-after-*"), key=lambda path: int(path.name.split("-")[2]))
    codes = [int(path.name.split("-", 3)[3]) for path in afters]
    interrupted = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[number]
    assert len(afters) > 5, "convert touched the disk in fewer steps than it has files"
    assert codes[-1] == 99, "the last step is the one past the end"
    # A Ctrl-C that arrives inside a clean-up that swallows errors lets the command end well.
    assert set(codes[:-1]) <= {interrupted, 0}
    assert interrupted in codes
    for after in afters:
        assert tree(after / "tiny" / "int8") in (old, new), after.name
        leftovers = [path.name for path in (after / "tiny").iterdir() if path.name != "int8"]
        assert all(name.startswith(".int8.") for name in leftovers), after.name
    assert tree(afters[0] / "tiny" / "int8") == old
    assert tree(afters[-1] / "tiny" / "int8") == new

    # After the worst of them a plain convert puts everything right.
    shutil.rmtree(work)
    shutil.copytree(afters[len(afters) // 2], work)
    assert quantbench("convert", tiny, "--dtype", "int8", "--calibrator", "minmax", "--out", work).status == 0
    assert tree(work / "tiny" / "int8") == new


def test_converts_at_once_all_end_well(tiny: Path, stand: Path, quantbench: Runner) -> None:
    """Writers with two recipes, started together, over a variant that is there: one complete variant stays."""
    out = tiny.parent / "shared"
    shutil.copytree(stand, out)
    command = [sys.executable, "-m", "quantbench", "convert", tiny, "--dtype", "int8", "--force"]
    writers = [
        subprocess.Popen([*command, "--calibrator", name, "--out", out], stderr=subprocess.PIPE, text=True)
        for name in ("mse", "minmax", "minmax")
    ]
    errors = [writer.communicate()[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], errors
    assert [path.name for path in (out / "tiny").iterdir()] == ["int8"]
    alone = tiny.parent / "alone"
    assert quantbench("convert", tiny, "--dtype", "int8", "--calibrator", "minmax", "--out", alone).status == 0
    assert tree(out / "tiny" / "int8") in (tree(stand / "tiny" / "int8"), tree(alone / "tiny" / "int8"))
