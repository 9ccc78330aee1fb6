"""The graph that a lake's tables make: the sample's clocks are known, so is every conversion."""

import random
import re
from pathlib import Path

import duckdb
import numpy as np
import pytest

from consumers import clock_graph
from consumers.clock_graph import read_graph
from consumers.clocks.graph import Converted, Node, NotComparable
from consumers.lake.layout import open_lake
from consumers.views import connect, run_query
from tests.consumers import _sample, _sample_clocks

S = 10**9
COLUMNS = {
    "clock_readings": "machine layer boot_id instance position realtime_ns monotonic_ns monotonic_raw_ns boottime_ns tai_ns "
    "bracket_ns slew_ppb printk_ns printk_monotonic_ns printk_bracket_ns tsc tsc_monotonic_ns tsc_bracket_ns",
    "clock_pings": "machine layer boot_id instance position host_machine host_boot_id t0_ns t1_ns t2_ns t3_ns generation",
    "coverage": "machine boot_id realtime_ns monotonic_ns boottime_ns bracket_ns",
}
TEXTS = {"machine", "layer", "boot_id", "instance", "host_machine", "host_boot_id"}


README = (Path(__file__).parents[2] / "README.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the folder whose var/lake is the sample."""
    path = tmp_path_factory.mktemp("sample")
    (path / "var").mkdir()
    _sample.build(path / "var" / "lake", trace=True)
    return path


@pytest.fixture(scope="module")
def sample(folder):
    return read_graph(connect(open_lake(folder / "var" / "lake", create=False)))


@pytest.fixture
def tables():
    connection = duckdb.connect()
    for name, columns in COLUMNS.items():
        typed = ", ".join(f"{each} {'text' if each in TEXTS else 'bigint'}" for each in columns.split())
        connection.execute(f"create table {name} ({typed})")
    yield connection
    connection.close()


def add(connection, table, **values):
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    connection.execute(f"insert into {table} ({names}) values ({marks})", list(values.values()))


def reading(connection, position, at_ns, ahead_ns, **values):
    base = {"machine": "m", "layer": "host", "boot_id": "b", "instance": "", "position": position, "bracket_ns": 500}
    base |= {"monotonic_ns": at_ns, "realtime_ns": at_ns + ahead_ns, "boottime_ns": at_ns}
    add(connection, "clock_readings", **(base | values))


def beat(connection, at_ns, ahead_ns, **values):
    base = {"machine": "m", "boot_id": "b", "bracket_ns": 500, "monotonic_ns": at_ns, "boottime_ns": at_ns}
    # One agent's heartbeats of all its streams have the same reading.
    for _ in range(2):
        add(connection, "coverage", **(base | {"realtime_ns": at_ns + ahead_ns} | values))


def real(graph, at_ns):
    return graph.convert(at_ns, Node("m", "b", "mono"), Node("m", "b", "realtime"))


def read(graph, clock="realtime"):
    return graph.edges()[Node("m", "b", "mono"), Node("m", "b", clock)].readings.x0_ns


def guest(clock):
    return Node(_sample.HUNG.machine, _sample.HUNG.boot_id, clock)


def test_a_time_of_the_kernel_log_is_one_of_every_other_clock_and_of_the_host(sample):
    at_ns = 33 * S
    truth = {
        "mono": at_ns,
        "realtime": _sample.START_NS + at_ns,
        "boot": at_ns,
        "tai": _sample.START_NS + at_ns + 37 * S,
    }
    for clock, shown in truth.items():
        found = sample.convert(at_ns + _sample_clocks.PRINTK_AHEAD_NS, guest("printk"), guest(clock))
        assert isinstance(found, Converted)
        # Steady by what the readings say: 5 ppm in 10 s at most.
        assert abs(found.ts_ns - shown) <= found.bound_ns < 60_000
    shown = (at_ns + _sample_clocks.TSC_AHEAD_NS) * 12 // 5
    found = sample.convert(shown, guest("x86-tsc"), guest("mono"))
    assert abs(found.ts_ns - at_ns) <= found.bound_ns < 60_000
    found = sample.convert(at_ns, guest("mono"), guest("x86-tsc"))
    assert abs(found.ts_ns - shown) <= found.bound_ns < 60_000 * 12 // 5
    found = sample.convert(at_ns, guest("mono"), Node(*_sample_clocks.HOST, "boot"))
    assert abs(found.ts_ns - at_ns - _sample_clocks.HOST_AHEAD_NS) <= found.bound_ns < 11_000_000


def test_heartbeats_connect_clocks_where_nothing_else_does(sample):
    locked = Node(_sample.LOCKED.machine, _sample.LOCKED.boot_id, "mono")
    found = sample.convert(45 * S, locked, locked._replace(clock="realtime"))
    assert found == Converted(_sample.START_NS + 85 * S, found.bound_ns)
    assert found.bound_ns < 1000
    assert isinstance(sample.convert(45 * S, locked, guest("mono")), NotComparable)


def test_a_short_run_with_readings_leaves_the_rest_of_its_boot_to_heartbeats(tables):
    for number in range(31):
        # Less exact than the readings, as an agent under load may be: by as much as it says.
        beat(tables, (number * 10 + 3) * S, 7 * S + 40_000, bracket_ns=100_000)
    for number in range(6):
        reading(tables, number, (110 + number * 10) * S, 7 * S)
    graph = read_graph(tables)
    for at_s in (4, 50, 109, 161, 200, 302):
        found = real(graph, at_s * S)
        assert abs(found.ts_ns - (at_s + 7) * S) <= found.bound_ns, at_s
        assert 49_000 < found.bound_ns < 51_000
        assert graph.convert(at_s * S, Node("m", "b", "mono"), Node("m", "b", "boot")).bound_ns > 49_000
    # Between readings that are close no heartbeat is taken, so none makes a time less exact.
    for at_s in (111, 135, 159):
        found = real(graph, at_s * S)
        assert abs(found.ts_ns - (at_s + 7) * S) <= found.bound_ns < 300
    assert isinstance(real(graph, 304 * S), NotComparable)
    assert len(read(graph)) == len(read(graph, "boot")) == 6 + 26


@pytest.mark.parametrize(("apart_s", "taken"), [(20, 2), (21, 2 + 2)])
def test_readings_are_close_where_they_are_two_intervals_apart(tables, apart_s, taken):
    for number in range(2):
        reading(tables, number, number * apart_s * S, 5)
    for at_s in (9, 18):
        beat(tables, at_s * S, 5)
    assert len(read(read_graph(tables))) == taken


def test_a_clock_that_was_set_twice_while_nobody_took_readings_shows_in_heartbeats(tables):
    for number, at_s in enumerate([0, 10, 20, 110, 120]):
        reading(tables, number, at_s * S, 100 * S)
    for at_s in range(25, 110, 10):
        beat(tables, at_s * S, (107 if 50 < at_s < 80 else 100) * S)
    graph = read_graph(tables)
    assert {at_s: real(graph, at_s * S).ts_ns // S - at_s for at_s in (5, 40, 60, 90, 115)} == {
        5: 100, 40: 100, 60: 107, 90: 100, 115: 100,
    }  # fmt: skip
    for at_s in (50, 80):
        assert "set, stopped or restored" in real(graph, at_s * S).reason


def test_the_newest_of_readings_and_heartbeats_together_are_taken(tables, monkeypatch):
    monkeypatch.setattr(clock_graph, "ROWS_MAX", 10)
    for number in range(4):
        reading(tables, number, (100 + number) * S, 5)
    for at_s in (*range(0, 100, 10), 110, 120):
        beat(tables, at_s * S, 5)
    assert (read(read_graph(tables)) // S).tolist() == [59, 69, 79, 89, 99, 100, 101, 102, 109, 119]
    for number in range(4, 12):
        reading(tables, number, (100 + number) * S, 5)
    assert (read(read_graph(tables)) // S).tolist() == [102, 103, 104, 105, 106, 107, 108, 109, 110, 119]


def test_heartbeats_stand_for_the_readings_of_an_agent_that_has_less(tables):
    for number in range(5):
        reading(tables, number, number * 10 * S, 5)
    for number in range(3):
        reading(tables, number, (1000 + number * 10) * S, 5, layer="guest-kernel")
        beat(tables, (1001 + number * 10) * S, 5)
    assert real(read_graph(tables), 1010 * S).bound_ns < 1000


def test_where_a_machine_went_back_no_heartbeat_says_of_which_of_two_times_it_is(tables):
    for number, (at_s, ahead_s) in enumerate([(0, 100), (10, 100), (20, 100), (5, 200), (15, 200), (25, 200)]):
        reading(tables, number, at_s * S, ahead_s * S)
    alone = read_graph(tables)
    for at_s, ahead_s in ((9, 100), (12, 200), (60, 100), (70, 200)):
        beat(tables, at_s * S, ahead_s * S)
    graph = read_graph(tables)
    assert [real(graph, at_s * S) for at_s in range(80)] == [real(alone, at_s * S) for at_s in range(80)]


def test_the_truth_is_in_every_answer_that_readings_and_heartbeats_give(tables):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(12):
        tables.execute("delete from coverage")
        tables.execute("delete from clock_readings")
        # A clock that is set now and then, always with a heartbeat in between.
        steps = [(0, 1000 * S)]
        while steps[-1][0] < 600 * S:
            steps.append((steps[-1][0] + rng.randrange(45 * S, 200 * S), steps[-1][1] + rng.randrange(-(10**5), 10**5)))

        def ahead_ns(at_ns, steps=steps):
            return [by for since, by in steps if since <= at_ns][-1]

        runs = [
            (since, since + rng.randrange(60) * S) for since in (rng.randrange(250) * S, rng.randrange(300, 550) * S)
        ]
        known = sorted({at_ns for since, until in runs for at_ns in range(since, until, 10 * S)})
        for number, at_ns in enumerate(known):
            reading(tables, number, at_ns, ahead_ns(at_ns))
        for at_ns in range(S // 3, 600 * S, 10 * S):
            bracket_ns = rng.randrange(200, 90_000)
            late_ns = rng.randrange(-(bracket_ns // 2), bracket_ns // 2)
            beat(tables, at_ns, ahead_ns(at_ns + late_ns) + late_ns, bracket_ns=bracket_ns)
        asked = np.array([rng.randrange(600 * S) for _ in range(500)], np.int64)
        found = read_graph(tables).convert_many(asked, Node("m", "b", "mono"), Node("m", "b", "realtime"))
        truth = asked + np.array([ahead_ns(at_ns) for at_ns in asked.tolist()], np.int64)
        answered = found.state >= 0
        assert answered.sum() > 250
        assert np.all((np.abs(found.ts_ns - truth) <= found.bound_ns)[answered])


def test_a_clock_that_was_set_between_two_readings_is_two_segments(tables):
    for number, (at_s, ahead_s) in enumerate([(0, 100), (10, 100), (20, 107), (30, 107)]):
        reading(tables, number, at_s * S, ahead_s * S)
    graph = read_graph(tables)
    mono, real = Node("m", "b", "mono"), Node("m", "b", "realtime")
    assert abs(graph.convert(5 * S, mono, real).ts_ns - 105 * S) < 1000
    assert abs(graph.convert(25 * S, mono, real).ts_ns - 132 * S) < 1000
    assert "set, stopped or restored" in graph.convert(15 * S, mono, real).reason
    # The other clocks know of no step.
    assert graph.convert(15 * S, mono, Node("m", "b", "boot")).bound_ns < 1000


def test_nulls_and_numbers_that_no_clock_shows_are_left_out(tables):
    reading(tables, 0, 1 * S, 5, printk_ns=None)
    reading(tables, 1, 2 * S, 5, bracket_ns=None)
    reading(tables, 2, 3 * S, 5, bracket_ns=-1)
    reading(tables, 3, 4 * S, 5, realtime_ns=-(1 << 63))
    reading(tables, 4, (1 << 63) - 1, -5)
    reading(tables, 5, 6 * S, 5, bracket_ns=1 << 62)
    edges = read_graph(tables).edges()
    sizes = {other.clock: len(edge.readings.x0_ns) for (_, other), edge in edges.items()}
    assert sizes == {"realtime": 1, "boot": 2}


def test_a_counter_whose_frequency_readings_do_not_agree_on_connects_nothing(tables):
    ticks = (1_000, 25_000_000_000, 49_000_000_000, 73_000_000_000)
    pair = Node("m", "b", "mono"), Node("m", "b", "tsc")
    for number, shown in enumerate(ticks):
        at_ns = number * 10 * S
        assert pair not in read_graph(tables).edges() or number == 3
        reading(tables, number, at_ns, 5, tsc=shown, tsc_monotonic_ns=at_ns, tsc_bracket_ns=60)
    # 2.5 ticks for a ns over the first stretch, in which it was set, and 2.4 over the two others.
    edge = read_graph(tables).edges()[pair]
    assert (edge.hz, edge.starts) == (2_400_000_000, [0, 1])


def test_a_counter_of_an_agent_that_did_not_say_when_it_read_it_is_left_out(tables):
    for number in range(5):
        reading(tables, number, number * 10 * S, 5, tsc=number * 24_000_000_000)
    assert {other.clock for _, other in read_graph(tables).edges()} == {"realtime", "boot"}


def test_a_wide_reading_of_printks_clock_does_not_hide_a_tight_one(tables):
    for number, bracket_ns in enumerate([10 * S, 20_000_000, 10 * S, 10 * S]):
        at_ns = (100 + 20 * number) * S
        of_printk = {"printk_ns": at_ns + 7, "printk_monotonic_ns": at_ns, "printk_bracket_ns": bracket_ns}
        reading(tables, number, at_ns, 5, **of_printk)
    mono, printk = Node("m", "b", "mono"), Node("m", "b", "printk")
    graph = read_graph(tables)
    assert len(graph.edges()[mono, printk].readings.x0_ns) == 1
    found = graph.convert(160 * S, printk, mono)
    # 40 s at 1000 ppm at most.
    assert abs(found.ts_ns - 160 * S) <= found.bound_ns < 60_000_000


def test_of_two_agents_readings_those_of_one_are_taken(tables):
    for number in range(4):
        reading(tables, number, number * S, 5)
    reading(tables, 0, S, 5, layer="guest-kernel")
    assert len(read_graph(tables).edges()[Node("m", "b", "mono"), Node("m", "b", "realtime")].readings.x0_ns) == 4


def test_a_steady_rate_is_believed_where_both_ends_state_it_for_all_the_time(tables):
    for who in ("guest", "host"):
        for number in range(13):
            reading(tables, number, number * 10 * S, 0, machine=who, slew_ppb=7)
    ping = {"layer": "guest-kernel", "boot_id": "b", "instance": "", "host_machine": "host", "host_boot_id": "b"}
    for number in range(24):
        at = number * 5 * S + S
        times = {"t0_ns": at, "t1_ns": at + 100_000, "t2_ns": at + 110_000, "t3_ns": at + 200_000}
        add(tables, "clock_pings", machine="guest", position=number, generation=0, **ping, **times)
    pair = Node("guest", "b", "mono"), Node("host", "b", "boot")
    assert read_graph(tables).convert(58 * S, *pair).bound_ns < 250_000
    tables.execute("update clock_readings set slew_ppb = null where machine = 'host'")
    assert read_graph(tables).convert(58 * S, *pair).bound_ns > 2_000_000


def test_another_generation_is_another_segment(tables):
    ping = {"layer": "guest-kernel", "boot_id": "b", "instance": "", "host_machine": "h", "host_boot_id": "b"}
    for number in range(10):
        at = number * S
        times = {"t0_ns": at, "t1_ns": at + 100_000, "t2_ns": at + 110_000, "t3_ns": at + 200_000}
        add(tables, "clock_pings", machine="g", position=number, generation=number // 5, **ping, **times)
    (edge,) = read_graph(tables).edges().values()
    assert edge.starts == [0, 5]


def test_a_lake_without_clocks_connects_nothing(tables):
    assert read_graph(tables).edges() == {}
    assert clock_graph.ROWS_MAX > 0


def test_the_readme_converts_as_it_says(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lake = open_lake(folder / "var" / "lake", create=False)
    ((machine, boot_id),) = run_query(lake, "select machine, boot_id from clock_readings limit 1")[1]
    names = {"machine": machine, "boot_id": boot_id, "ts_ns": np.array([30 * S])}
    exec(compile(code, "README.md", "exec"), names)
    found = names["found"]
    assert found.state[0] >= 0
    assert abs(found.ts_ns[0] + _sample_clocks.PRINTK_AHEAD_NS - 30 * S) <= found.bound_ns[0]
