import contextlib
import dataclasses
import os
import random
import re
import subprocess
import sys
import threading
import tracemalloc
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import frame as frames
from schemas import heartbeat, kmsg, limits
from schemas.errors import BadInputError
from schemas.frame import Frame, checksum, decode, decode_reach, decode_tags, encode
from schemas.loss import Loss
from schemas.stream import Stream
from tests.schemas import wire_writer as w
from tests.schemas.golden import vectors
from tests.schemas.hostile import HOSTILE

ROOT = Path(__file__).parent.parent.parent
WIRE = (ROOT / "schemas" / "WIRE.md").read_text(encoding="utf-8")
KMSG = vectors.KMSG
INT64 = st.integers(limits.INT64_MIN, limits.INT64_MAX)
POSITION = st.integers(0, limits.INT64_MAX)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=limits.TEXT_BYTES_MAX // 4)
NAME = TEXT.filter(bool)
LOSS = st.tuples(TEXT, POSITION, st.none() | POSITION, TEXT, TEXT).map(
    lambda loss: Loss(*loss[:2], loss[2] and min(loss[2], limits.INT64_MAX - loss[1]), *loss[3:])
) | st.builds(Loss, TEXT, POSITION, st.none() | POSITION, TEXT, TEXT, st.sampled_from(["event", "", "byte"]))


@st.composite
def frames_of_all_kinds(draw):
    first, next_ = sorted([draw(POSITION), draw(POSITION)])
    return Frame(
        Stream(draw(NAME), draw(NAME), draw(TEXT), draw(NAME), draw(TEXT), draw(TEXT)),
        *(draw(TEXT), draw(POSITION), first, next_, draw(st.integers(0, limits.FRAME_RECORDS_MAX))),
        *(draw(TEXT), draw(POSITION), draw(st.binary(max_size=60)) * draw(st.sampled_from([1, 1, 50]))),
        *(draw(st.lists(LOSS, max_size=20)), draw(INT64), draw(INT64), draw(INT64)),
        *(draw(st.none() | TEXT), draw(st.none() | st.binary(max_size=limits.DESCRIPTOR_BYTES_MAX))),
    )


def refused(data):
    with pytest.raises(BadInputError) as caught:
        decode(data)
    return caught.value.reason


# Golden vectors


@pytest.mark.parametrize("name", [name for name, expected in vectors.FRAMES.items() if expected])
def test_a_golden_vector_says_what_it_said(name):
    assert decode(vectors.stored(name)) == vectors.FRAMES[name]


@pytest.mark.parametrize("name", vectors.ENCODED)
def test_the_bytes_of_a_frame_are_the_golden_ones(name):
    assert encode(vectors.FRAMES[name], compress=False) == vectors.stored(name)


@pytest.mark.parametrize("name", [name for name in vectors.MAKE if name != "kmsg-zstd"])
def test_a_golden_file_is_what_its_writer_writes(name):
    assert vectors.MAKE[name]() == vectors.stored(name)


@pytest.mark.parametrize("name", [name for name, expected in vectors.FRAMES.items() if expected])
def test_reach_and_checksum_are_those_of_the_frame(name):
    data, frame = vectors.stored(name), vectors.FRAMES[name]
    assert decode_reach(data) == (frame.stream, frame.next)
    assert checksum(data) == zlib.crc32(data[:-5])


def test_the_reach_of_a_frame_with_a_spoilt_body_is_told_and_of_one_without_it_is_not():
    spoilt, _ = HOSTILE[next(name for name, (_, reason) in HOSTILE.items() if reason == "codec")]
    assert decode_reach(spoilt) == (KMSG.stream, KMSG.next)
    for key in ("stream", "next"):
        fields = {name: value for name, value in w.fields(KMSG).items() if name != key}
        with pytest.raises(BadInputError, match="is missing"):
            decode_reach(w.seal(fields))
    with pytest.raises(BadInputError, match="CRC-32"):
        decode_reach(vectors.stored("kmsg")[:-1])


def test_a_newer_version_is_told_from_damage():
    assert refused(vectors.stored("version-2")) == "version"
    assert refused(vectors.stored("version-2")[:-1] + b"\0") == "checksum"


