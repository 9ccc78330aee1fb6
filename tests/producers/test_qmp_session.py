"""QEMU's monitor protocol: what lines are, however the bytes break."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers import qmp_session
from producers.qmp_session import Answer, Bad, Event, Greeting, Session

HELLO = b'{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": []}}\r\n'
STOP = b'{"timestamp": {"seconds": 1772442000, "microseconds": 250}, "event": "STOP"}\r\n'
RESET = b'{"timestamp": {"seconds": -1, "microseconds": -1}, "event": "RESET", "data": {"guest": true, "n": [1, "\xc3\xbc"]}}\n'
MESSAGES = [
    Greeting("7.2.22", "Debian"),
    Event("STOP", 1_772_442_000_000_250_000, None),
    Event("RESET", None, '{"guest":true,"n":[1,"\\u00fc"]}'),
]


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_lines_are_messages_wherever_the_bytes_break(size):
    session, data = Session(), HELLO + STOP + b"\r\n" + RESET
    found = [message for at in range(0, len(data), size) for message in session.feed(data[at : at + size])]
    assert found == MESSAGES
    assert session.greeted


def test_answers_belong_to_the_commands_that_were_sent():
    session = Session()
    sent = [json.loads(session.command(name)) for name in ("query-status", "query-block")]
    assert [each["execute"] for each in sent] == ["query-status", "query-block"]
    assert session.unanswered == 2
    error = {"class": "GenericError", "desc": "no"}
    answers = [{"return": [], "id": sent[1]["id"]}, {"error": error, "id": sent[0]["id"]}]
    found = session.feed(b"".join(json.dumps(each).encode() + b"\n" for each in answers))
    assert found == [
        Answer("query-block", [], None),
        Answer("query-status", None, '{"class":"GenericError","desc":"no"}'),
    ]
    assert session.unanswered == 0


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"no json", "json"),
        (b'"text"', "form"),
        (b'{"return": {}, "id": "of others"}', "form"),
        (b'{"return": {}, "id": ["a"]}', "form"),
        (b'{"event": 1}', "form"),
        (b"[" * 100_000, "json"),
    ],
)
def test_a_line_that_is_none_of_these_is_kept(line, reason):
    assert Session().feed(line + b"\n" + STOP) == [Bad(reason, line[: qmp_session.RAW_BYTES_MAX]), MESSAGES[1]]


@pytest.mark.parametrize("size", [7, 1 << 20])
def test_a_line_without_an_end_is_thrown_away_up_to_its_end(monkeypatch, size):
    monkeypatch.setattr(qmp_session, "LINE_BYTES_MAX", 100)
    session, data = Session(), b"x" * 1000 + b"\n" + STOP
    found = [message for at in range(0, len(data), size) for message in session.feed(data[at : at + size])]
    assert [each.reason for each in found[:-1]] == ["too-long"]
    assert found[-1] == MESSAGES[1]


@given(st.lists(st.binary(max_size=40), max_size=9))
def test_any_bytes_are_messages_or_kept(pieces):
    session = Session()
    for piece in pieces:
        assert all(isinstance(each, Greeting | Event | Answer | Bad) for each in session.feed(piece))
