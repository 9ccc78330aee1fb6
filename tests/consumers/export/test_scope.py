from itertools import pairwise

import pytest

from consumers.export import scope
from consumers.export.scope import Choice, When
from consumers.views import connect
from schemas.errors import UsageError
from tests.consumers import _pages, _sample
from tests.consumers.export._lake import build, ring


def stream(machine, boot, name, cpu, clock="mono"):
    return ring(cpu, name)._replace(machine=machine, boot_id=boot, clock=clock)


A, B = "aa11" * 8, "aa12" * 8
BOOT = "0d9e47b2-88a1-4c6f-b3f5-52c18e9a7d04"


@pytest.fixture
def lake(tmp_path):
    """Two machines, one with two boots, one of them with two sets, one of them on two clocks."""
    streams = [
        stream(A, "b1", "one", 0),
        stream(A, "b1", "one", 1),
        stream(B, BOOT, "one", 0),
        stream(B, "b2", "one", 0),
        stream(B, "b2", "two", 0),
        stream(B, "b2", "two", 1, "boot"),
    ]
    frames = []
    for each in streams:
        described = each._replace(instance=each.instance.partition("/")[0])
        body = _pages.formats(clock=each.clock)
        frames += [
            _pages.described(body=body, stream=described),
            _pages.paged(0, [_pages.page(1, 2, 3)], stream=each, body=body),
        ]
    with connect(build(tmp_path / "lake", frames)) as connection:
        yield connection


def found(connection, **asked):
    return scope.find(connection, Choice(**asked))


def test_one_boot_on_one_clock_is_found_by_what_tells_it_apart(lake):
    one = found(lake, machine=A)
    assert (one.machine, one.boot_id, one.clock) == (A, "b1", "mono")
    assert [(each.instance, each.cpu, each.rows) for each in one.rings] == [("one/cpu0", 0, 3), ("one/cpu1", 1, 3)]
    assert (one.tables, one.first_ns, one.last_ns) == ({"trace_tick": 6}, _pages.T + 1, _pages.T + 3)
    assert found(lake, machine="aa11").machine == A
    assert found(lake, machine="aa12", boot_id="0d9e").boot_id == BOOT
    two = found(lake, machine=B, boot_id="b2", clock="mono")
    assert [each.instance for each in two.rings] == ["one/cpu0", "two/cpu0"]
    assert found(lake, machine=B, boot_id="b2", instance="two/cpu1").clock == "boot"


def test_what_two_sets_recorded_of_a_cpu_at_a_time_is_named(lake):
    assert found(lake, machine=A).twice == {}
    assert found(lake, machine=B, boot_id="b2", clock="mono").twice == {"trace_tick": ("one", "two")}
    assert found(lake, machine=B, boot_id="b2", clock="mono", instance="two").twice == {}


def test_sets_that_followed_each_other_recorded_nothing_twice(tmp_path):
    first, second = stream(A, "b1", "one", 0), stream(A, "b1", "two", 0)
    frames = []
    for each, at in ((first, _pages.T), (second, _pages.T + 100)):
        frames += [
            _pages.described(stream=each._replace(instance=each.instance.partition("/")[0])),
            _pages.paged(0, [_pages.FORM.page(at, _pages.tick(1), _pages.tick(2))], stream=each),
        ]
    with connect(build(tmp_path / "lake", frames)) as connection:
        assert found(connection).twice == {}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, f"trace events of 2 machines, a file takes one: give --machine, one of {A[:8]}, {B[:8]}$"),
        ({"machine": "aa1"}, "2 machines"),
        ({"machine": B}, "2 boots, a file takes one: give --boot-id, one of 0d9e47b2, b2$"),
        ({"machine": B, "boot_id": "b2"}, "2 clocks, a file takes one: give --clock, one of boot, mono$"),
        ({"machine": "zz"}, rf"no trace event is of that; there are \(machine, boot, set, clock\): {A} b1 one mono, "),
        ({"machine": A, "instance": "on"}, "no trace event is of that"),
        ({"machine": A, "clock": "boot"}, "no trace event is of that"),
    ],
)
def test_what_is_not_one_thing_is_an_error_that_says_how_to_choose(lake, asked, said):
    with pytest.raises(UsageError, match=said):
        found(lake, **asked)


