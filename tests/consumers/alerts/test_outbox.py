"""What is due when: coalesced, sent again, held, refused alone, tried again with growing pauses."""

import logging
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from consumers.alerts.outage import Outage
from consumers.alerts.outbox import BATCH_MAX, Answer, Outbox, Timing, Told
from tests.consumers.alerts._cases import S, alert

TIMING = Timing(60 * S, 900 * S, 30 * S)


def taken(outbox, now_ns, answer=Answer.TAKEN):
    """Take what is due and answer it; return the ids and what was told by that."""
    batch = outbox.take(now_ns, now_ns)
    if batch is None:
        return None, []
    return [each.id for each in batch.alerts], outbox.answered(batch, answer, now_ns)


def test_an_open_alert_is_told_at_once_and_again_after_a_minute_with_its_end_ahead():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 5 * S)
    batch = outbox.take(5 * S, 1000 * S)
    assert batch.body[0]["startsAt"] == "1970-01-01T00:00:01.000000000Z"
    assert batch.body[0]["endsAt"] == "1970-01-01T00:31:40.000000000Z"
    assert outbox.answered(batch, Answer.TAKEN, 5 * S) == [Told("i1", 1, ended=False)]
    assert outbox.due_ns() == 65 * S
    assert taken(outbox, 64 * S) == (None, [])
    assert taken(outbox, 65 * S) == (["i1"], [])


def test_its_end_is_told_with_the_real_time_and_then_nothing_more():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    taken(outbox, 0)
    outbox.put(alert(version=2, ended_ns=7 * S), 9 * S)
    batch = outbox.take(9 * S, 1000 * S)
    assert batch.body[0]["endsAt"] == "1970-01-01T00:00:07.000000000Z"
    assert outbox.answered(batch, Answer.TAKEN, 9 * S) == [Told("i1", 2, ended=True)]
    assert outbox.due_ns() is None
    assert outbox.waiting == 0


def test_while_nobody_answers_an_incident_has_one_place_and_its_newest_version():
    outbox = Outbox(TIMING)
    for version in range(1, 100):
        outbox.put(alert(version=version), version)
        taken(outbox, version * S, Answer.FAILED)
    assert outbox.waiting == 1
    batch = outbox.take(1000 * S, 0)
    assert [each.version for each in batch.alerts] == [99]


def test_pauses_grow_to_half_a_minute_and_begin_anew_when_one_is_taken():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    now_ns, pauses = 0, []
    for _ in range(9):
        assert taken(outbox, now_ns, Answer.FAILED)[0]
        pauses.append(outbox.due_ns() - now_ns)
        now_ns = outbox.due_ns()
    assert [each / S for each in pauses] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert outbox.failing
    taken(outbox, now_ns)
    outbox.put(alert(version=2, ended_ns=now_ns), now_ns)
    taken(outbox, now_ns, Answer.FAILED)
    assert outbox.due_ns() - now_ns == S / 2


def test_an_incident_over_before_it_was_told_is_told_as_open_first_and_held():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    taken(outbox, 0, Answer.FAILED)
    outbox.put(alert(version=2, ended_ns=3 * S), 3 * S)
    batch = outbox.take(3 * S, 1000 * S)
    assert batch.body[0]["endsAt"] == "1970-01-01T00:31:40.000000000Z"
    assert outbox.answered(batch, Answer.TAKEN, 3 * S) == [Told("i1", 2, ended=False)]
    outbox.put(alert(version=3, ended_ns=3 * S), 4 * S)
    assert outbox.waiting == 1
    assert outbox.due_ns() == 33 * S
    batch = outbox.take(33 * S, 1030 * S)
    assert batch.body[0]["endsAt"] == "1970-01-01T00:00:03.000000000Z"
    assert outbox.answered(batch, Answer.TAKEN, 33 * S) == [Told("i1", 3, ended=True)]


def test_what_was_told_before_a_restart_as_open_is_not_held():
    outbox = Outbox(TIMING)
    outbox.put(alert(ended_ns=3 * S), 10 * S, opened=True)
    assert taken(outbox, 10 * S) == (["i1"], [Told("i1", 1, ended=True)])


