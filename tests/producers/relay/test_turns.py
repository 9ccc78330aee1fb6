"""Turns of guests that cannot all be read, against whoever is always ready first."""

import random

from producers.relay.turns import CREDIT_BYTES, Turns

READ_BYTES = 128 << 10


class Crowd:
    """Guests of whom `room` are read before all have to wait; those with the smallest names are always ready first."""

    def __init__(self, count, seed=1):
        self.turns, self.read, self.ready = Turns(), dict.fromkeys(range(count), 0), set(range(count))
        self.random = random.Random(seed)

    def round(self, room, sizes=(READ_BYTES,)):
        for who in sorted(self.ready):
            if self.turns.may(who, self.read[who]) and room > 0:
                self.read[who] += self.random.choice(sizes)
                room -= 1
            else:
                self.turns.wait(who)
                self.ready.discard(who)
        self.ready |= set(self.turns.next(10))


def test_while_nobody_waits_everybody_may():
    turns = Turns()
    assert all(turns.may(who, n * READ_BYTES) for n in range(9) for who in "abc")
    assert (len(turns), turns.next(5)) == (0, [])


def test_who_waits_has_one_turn_and_nobody_else_goes_before():
    turns = Turns()
    for who in "abc":
        turns.may(who, 0)
    turns.wait("a")
    turns.wait("a")
    turns.wait("b")
    assert not turns.may("c", 0)
    assert len(turns) == 2
    assert turns.next(1) == ["a"]
    assert turns.may("a", 0)
    assert not turns.may("a", 5)
    assert turns.next(5) == ["b"]
    assert not turns.may("c", 0)
    turns.give_up("b")
    assert turns.may("c", 0)


def test_he_of_whom_least_was_read_is_next_and_of_equals_who_came_first():
    turns = Turns()
    for who, read_bytes in (("much", 900), ("little", 10), ("middle", 500), ("as little", 10)):
        turns.may(who, read_bytes)
        turns.wait(who)
    assert turns.next(9) == ["little", "as little", "middle", "much"]


def test_shares_stay_within_a_turn_whoever_is_ready_first():
    crowd = Crowd(50)
    for _ in range(500):
        crowd.round(10)
    assert sum(crowd.read.values()) > 1000 * READ_BYTES
    assert max(crowd.read.values()) - min(crowd.read.values()) <= READ_BYTES


def test_shares_of_bytes_are_even_though_reads_are_not():
    crowd = Crowd(60, seed=3)
    for _ in range(3000):
        crowd.round(10, sizes=(1000, 50_000, READ_BYTES))
    assert sum(crowd.read.values()) > 1000 * READ_BYTES
    assert max(crowd.read.values()) - min(crowd.read.values()) <= 2 * READ_BYTES


def test_a_silence_is_saved_up_to_the_credit_and_no_more():
    crowd = Crowd(60)
    crowd.ready.remove(59)
    for _ in range(600):
        crowd.round(10)
    before = dict(crowd.read)
    crowd.ready.add(59)
    for _ in range(600):
        crowd.round(10)
    gained = {who: crowd.read[who] - before[who] for who in crowd.read}
    rest = max(gained[who] for who in range(59))
    assert rest < gained[59] <= rest + CREDIT_BYTES + READ_BYTES


def test_who_is_gone_is_not_called():
    turns = Turns()
    for who in "abc":
        turns.may(who, 0)
    for who in "abc":
        turns.wait(who)
    assert turns.next(1) == ["a"]
    turns.forget("a")
    turns.forget("b")
    assert (len(turns), turns.next(9)) == (1, ["c"])
    assert turns.may("c", 0)
    assert turns.may("a", 0)
