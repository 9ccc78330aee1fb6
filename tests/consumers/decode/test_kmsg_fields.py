import random

import numpy as np
import pyarrow as pa

from consumers.decode import kmsg_fields

PIECES = [
    b" ",
    b"=",
    b"\n",
    b"\n ",
    b"KEY",
    b"SUBSYSTEM=pci",
    b" DEVICE=c1:2",
    b"\\x41",
    b"\\",
    b"\xe4",
    b"\xc3\xa4",
    b"A=1\n A=2",
]


def maps(blocks):
    data = b"".join((*blocks, bytes(-sum(map(len, blocks)) % 8)))
    ends = np.cumsum([len(block) for block in blocks])
    starts = ends - [len(block) for block in blocks]
    found = kmsg_fields.maps(data, starts, ends)
    found.validate(full=True)
    assert found.type == kmsg_fields.TYPE
    return found.to_pylist()


def test_the_usual_lines():
    assert maps([b" SUBSYSTEM=usb\n DEVICE=c189:0\n", b" A\n", b"\n"]) == [
        [("SUBSYSTEM", "usb"), ("DEVICE", "c189:0")],
        [("A", "")],
        [],
    ]


def test_no_blocks():
    assert maps([]) == []


def test_a_key_that_comes_again_a_torn_escape_and_bad_utf8():
    assert maps([b" A=1\n B=2\n A=3\n", b" B=1\n", b" \\x41=\\x4", b" K=\xff\n"]) == [
        [("A", "1\n3"), ("B", "2")],
        [("B", "1")],
        [("A", "\\x4")],
        [("K", "�")],
    ]


def test_many_at_once_are_what_one_at_a_time_are():
    rng = random.Random(5)
    blocks = [b"".join(rng.choices(PIECES, k=rng.randint(1, 6))) for _ in range(4000)]
    assert maps(blocks) == [kmsg_fields.dictionary(block) for block in blocks]
    assert (
        maps(blocks[:7])
        == pa.array([kmsg_fields.dictionary(block) for block in blocks[:7]], kmsg_fields.TYPE).to_pylist()
    )