def test_a_change_while_its_request_is_under_way_is_told_next():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    batch = outbox.take(0, 0)
    outbox.put(alert(version=2, ended_ns=S), 1)
    assert outbox.answered(batch, Answer.TAKEN, 2) == [Told("i1", 1, ended=False)]
    assert taken(outbox, 3) == (["i1"], [Told("i1", 2, ended=True)])


def test_what_changes_of_an_open_alert_within_a_second_is_told_together():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    taken(outbox, 0)
    for version in range(2, 6):
        outbox.put(alert(version=version), version * S // 10)
    assert outbox.due_ns() == S + S // 5
    batch = outbox.take(S + S // 5, 0)
    assert [each.version for each in batch.alerts] == [5]
    outbox.answered(batch, Answer.TAKEN, 2 * S)
    outbox.put(alert(version=6, ended_ns=3 * S), 3 * S)
    assert outbox.due_ns() == 3 * S, "an end waits for nothing"


def test_one_that_goes_on_after_its_end_is_told_at_once():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    taken(outbox, 0)
    outbox.put(alert(version=2, ended_ns=S), S)
    taken(outbox, S, Answer.FAILED)
    outbox.put(alert(version=3), 2 * S)
    assert outbox.due_ns() == 2 * S
    assert outbox.take(2 * S, 0).body[0]["endsAt"] == "1970-01-01T00:15:00.000000000Z"


def test_one_bad_alert_of_many_is_found_and_holds_nobody_up():
    outbox = Outbox(TIMING)
    for key in ("a", "bad", "c"):
        outbox.put(alert(key), 0)
    told, now_ns = [], 0
    for _ in range(10):
        batch = outbox.take(now_ns, now_ns)
        if batch is None:
            break
        bad = any(each.id == "bad" for each in batch.alerts)
        told += outbox.answered(batch, Answer.REFUSED if bad else Answer.TAKEN, now_ns)
        now_ns += 1
    assert {each.id for each in told} == {"a", "c"}
    assert outbox.refused == ["bad"]
    outbox.put(alert("new"), now_ns)
    assert taken(outbox, now_ns)[0] == ["new"]
    assert outbox.take(now_ns, 0) is None
    # Tried again behind the others, with what it says by then.
    assert set(taken(outbox, 61 * S)[0]) == {"a", "c", "new"}
    assert taken(outbox, 61 * S)[0] == ["bad"]
    assert outbox.refused == []


def test_the_bad_one_of_a_full_batch_is_found_by_halves_while_others_go_on():
    outbox, requests, told = Outbox(TIMING), [], set()
    for number in range(BATCH_MAX):
        outbox.put(alert(f"i{number}"), 0)
    for now_ns in range(40):
        outbox.put(alert(f"new-{now_ns}"), now_ns)
        batch = outbox.take(now_ns, 0)
        ids = {each.id for each in batch.alerts}
        requests.append(ids)
        answer = Answer.REFUSED if "i77" in ids else Answer.TAKEN
        told |= {each.id for each in outbox.answered(batch, answer, now_ns)}
    assert outbox.refused == ["i77"]
    assert outbox.laments("i77")
    assert not outbox.laments("i77"), "that is said once"
    assert told >= {f"i{number}" for number in range(BATCH_MAX) if number != 77}
    # About two for each half, and between them those of who came meanwhile.
    assert all(
        f"new-{number}" in requests[number] or f"new-{number}" in requests[number + 1] for number in range(1, 20)
    )


def test_one_that_is_refused_for_ever_delays_nobody_and_is_said_once_until_it_is_taken():
    outbox, said, told = Outbox(TIMING), 0, 0
    for second in range(600):
        outbox.put(alert("bad", version=second + 1), second * S)
        outbox.put(alert("good", version=second + 1), second * S)
        while (batch := outbox.take(second * S, 0)) is not None:
            bad = any(each.id == "bad" for each in batch.alerts)
            outbox.answered(batch, Answer.REFUSED if bad else Answer.TAKEN, second * S)
            said += outbox.laments("bad")
            told += [each.id for each in batch.alerts] == ["good"]
    assert said == 1
    assert told > 250  # changes of one second go together
    batch = outbox.take(700 * S, 0)
    while batch is not None:
        outbox.answered(batch, Answer.TAKEN, 700 * S)
        batch = outbox.take(700 * S, 0)
    assert outbox.waiting == 0


def test_who_asks_to_be_left_alone_is_up_to_two_minutes():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    for now_s, wait_s, pause_s in ((0, 10, 10), (20, 0, 1), (40, 1, 2), (60, 86_400, 120)):
        batch = outbox.take(now_s * S, 0)
        outbox.answered(batch, Answer.FAILED, now_s * S, wait_s * S)
        assert outbox.due_ns() == (now_s + pause_s) * S


def test_an_hour_of_outage_costs_one_place_for_each_incident_and_loses_nothing():
    count, outage, said, sizes, tries = 300, Outage("http://am"), [], [], 0
    outbox, state = Outbox(TIMING), {}
    tracemalloc.start()
    for second in range(3600):
        now_ns = second * S
        for number in range(second % 10, count, 10):
            ended = number % 3 == 0 and second > 1800
            state[f"i{number}"] = (second + 1, ended)
            outbox.put(alert(f"i{number}", second + 1, now_ns if ended else None), now_ns)
        if (batch := outbox.take(now_ns, now_ns)) is not None:
            tries += 1
            outbox.answered(batch, Answer.FAILED, now_ns)
            said.append(outage.answered(Answer.FAILED, f"HTTP 503 {second}", outbox.waiting, now_ns))
        if second % 600 == 599:
            sizes.append(tracemalloc.get_traced_memory()[0])
            assert outbox.waiting == count
    tracemalloc.stop()
    assert max(sizes) < 1.2 * sizes[0]
    assert tries < 130
    newest, now_ns = {}, 3600 * S
    while (due_ns := outbox.due_ns()) is not None and due_ns < 3660 * S:
        now_ns = max(now_ns, due_ns)
        batch = outbox.take(now_ns, now_ns)
        outbox.answered(batch, Answer.TAKEN, now_ns)
        said.append(outage.answered(Answer.TAKEN, "", outbox.waiting, now_ns))
        newest |= {each.id: (each.version, each.ended_ns is not None) for each in batch.alerts}
        assert len(batch.alerts) <= BATCH_MAX
    assert newest == state
    assert outbox.waiting == 0
    assert [each.level for each in said if each] == [logging.ERROR, logging.INFO]


def test_a_request_has_a_bound():
    outbox = Outbox(TIMING)
    for number in range(BATCH_MAX + 50):
        outbox.put(alert(f"i{number}"), number)
    assert len(taken(outbox, S)[0]) == BATCH_MAX
    assert len(taken(outbox, S)[0]) == 50


def test_what_is_somebody_elses_is_not_told():
    outbox = Outbox(TIMING)
    outbox.put(alert(), 0)
    batch = outbox.take(0, 0)
    outbox.forget("i1")
    assert outbox.answered(batch, Answer.TAKEN, 0) == []
    assert outbox.due_ns() is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from(list(Answer))), max_size=60))
def test_whatever_happens_every_end_is_told_in_the_end_and_never_before_its_opening(steps):
    outbox, now_ns, versions = Outbox(TIMING), 0, dict.fromkeys("abc", 0)
    history = {key: [] for key in "abc"}

    def request(answer):
        batch = outbox.take(now_ns, now_ns)
        if batch is not None:
            for told in outbox.answered(batch, answer, now_ns):
                history[told.id].append(told.ended)

    for key, ended, answer in steps:
        now_ns += S
        versions[key] += 1
        outbox.put(alert(key, versions[key], ended_ns=now_ns if ended else None), now_ns)
        request(answer)
    for key in "abc":
        versions[key] += 1
        outbox.put(alert(key, versions[key], ended_ns=now_ns), now_ns)
    for _ in range(60):
        now_ns += 31 * S
        request(Answer.TAKEN)
    for told in history.values():
        assert told[0] is False
        assert told[-1] is True
    assert outbox.due_ns() is None
