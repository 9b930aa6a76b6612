"""A graph of many rows must not need a matrix of rows by rows."""

import json
import subprocess
import sys

import pytest

ROWS, DIM = 65_536, 256
STEP = """
import json, re
import torch
from egapipe.stages.distill.objectives import ega_loss

def peak():
    with open("/proc/self/status") as file:
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", file.read())[1]) * 1024

def step(rows):
    student, teacher = torch.randn(2, rows, {dim})
    student.requires_grad_()
    ega_loss(student, teacher, form="factored").backward()
    return student.grad

step(64)
before = peak()
finite = bool(step({rows}).isfinite().all())
print(json.dumps({{"finite": finite, "bytes": peak() - before}}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux alone")
def test_a_graph_of_65536_rows_in_a_gigabyte():
    """Inputs, forward and backward pass; B x B in float32 would be 17 GB.

    In a process of its own, since the peak of a process never falls. Not by getrusage: its figure
    starts at that of the process which started this one.
    """
    code = STEP.format(rows=ROWS, dim=DIM)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seen = json.loads(done.stdout)
    inputs = 2 * ROWS * DIM * 4
    assert seen["finite"]
    assert inputs < seen["bytes"] < 10**9
