import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Prints how many page faults 200 blocks of 256 KiB cost, one after the other.
CODE = """
import resource, sys
from producers import memory
known = memory.keep() if sys.argv[1] == "keep" else True
block = bytearray(b"x") * (256 << 10)
bytes(block)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    bytes(block)
print(known, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", CODE, how], cwd=ROOT, capture_output=True, text=True, check=True)
    known, count = done.stdout.split()
    if known != "True":
        pytest.skip("this C library has no mallopt")
    return int(count)


def test_blocks_are_used_again_without_a_fault():
    assert faults("keep") < 20 <= resource.getpagesize() // 64
