"""Memory that is handed out anew only when nobody can see it any more, and of which a bounded part is kept."""

import gc

import numpy as np
import pyarrow as pa

from consumers.decode.memory import BLOCK_BYTES, Memory


def address(octets):
    return octets.__array_interface__["data"][0]


def test_what_is_in_use_is_not_handed_out_whoever_uses_it():
    memory = Memory()
    first = memory.take(100)
    first[:] = 7
    column = pa.array(first.view(np.int32)[3:5])
    place = address(first)
    del first
    second = memory.take(100)
    second[:] = 9
    assert address(second) != place and column.to_pylist() == [0x07070707] * 2
    chunks = pa.chunked_array([column.slice(1)])
    del column
    gc.collect()
    assert address(memory.take(100)) != place
    del chunks
    gc.collect()
    assert address(memory.take(100)) == place


def test_the_smallest_block_that_is_large_enough_is_used_again():
    memory = Memory()
    large, small = memory.take(3 * BLOCK_BYTES), memory.take(1)
    places = address(large), address(small)
    del large, small
    held = memory.take(BLOCK_BYTES)
    assert len(held) == BLOCK_BYTES and address(held) == places[1]
    assert address(memory.take(2 * BLOCK_BYTES + 1)) == places[0]


def test_no_more_is_kept_than_was_said():
    memory = Memory(4 * BLOCK_BYTES)
    used = [memory.take(BLOCK_BYTES) for _ in range(6)]
    assert len(memory._blocks) == 4
    del used
    large = memory.take(3 * BLOCK_BYTES)  # in the place of unused ones
    assert sum(map(len, memory._blocks)) == 4 * BLOCK_BYTES
    huge = memory.take(5 * BLOCK_BYTES)
    assert len(huge) == 5 * BLOCK_BYTES and len(large) == 3 * BLOCK_BYTES
    assert all(len(block) < len(huge) for block in memory._blocks)


def test_nothing_is_of_no_size():
    assert len(Memory().take(0)) == 0
