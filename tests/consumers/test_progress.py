import sys

import pytest

from consumers import progress


@pytest.fixture
def clock(monkeypatch):
    """The time that the bar sees; set `now`."""

    class Clock:
        now = 100.0

    monkeypatch.setattr(progress.time, "monotonic", lambda: Clock.now)
    return Clock


def bar(monkeypatch, *, terminal):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    return progress.ProgressBar("messages")


def test_elsewhere_than_on_a_terminal_nothing_is_drawn(monkeypatch, capsys, clock):
    draw = bar(monkeypatch, terminal=False)
    draw(1, 2)
    draw(2, 2)
    assert capsys.readouterr() == ("", "")


def test_it_fills_and_ends_its_line(monkeypatch, capsys, clock):
    draw = bar(monkeypatch, terminal=True)
    draw(0, 2000)
    clock.now += 1
    draw(1000, 2000)
    draw(2000, 2000)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.split("\r") == [
        "",
        f"[{' ' * 30}] 0/2,000 messages",
        f"[{'#' * 15}{' ' * 15}] 1,000/2,000 messages",
        f"[{'#' * 30}] 2,000/2,000 messages\n",
    ]


def test_it_draws_ten_times_a_second_at_most_and_always_at_the_end(monkeypatch, capsys, clock):
    draw = bar(monkeypatch, terminal=True)
    for done in range(100):
        draw(done, 100)
        clock.now += 0.01
    draw(100, 100)
    err = capsys.readouterr().err
    assert 9 <= err.count("\r") <= 12
    assert err.endswith("100/100 messages\n")


def test_nothing_to_do_is_done(monkeypatch, capsys, clock):
    bar(monkeypatch, terminal=True)(0, 0)
    assert capsys.readouterr().err == f"\r[{'#' * 30}] 0/0 messages\n"
