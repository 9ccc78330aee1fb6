"""One request: what is an answer, what is about the alert, and what is tried again."""

import socket
import threading
import time

import pytest

from consumers.alerts.outbox import Answer
from consumers.alerts.post import Client
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
        found, why = Client(receiver.url, 5).post([{"labels": {"a": "b"}}])
    assert found is answer
    assert why == "" if answer is Answer.TAKEN else f"{status}" in why and "because" in why
    assert receiver.bodies == [[{"labels": {"a": "b"}}]]


def test_nobody_there_is_tried_again():
    answer, why = Client(f"http://127.0.0.1:{free_port()}", 5).post([])
    assert answer is Answer.FAILED
    assert "refused" in why


def test_who_is_slow_is_given_up_after_the_timeout():
    with Receiver(lambda _: (time.sleep(1), (200, ""))[1]) as receiver:
        began_s = time.monotonic()
        answer, _ = Client(receiver.url, 0.1).post([])
        assert answer is Answer.FAILED
        assert time.monotonic() - began_s < 1


def test_what_is_no_http_is_tried_again():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            taken, _ = server.accept()
            taken.recv(1 << 16)
            taken.sendall(b"SSH-2.0-OpenSSH\r\n")
            taken.close()

        thread = threading.Thread(target=serve)
        thread.start()
        answer, why = Client(f"http://127.0.0.1:{server.getsockname()[1]}", 5).post([])
        thread.join()
    assert answer is Answer.FAILED
    assert "BadStatusLine" in why


def test_a_prefix_of_the_path_is_kept():
    client = Client("http://example:9093/am/", 1)
    assert client._path == "/am/api/v2/alerts"
