"""The server of metrics over real sockets: what it answers, whom it does not wait for, and that it ends."""

import contextlib
import logging
import re
import socket
import threading
import time
from pathlib import Path

import pytest

from schemas import metrics_http
from schemas.metrics_address import Address
from schemas.metrics_http import MetricsServer, serve

TEXT = b"hypocenter_test_total 1\n"


@pytest.fixture
def server():
    made = MetricsServer(Address("127.0.0.1", 0), lambda: TEXT)
    yield made
    made.close()


def ask(server, request, *, read=True):
    with socket.create_connection(server.address, timeout=10) as connection:
        connection.sendall(request)
        if not read:
            return b""
        parts = []
        with contextlib.suppress(ConnectionResetError):
            while data := connection.recv(65536):
                parts.append(data)
        return b"".join(parts)


@pytest.mark.parametrize("path", [b"/metrics", b"/metrics?format=text"])
def test_a_scrape_gets_the_text_and_the_end_of_the_connection(server, path):
    head, _, body = ask(server, b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"Content-Length: %d\r\n" % len(TEXT) in head
    assert body == TEXT


def test_a_request_may_come_byte_by_byte(server):
    with socket.create_connection(server.address, timeout=10) as connection:
        for byte in b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n":
            connection.sendall(bytes([byte]))
        assert connection.recv(65536).endswith(TEXT)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"GET /metrics/../etc/passwd HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405"),
        (b"\r\n\r\n", b"404"),
        (b"\0\xff\r\n\r\n", b"404"),
    ],
)
def test_anything_else_is_refused(server, request_, status):
    answer = ask(server, request_)
    assert answer.split(b" ")[1] == status
    assert TEXT not in answer


def test_head_has_no_body(server):
    assert ask(server, b"HEAD /metrics HTTP/1.1\r\n\r\n").endswith(b"\r\n\r\n")


def test_an_endless_request_is_not_read_to_its_end(server):
    assert ask(server, b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 200_000) == b""


def test_who_sends_nothing_keeps_others_waiting_only_for_a_while(server, monkeypatch):
    monkeypatch.setattr(metrics_http, "_CONNECTION_S", 0.2)
    with socket.create_connection(server.address), socket.create_connection(server.address) as slow:
        slow.sendall(b"GET /met")
        assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(TEXT)


def test_who_asks_in_a_loop_is_answered_at_a_bounded_rate(server):
    asked, begin_s = 5, time.monotonic()
    for _ in range(asked):
        assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(TEXT)
    assert time.monotonic() - begin_s >= (asked - 1) * metrics_http._REST_S


def test_who_goes_away_in_the_middle_ends_nothing(server):
    for _ in range(20):
        ask(server, b"GET /metrics HTTP/1.1\r\n\r\n", read=False)
    assert ask(server, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(TEXT)


def test_closed_it_leaves_no_thread_and_frees_its_port(server):
    ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    server.close()
    server.close()
    assert "metrics" not in {thread.name for thread in threading.enumerate()}
    again = MetricsServer(server.address, lambda: TEXT)
    again.close()


def test_while_nobody_asks_its_thread_sleeps(server):
    (thread,) = [each for each in threading.enumerate() if each.name == "metrics"]
    status = Path(f"/proc/self/task/{thread.native_id}/status")

    def woken():
        return re.findall(r"ctxt_switches:\t(\d+)", status.read_text())

    ask(server, b"GET /metrics HTTP/1.1\r\n\r\n")
    time.sleep(0.2)
    before = woken()
    time.sleep(0.5)
    assert woken() == before


def test_a_port_that_is_taken_is_a_warning_and_no_end(server, caplog):
    where = f"127.0.0.1:{server.address.port}"
    assert serve(where, lambda: TEXT) is None
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"no metrics: {where} cannot be served (Address already in use)")


def test_an_address_of_nobody_is_a_warning_too(caplog):
    assert serve("192.0.2.1:0", lambda: TEXT) is None
    assert "cannot be served" in caplog.text


def test_off_is_silent(caplog):
    assert serve("off", lambda: TEXT) is None
    assert not caplog.records


def test_ipv6_is_served_where_there_is_any():
    try:
        made = MetricsServer(Address("::1", 0), lambda: TEXT)
    except OSError:
        pytest.skip("this machine has no IPv6")
    assert ask(made, b"GET /metrics HTTP/1.1\r\n\r\n").endswith(TEXT)
    made.close()
