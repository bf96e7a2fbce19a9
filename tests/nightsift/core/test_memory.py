"""Memory of a process: kept where that was asked for, given back on demand."""

import subprocess
import sys

import pytest

CHILD = """
import mmap
import numpy as np
from nightsift.core.parallel import give_back_memory, keep_freed_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE

before, kept = resident(), keep_freed_memory()
np.ones(25_000_000)
after, given = resident(), give_back_memory()
print(kept, given, after - before, resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is told by /proc")
def test_freed_memory_is_kept_and_given_back_on_demand():
    told = subprocess.run([sys.executable, "-c", CHILD], check=True, capture_output=True, text=True).stdout.split()
    if told[0] == "False":
        pytest.skip("not the C library of GNU")
    assert told[:2] == ["True", "True"]
    assert int(told[2]) > 150_000_000
    assert int(told[3]) < 50_000_000
