"""What the quick reader tells of a frame is what the piecewise one tells; what it does not know it leaves alone."""

import random
from dataclasses import replace

import pytest

from schemas import frame as frames
from schemas import limits
from schemas.errors import BadInputError
from schemas.frame import Frame, decode, decode_reach, decode_tags, encode
from schemas.frame_usual import read_usual
from schemas.loss import Loss
from schemas.stream import Stream
from tests.schemas import wire_writer as w
from tests.schemas.golden import vectors
from tests.schemas.hostile import HOSTILE

STREAM = Stream("machine", "boot", "guest-kernel", "bpf", "", "mono")
USUAL = Frame(STREAM, "run", 70_000, 1 << 33, (1 << 33) + 5, 5, "bpf", 1, bytes(range(256)), [], -5, 1 << 60, 1 << 61)


# By the piecewise reader alone.
def _tags(data, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(frames, "read_usual", lambda _: None)
        return _told(data)


def _told(data):
    return [_of(read, data) for read in (decode_tags, decode_reach)]


def _of(read, data):
    try:
        return read(data)
    except BadInputError as e:
        return e.reason, str(e)


@pytest.mark.parametrize("snapshot", [None, "5f1e2d3c-2f4e-4c1b-9d3a-5f1e2d3c4b5a/123456"])
@pytest.mark.parametrize("descriptor", [None, b"hash", bytes(limits.DESCRIPTOR_BYTES_MAX)])
@pytest.mark.parametrize("size", [0, 100, 1000, 100_000, limits.BODY_BYTES_MAX])
def test_the_usual_frame_is_read_as_it_was_made(size, descriptor, snapshot):
    made = replace(USUAL, body=random.Random(size).randbytes(size), descriptor=descriptor, snapshot=snapshot)
    for compress in (True, False):
        data = encode(made, compress=compress)
        assert read_usual(data) is not None
        tags = decode_tags(bytearray(data))
        assert tags[:5] == (STREAM, "run", 70_000, 1 << 33, (1 << 33) + 5)
        assert decode_reach(data) == (STREAM, (1 << 33) + 5)
        assert decode(data) == made


@pytest.mark.parametrize(
    "made",
    [
        replace(USUAL, losses=[Loss("drop", 0, 1, "why", "agent")]),
        replace(USUAL, snapshot="s" * 255),
        replace(USUAL, run="x" * 255),
        replace(USUAL, stream=STREAM._replace(instance="ü" * 100)),
        replace(USUAL, count=0, encoding=""),
    ],
)
def test_another_frame_is_told_the_same_of(made, monkeypatch):
    data = encode(made)
    assert _told(data) == _tags(data, monkeypatch)
    assert decode(data) == made


@pytest.mark.parametrize("name", ["minimal", "full", "kmsg", "kmsg-zstd", "heartbeat", "future-fields"])
def test_golden_frames_are_told_the_same_of(name, monkeypatch):
    assert _told(vectors.stored(name)) == _tags(vectors.stored(name), monkeypatch)


@pytest.mark.parametrize("snapshot", [None, "run/1"])
@pytest.mark.parametrize("descriptor", [None, b"hash"])
def test_any_other_byte_is_told_the_same_of(descriptor, snapshot, monkeypatch):
    made = replace(USUAL, body=b"body" * 20, descriptor=descriptor, snapshot=snapshot)
    head = encode(made, compress=False)[:-5]
    firsts = b"\x00\x01\x05\x11\x7f\x80\x8f\x90\x91\xa0\xa1\xbf\xc0\xc1\xc2\xc3\xc4\xc6\xc7\xca\xcb\xcc\xcd\xcf\xd3\xd4\xd6\xd9\xdb\xdd\xdf\xe0\xff"
    usual = 0
    for at in range(len(head)):
        for first in firsts:
            data = w.with_crc(head[:at] + bytes([first]) + head[at + 1 :])
            usual += read_usual(data) is not None
            assert _told(data) == _tags(data, monkeypatch)
    assert usual > 1000


def test_every_shorter_or_longer_frame_is_told_the_same_of(monkeypatch):
    head = encode(USUAL, compress=False)[:-5]
    for cut in range(5, len(head)):
        data = w.with_crc(head[:cut])
        assert _told(data) == _tags(data, monkeypatch)
    for more in (b"\x00", b"\x7f\x00", b"\x12\x00"):
        data = w.with_crc(head[:-1] + more + head[-1:])
        assert _told(data) == _tags(data, monkeypatch)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_are_told_the_same_of(name, monkeypatch):
    data, _ = HOSTILE[name]
    assert _told(data) == _tags(data, monkeypatch)
