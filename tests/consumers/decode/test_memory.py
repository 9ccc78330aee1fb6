"""Memory that is handed out anew only when nobody can see it any more, and of which a bounded part is kept."""

import gc
import threading

import numpy as np
import pyarrow as pa
import pyarrow.compute

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
    assert place in [address(each) for each in (memory.take(100), memory.take(100))]


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
    places = {address(each) for each in used}
    del used
    again = [memory.take(BLOCK_BYTES) for _ in range(4)]
    assert len(places & {address(each) for each in again}) == 4
    assert memory._held_bytes == 4 * BLOCK_BYTES and not memory._unused
    del again
    large = memory.take(3 * BLOCK_BYTES)  # in the place of three unused ones
    assert memory._held_bytes == 4 * BLOCK_BYTES and len(memory._unused) == 1
    huge = memory.take(5 * BLOCK_BYTES)  # for which there never is room: nothing gives way
    assert len(huge) == 5 * BLOCK_BYTES and memory._held_bytes == 4 * BLOCK_BYTES
    del large, huge
    assert sorted(len(block) for block in memory._unused.values()) == [BLOCK_BYTES, 3 * BLOCK_BYTES]


def test_threads_never_share_what_they_took():
    memory, wrong = Memory(8 * BLOCK_BYTES), []

    def work(number):
        for i in range(300):
            mine = memory.take(BLOCK_BYTES // 2 * (i % 4 + 1))
            mine[:] = number
            column = pa.array(mine)
            del mine
            if pa.compute.min_max(column).as_py() != {"min": number, "max": number}:
                wrong.append((number, i))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_nothing_is_of_no_size():
    assert len(Memory().take(0)) == 0
