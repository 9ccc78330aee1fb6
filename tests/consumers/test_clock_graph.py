"""The graph that a lake's tables make: the sample's clocks are known, so is every conversion."""

import duckdb
import pytest

from consumers import clock_graph
from consumers.clock_graph import read_graph
from consumers.clocks.graph import Converted, Node, NotComparable
from consumers.views import connect
from tests.consumers import _sample, _sample_clocks

S = 10**9
COLUMNS = {
    "clock_readings": "machine layer boot_id instance position realtime_ns monotonic_ns monotonic_raw_ns boottime_ns tai_ns "
    "bracket_ns slew_ppb printk_ns printk_monotonic_ns printk_bracket_ns tsc tsc_monotonic_ns tsc_bracket_ns",
    "clock_pings": "machine layer boot_id instance position host_machine host_boot_id t0_ns t1_ns t2_ns t3_ns generation",
    "coverage": "machine boot_id realtime_ns monotonic_ns boottime_ns bracket_ns",
}
TEXTS = {"machine", "layer", "boot_id", "instance", "host_machine", "host_boot_id"}


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return read_graph(connect(_sample.build(tmp_path_factory.mktemp("sample") / "lake", trace=True)))


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