def test_a_name_that_another_begins_with_can_still_be_given(tmp_path):
    frames = [_pages.described()] + [
        _pages.paged(0, [_pages.page(1)], stream=_pages.CPU._replace(machine=name)) for name in ("m", "m2")
    ]
    with connect(build(tmp_path / "lake", frames)) as connection:
        assert found(connection, machine="m").machine == "m"


def test_the_ends_of_a_range_are_by_the_ring_or_by_the_log(lake):
    at = _pages.T
    assert found(lake, machine=A, since=When("ts_ns", at + 2)).tables == {"trace_tick": 4}
    assert found(lake, machine=A, until=When("ts_ns", at + 2)).tables == {"trace_tick": 2}
    # Its rings came one and three seconds after the start.
    arrived = _sample.START_NS + 10**9
    assert found(lake, machine=A, until=When("arrival_ns", arrived + 1)).tables == {"trace_tick": 3}
    assert found(lake, machine=A, since=When("arrival_ns", arrived + 1)).tables == {"trace_tick": 3}
    one = found(lake, machine=A, since=When("ts_ns", at))
    assert (one.from_start, one.to_end) == (False, True)


def test_an_empty_range_says_where_there_is_something(lake):
    with pytest.raises(UsageError) as told:
        found(lake, machine=A, since=When("ts_ns", _pages.T + 4))
    assert str(told.value) == (
        f"no trace event lies there: ts_ns are {_pages.T + 1} to {_pages.T + 3}, "
        "and they came from 2026-03-02 09:00:01 to 2026-03-02 09:00:03 UTC"
    )


def test_a_lake_without_trace_events_says_how_to_get_some(tmp_path):
    with (
        connect(_sample.build(tmp_path / "lake")) as connection,
        pytest.raises(UsageError, match="hypocenter-agent run"),
    ):
        found(connection)


def test_more_than_a_file_takes_is_to_be_narrowed(lake):
    assert scope.find(lake, Choice(machine=A), events_max=6)
    with pytest.raises(UsageError, match="6 events are too many for one file, which takes 5: narrow it with --since"):
        scope.find(lake, Choice(machine=A), events_max=5)


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_windows_hold_every_event_once_and_not_too_many(tmp_path, limit):
    times = [-(1 << 62), 0, 1, 2, 2, 3, 1000, 10**15, 10**15 + 1, (1 << 62) + 5]
    pages = [_pages.FORM.page(at % (1 << 64), _pages.tick(1, delta=0)) for at in times]
    with connect(build(tmp_path / "lake", [_pages.described(), _pages.paged(0, pages)])) as connection:
        whole = found(connection)
        made = list(scope.windows(connection, whole, events_max=limit))
    assert all(one.until_ns <= other.since_ns for one, other in pairwise(made))
    held = [sum(each.since_ns <= at < each.until_ns for at in times) for each in made]
    assert [each.tables["trace_tick"] for each in made] == held
    assert sum(held) == len(times)
    # Two of one time cannot be parted.
    assert max(held) <= max(limit, 2)
    assert len(made) == {1: 9, 1000: 1}.get(limit, len(made))


@pytest.mark.parametrize(
    ("text", "column", "ns"),
    [
        ("0", "ts_ns", 0),
        ("-5", "ts_ns", -5),
        ("5400000000", "ts_ns", 5_400_000_000),
        ("2026-03-02T09:00:00", "arrival_ns", _sample.START_NS),
        ("2026-03-02 09:00:00.25", "arrival_ns", _sample.START_NS + 250_000_000),
        ("2026-03-02T10:00:00+01:00", "arrival_ns", _sample.START_NS),
        ("2026-03-02T09:00:00Z", "arrival_ns", _sample.START_NS),
        ("2026-03-02", "arrival_ns", _sample.START_NS - 9 * 3600 * 10**9),
    ],
)
def test_a_time_is_utc_or_a_number(text, column, ns):
    assert scope.when(text) == When(column, ns)


@pytest.mark.parametrize("text", ["", "noon", "1.5", "1e9", "٣", str(1 << 63), "9999-99-01", "9999-12-31"])
def test_what_is_neither_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        scope.when(text)
