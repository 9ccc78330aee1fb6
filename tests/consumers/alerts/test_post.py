"""One request: what is an answer, what is about the alert, and what is tried again."""

import contextlib
import socket
import threading
import time

import pytest

from consumers.alerts import post
from consumers.alerts.outbox import Answer
from consumers.alerts.post import Client, Reply
from tests.consumers.alerts._cases import Receiver, free_port


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (200, Answer.TAKEN),
        (202, Answer.TAKEN),
        (400, Answer.REFUSED),
        (413, Answer.REFUSED),
        (422, Answer.REFUSED),
        (301, Answer.FAILED),
        (401, Answer.FAILED),
        (404, Answer.FAILED),
        (429, Answer.FAILED),
        (500, Answer.FAILED),
        (503, Answer.FAILED),
    ],
)
def test_what_a_status_means(status, answer):
    with Receiver(lambda _: (status, "because")) as receiver:
        found, why, _ = Client(receiver.url, 5).post([{"labels": {"a": "b"}}])
    assert found is answer
    if answer is Answer.TAKEN:
        assert why == ""
    elif status != 301:
        assert f"HTTP {status} " in why
        assert "because" in why
    assert receiver.bodies == [[{"labels": {"a": "b"}}]]


def test_nobody_there_is_tried_again():
    answer, why, _ = Client(f"http://127.0.0.1:{free_port()}", 5).post([])
    assert answer is Answer.FAILED
    assert "refused" in why


def test_who_is_slow_is_given_up_after_the_timeout():
    with Receiver(lambda _: (time.sleep(1), (200, ""))[1]) as receiver:
        began_s = time.monotonic()
        answer, why, _ = Client(receiver.url, 0.1).post([])
        assert (answer, why) == (Answer.FAILED, "no whole answer within 0.1 s")
        assert time.monotonic() - began_s < 1


@contextlib.contextmanager
def served(pieces, pause_s=0.0, read_max=1 << 16):
    """A server that answers one request with these pieces, one after the other, however little that is HTTP.

    It reads up to `read_max` bytes of the request; by closing on what it did not read, it resets the connection.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            taken, _ = server.accept()
            with taken, contextlib.suppress(OSError):  # whoever asked may have gone
                taken.recv(read_max)
                for piece in pieces:
                    taken.sendall(piece)
                    time.sleep(pause_s)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()


def test_what_is_no_http_is_tried_again():
    with served([b"SSH-2.0-OpenSSH\r\n"]) as url:
        answer, why, _ = Client(url, 5).post([])
    assert answer is Answer.FAILED
    assert "BadStatusLine" in why


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nX-Slow: "])
def test_an_answer_that_comes_byte_by_byte_is_given_up_all_the_same(start):
    with served([start, *[b"1"] * 40], pause_s=0.05) as url:
        began_s = time.monotonic()
        found = Client(url, 0.4).post([])
        took_s = time.monotonic() - began_s
    assert found == Reply(Answer.FAILED, "no whole answer within 0.4 s")
    assert took_s < 1.5


def test_what_was_cut_off_is_no_answer_however_long_the_cutting_takes(monkeypatch):
    cut = post._cut
    monkeypatch.setattr(post, "_cut", lambda *link: (cut(*link), time.sleep(0.3)))
    with served([b"HTTP/1.1 200 OK\r\n", *[b"1"] * 20], pause_s=0.05) as url:
        assert Client(url, 0.2).post([]) == Reply(Answer.FAILED, "no whole answer within 0.2 s")


@pytest.mark.parametrize("body", [b"Transfer-Encoding: chunked", b"Content-Length: 200"])
@pytest.mark.parametrize(
    ("status", "answer"), [(b"200 OK", Answer.TAKEN), (b"400 Bad", Answer.REFUSED), (b"503 Busy", Answer.FAILED)]
)
def test_a_body_that_never_ends_changes_nothing_of_what_the_status_says(status, answer, body):
    with served([b"HTTP/1.1 %b\r\n%b\r\n\r\n" % (status, body), *[b"1"] * 40], pause_s=0.05) as url:
        began_s = time.monotonic()
        found = Client(url, 0.4).post([])
        took_s = time.monotonic() - began_s
    assert found.answer is answer
    assert took_s < 1.5


def test_of_a_huge_body_only_the_beginning_is_read():
    head = b"HTTP/1.1 503 Busy\r\nContent-Length: 1000000000000\r\n\r\n"
    with served([head, *[b"x" * 65536] * 1000]) as url:
        answer, why, _ = Client(url, 5).post([])
    assert answer is Answer.FAILED
    assert why == f"HTTP 503 Busy: {'x' * 300}"


@pytest.mark.parametrize("size_bytes", [2, 50_000_000])
@pytest.mark.parametrize(
    ("status", "answer"), [(b"413 Too Large", Answer.REFUSED), (b"401 Unauthorized", Answer.FAILED)]
)
def test_who_answers_and_resets_before_all_is_read_is_understood(status, answer, size_bytes):
    with served([b"HTTP/1.1 %b\r\n\r\nbecause" % status], read_max=5) as url:
        found = Client(url, 5).post([{"x": "x" * size_bytes}])
    assert found.answer is answer
    assert found.why.endswith(f"HTTP {status.decode()}: because")


def test_who_resets_without_an_answer_is_tried_again():
    with served([], read_max=5) as url:
        answer, why, _ = Client(url, 5).post([{"x": "x" * 50_000_000}])
    assert answer is Answer.FAILED
    assert why.startswith(("BrokenPipeError: ", "ConnectionResetError: "))


@pytest.mark.parametrize(
    ("text", "low_s", "high_s"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("Wed, 01 Jan 2200 00:00:00 GMT", 86_400, 86_400),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0, 0),
        ("99999999999999999999999999", 86_400, 86_400),
        ("-5", 0, 0),
        ("soon", 0, 0),
    ],
)
@pytest.mark.parametrize("status", [b"429 Many", b"503 Busy"])
def test_when_it_wants_to_be_asked_again_is_passed_on(status, text, low_s, high_s):
    head = b"HTTP/1.1 %b\r\nRetry-After: %b\r\nContent-Length: 0\r\n\r\n" % (status, text.encode())
    with served([head]) as url:
        found = Client(url, 5).post([])
    assert found.answer is Answer.FAILED
    assert low_s * 10**9 <= found.wait_ns <= high_s * 10**9


def test_a_redirection_is_not_followed_and_says_where_to():
    with Receiver() as other:
        head = f"HTTP/1.1 307 Moved\r\nLocation: {other.url}/x\r\nContent-Length: 0\r\n\r\n"
        with served([head.encode()]) as url:
            answer, why, _ = Client(url, 5).post([])
        assert answer is Answer.FAILED
        assert f"{other.url}/x" in why
        assert other.bodies == []


def test_a_prefix_of_the_path_is_kept():
    client = Client("http://example:9093/am/", 1)
    assert client._path == "/am/api/v2/alerts"
