"""Stretches of ring: where the records are, against a plain reader, whatever the bytes.

A million stretches: HYPOCENTER_FUZZ_RINGS=1000000 python -m pytest -k stretch tests/consumers/decode
"""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from consumers.decode import bpf_loops
from consumers.decode.bpf_records import Fault, walk
from schemas.errors import BadInputError
from tests.consumers._records import Gone, ring

FUZZ_RINGS = int(os.environ.get("HYPOCENTER_FUZZ_RINGS", "100000"))


def read(data, byteorder):
    """Return the records of a ring as (start, length), or None, as Documentation/bpf/ringbuf.rst describes them."""
    at, found = 0, []
    while at < len(data):
        if at + 8 > len(data):
            return None
        word = int.from_bytes(data[at : at + 4], byteorder)
        length = word & 0x3FFFFFFF
        end = at + 8 + (length + 7) // 8 * 8
        if word >> 31 or end > len(data):
            return None
        if not word >> 30:
            found.append((at + 8, length))
        at = end
    return found


def check(data, byteorder, count):
    """The walk gives what the plain reader says, or refuses; returned whether it gave something."""
    want = read(data, byteorder)
    try:
        found = walk(data, count, big_endian=byteorder == "big")
    except BadInputError:
        assert want is None or len(want) != count
        return False
    assert list(zip(found.starts.tolist(), found.lengths.tolist(), strict=True)) == want
    return True


def test_the_codes_of_the_loop_are_those_of_the_enumeration():
    assert bpf_loops.NO_FAULT == Fault.NONE
    for fault in Fault:
        if fault != Fault.NONE:
            assert getattr(bpf_loops, f"FAULT_{fault.name}") == fault


@pytest.mark.parametrize("order", ["<", ">"])
def test_records_of_every_length_and_those_taken_back(order):
    data = ring(*[bytes(i) for i in range(20)], Gone(b"x" * 5), b"end", Gone(b""), order=order)
    found = walk(data, 21, big_endian=order == ">")
    assert found.lengths.tolist() == [*range(20), 3]
    assert check(data, "big" if order == ">" else "little", 21)


def test_no_ring_at_all_has_no_records():
    assert walk(b"", 0, big_endian=False).starts.tolist() == []


def mutated(random_, order):
    sizes = random_.choice(((8,), (0, 1, 8, 9, 64), (3, 500)))
    records = [random_.choice((bytes, bytes, Gone))(random_.randbytes(random_.choice(sizes))) for _ in range(random_.randrange(12))]  # fmt: skip
    data = bytearray(ring(*records, order=order))
    for _ in range(random_.choice((0, 1, 2)) if data else 0):
        at = random_.randrange(len(data)) // 8 * 8 + random_.choice((0, 0, 3, 1))
        data[at] = random_.choice((0, 1, 8, 0x3F, 0x40, 0x80, 0xFF))
    if random_.random() < 0.1:
        del data[random_.randrange(len(data) + 1) :]
    return bytes(data), sum(not isinstance(each, Gone) for each in records)


def fuzz(rings, seed):
    random_, given = random.Random(seed), 0
    for _ in range(rings):
        order = random_.choice("<>")
        data, count = mutated(random_, order)
        given += check(data, "big" if order == ">" else "little", count + random_.choice((0, 0, 0, 1)))
    return given


def test_any_stretch_is_records_or_refused():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    given = fuzz(FUZZ_RINGS, seed)
    assert FUZZ_RINGS // 10 < given < FUZZ_RINGS * 9 // 10


def test_any_stretch_with_every_index_checked(tmp_path):
    code = "from tests.consumers.decode.test_bpf_records import fuzz; fuzz(5000, 1)"
    bounds = {"NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)}
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, env={**os.environ, **bounds})


def test_nothing_is_compiled_before_a_ring_is_read():
    code = "import sys, consumers.decode.bpf; print('numba' in sys.modules)"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_a_walk_takes_any_buffer():
    data = ring(b"abc")
    for each in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert walk(each, 1, big_endian=False).lengths.tolist() == [3]