def test_the_bodies_of_golden_vectors_are_read():
    lengths, data = kmsg.unpack(decode(vectors.stored("kmsg")).body)
    assert (list(lengths), bytes(data)) == ([len(each) for each in vectors.RECORDS], b"".join(vectors.RECORDS))
    beat = heartbeat.Heartbeat(**vectors.HEARTBEAT, counters=vectors.COUNTERS)
    assert heartbeat.unpack(decode(vectors.stored("heartbeat")).body) == beat
    assert heartbeat.pack(beat) == decode(vectors.stored("heartbeat")).body


def test_every_golden_file_is_known_and_described():
    files = {path.stem for path in vectors.HERE.glob("*.bin")}
    readme = (vectors.HERE / "README.md").read_text(encoding="utf-8")
    assert (
        files
        == set(vectors.MAKE)
        == set(vectors.FRAMES)
        == set(re.findall(r"^\| `([^`]+)\.bin` \|", readme, re.MULTILINE))
    )


# The written specification


def test_the_example_of_the_specification_is_the_golden_frame():
    example = WIRE.partition("```hex\n")[2].partition("```")[0]
    data = b""
    for line in example.splitlines():
        offset, octets, meaning = re.fullmatch(r"([0-9a-f]{4})  ((?:[0-9a-f]{2} )+) +(\S.*)", line).groups()
        assert int(offset, 16) == len(data)
        assert meaning
        data += bytes.fromhex(octets)
    assert data == vectors.stored("kmsg")


def test_the_specification_numbers_the_keys_as_the_code_does():
    numbered = dict(re.findall(r"^\| (\d+) \| `(\w+)` \|", WIRE, re.MULTILINE))
    code = {value: name[2:].lower() for name, value in vars(frames).items() if name.startswith("K_")}
    assert {int(key): name.removesuffix("_ns") for key, name in numbered.items()} == code
    assert {name: int(key) for key, name in numbered.items() if name != "crc"} == w.KEYS


def test_the_specification_states_every_limit_and_reason():
    stated = {
        name: int(value.replace(",", ""))
        for name, value in re.findall(r"^\| `(\w+_MAX)` \| ([\d,]+) \|", WIRE, re.MULTILINE)
    }
    known = {
        name: value for name, value in vars(limits).items() if name.endswith("_MAX") and not name.startswith("DEAD")
    }
    assert stated == known
    reasons = {reason for _, reason in HOSTILE.values()}
    refusals = WIRE.partition("## 5.")[2].partition("## 6.")[0]
    assert reasons == set(re.findall(r"`([a-z]+)` \(", decode.__doc__))
    assert reasons == set(re.findall(r"^\| `([a-z]+)` \|", refusals, re.MULTILINE))


# There and back


@given(frames_of_all_kinds(), st.booleans())
def test_frames_come_back(frame, compress):
    assert decode(encode(frame, compress=compress)) == frame


@pytest.mark.parametrize("byte", [b"\0", None])
def test_the_longest_body_comes_back(byte):
    body = byte * limits.BODY_BYTES_MAX if byte else os.urandom(limits.BODY_BYTES_MAX)
    data = encode(dataclasses.replace(KMSG, body=body))
    assert (len(data) < 1000) == (byte is not None)
    assert decode(data).body == body


def test_threads_do_not_disturb_each_other():
    bodies = [bytes([n]) * 100_000 + os.urandom(100_000) for n in range(4)]
    wrong = []

    def work(body):
        for _ in range(40):
            with contextlib.suppress(BadInputError):
                if decode(encode(dataclasses.replace(KMSG, body=body))).body == body:
                    continue
            wrong.append(body[0])

    threads = [threading.Thread(target=work, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


LONG_LOSS = Loss("x" * 255, 0, 1, "y" * 255, "z" * 255)


@pytest.mark.parametrize(
    "change",
    [
        {"first": 342},
        {"first": -1},
        {"next": limits.INT64_MAX + 1},
        {"number": -1},
        {"number": limits.INT64_MAX + 1},
        {"count": limits.FRAME_RECORDS_MAX + 1},
        {"encoding_version": -1},
        {"ts_first_ns": limits.INT64_MAX + 1},
        {"ts_last_ns": limits.INT64_MIN - 1},
        {"realtime_ns": limits.INT64_MAX + 1},
        {"run": "x" * 256},
        {"run": "é" * 128},
        {"encoding": "a\0b"},
        {"snapshot": "x" * 256},
        {"descriptor": bytes(256)},
        {"stream": KMSG.stream._replace(machine="")},
        {"stream": KMSG.stream._replace(clock="x" * 256)},
        {"body": bytes(limits.BODY_BYTES_MAX + 1)},
        {"losses": [Loss("gap", 0, 0, "", "")] * (limits.FRAME_LOSSES_MAX + 1)},
        {"losses": [Loss("gap", 0, 0, "x" * 256, "")]},
        {"losses": [Loss("gap", -1, None, "", "")]},
        {"losses": [LONG_LOSS] * limits.FRAME_LOSSES_MAX, "body": os.urandom(limits.BODY_BYTES_MAX)},
    ],
    ids="-".join,
)
def test_a_frame_that_no_reader_would_take_is_not_written(change):
    with pytest.raises(ValueError, match="refusing to encode"):
        encode(dataclasses.replace(KMSG, **change))


# Damage


@pytest.mark.parametrize("name", ["minimal", "full", "kmsg-zstd", "heartbeat"])
def test_every_shorter_frame_is_refused(name):
    data = vectors.stored(name)
    assert {refused(data[:cut]) for cut in range(len(data))} == {"truncated", "checksum"}


@pytest.mark.parametrize("name", ["minimal", "kmsg-zstd", "heartbeat"])
def test_every_flipped_bit_is_found(name):
    data = vectors.stored(name)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert refused(bytes(damaged)) == "checksum"


# Poison, with a right checksum


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_are_refused_without_taking_memory(name):
    data, reason = HOSTILE[name]
    tracemalloc.start()
    try:
        assert refused(data) == reason
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", HOSTILE)
def test_the_tags_of_hostile_frames_are_refused_likewise_or_only_the_body_is_wrong(name):
    data, reason = HOSTILE[name]
    told = "codec"  # of a body that only a look into it tells
    try:
        decode_tags(data)
    except BadInputError as e:
        told = e.reason
    assert told == reason


def test_hostile_frames_take_no_memory_outside_python():
    done = subprocess.run(
        [sys.executable, "-m", "tests.schemas.hostile"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 8 << 10


@pytest.mark.parametrize("name", ["full", "kmsg-zstd", "future-fields"])
def test_every_shorter_map_is_refused(name):
    head = vectors.stored(name)[:-5]
    assert {refused(w.with_crc(head[:cut])) for cut in range(5, len(head))} == {"malformed"}


@pytest.mark.parametrize("name", ["full", "kmsg-zstd"])
def test_any_other_byte_is_refused_or_read(name):
    head = vectors.stored(name)[:-5]
    firsts = b"\x00\x7f\x80\x8f\x90\x9f\xa0\xbf\xc0\xc1\xc2\xc4\xc6\xc7\xc9\xca\xcb\xcc\xcf\xd3\xd4\xd8\xd9\xdb\xdd\xdf\xe0\xff"
    for at in range(len(head)):
        for first in firsts:
            with contextlib.suppress(BadInputError):
                assert isinstance(decode(w.with_crc(head[:at] + bytes([first]) + head[at + 1 :])), Frame)


@given(st.binary(max_size=80))
def test_any_bytes_are_refused(data):
    assert refused(w.with_crc(data)) in ("truncated", "malformed", "version")
    assert refused(w.with_crc(b"\x92\x00\x01" + data)) == "malformed"
    assert refused(w.with_crc(w.mapping([(w.integer(0), w.integer(1)), (data, w.CRC_KEY)]))) == "malformed"


@pytest.mark.parametrize("size", [0, 1000, 40_000, limits.BODY_BYTES_MAX])
def test_a_stamped_frame_is_the_one_that_the_other_stream_would_have_made(size):
    claimed, named = (
        Stream("m", "b", "host", "bpf", "x", "mono"),
        Stream("vm-1", "b+1", "guest-kernel", "bpf", "x", "mono"),
    )
    body = random.Random(size).randbytes(size)
    one, other = (encode(Frame(stream, "r", 3, 4, 5, 1, "bpf", 1, body), compress=False) for stream in (claimed, named))
    parts = frames.stamp(one, frames.decode_tags(one), named)
    assert b"".join(parts) == other
    assert len(parts[-1]) == 5
