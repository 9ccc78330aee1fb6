"""What the rows of single tables become, over tables written here."""

import duckdb
import pytest

from consumers.timeline import listings, sources

S, MS = 10**9, 10**6
FRAME = "machine text, boot_id text, layer text, surface text, instance text, clock text, position bigint, ts_ns bigint, arrival_ns bigint"
WHERE = ("m", "b", "host", "bpf", "i", "mono")


@pytest.fixture
def connection():
    found = duckdb.connect()
    yield found
    found.close()


def listed(connection, table, columns, rows, since_ns=0):
    """Return (own time, until, level, text) of the rows (time, values...) of a table that has these columns of its own."""
    connection.execute(f"create table {table} ({FRAME}, {columns})")
    for position, (ts_ns, *values) in enumerate(rows):
        marks = ", ".join("?" * (9 + len(values)))
        connection.execute(f"insert into {table} values ({marks})", [*WHERE, position, ts_ns, 1, *values])
    how = listings.listing(table, connection.table(table).columns)
    source = f"(select *, {since_ns} as window_ns from {table})"
    found = connection.execute(listings.listing_sql(source, how, 100)).fetchall()
    return [(row[8], row[9], row[11], row[12]) for row in found]


def test_a_stay_of_a_vcpu_that_goes_on_is_one_row(connection):
    columns = "vcpu int, state_name text, duration_ns bigint, open boolean, on_cpu int, pid int"
    rows = [
        (1 * S, 0, "VCPU_RUNNING", 20 * MS, False, 2, 7),
        (2 * S, 0, "VCPU_UNINTERRUPTIBLE", 1000 * MS, True, 2, 7),
        (3 * S + 3_000, 0, "VCPU_UNINTERRUPTIBLE", 2000 * MS, True, 2, 7),
        (4 * S, 0, "VCPU_UNINTERRUPTIBLE", 3000 * MS, False, 2, 7),
        (5 * S, 1, "VCPU_WAITING", 1000 * MS, True, 3, 8),
    ]
    assert listed(connection, "bpf_vcpu", columns, rows) == [
        (980 * MS, 1 * S, 6, "vCPU 0 running for 0.020 s, CPU 2"),
        (1 * S, 4 * S, 4, "vCPU 0 uninterruptible for 3.000 s, CPU 2"),
        (4 * S, 5 * S, 4, "vCPU 1 waiting for 1.000 s and goes on, CPU 3"),
    ]


def test_an_older_record_of_that_name_is_told_by_its_columns(connection):
    found = listed(
        connection, "bpf_vcpu", "pid int, state int, state_name text", [(5, 7, 1, "VCPU_WAITING"), (6, 8, None, None)]
    )
    assert [text for *_, text in found] == ["vcpu pid=7 state=VCPU_WAITING", "vcpu pid=8"]


def test_what_only_repeats_is_left_out_and_what_came_before_the_window_is_only_read(connection):
    columns = "vm text, connected boolean, status text, running boolean, detail text"
    rows = [
        (1, "web", True, "running", True, None),
        (2, "web", True, "running", True, None),
        (3, "web", True, "paused", False, None),
        (4, "web", False, None, None, "no answer"),
    ]
    assert listed(connection, "qmp_status", columns, rows, since_ns=2) == [
        (3, None, 4, "QEMU answers: paused, vCPUs do not run"),
        (4, None, 4, "QEMU does not answer: vCPUs do not run, no answer"),
    ]


def test_of_threads_beside_the_vcpus_it_is_told_whose_they_are(connection):
    columns = "vm text, role text, name text, pid int, tid int, start_ns bigint, state text, frozen boolean"
    connection.execute(f"create table vmm_thread_time ({FRAME}, {columns}, run_ns bigint, wait_ns bigint)")
    for at, (role, name, tid) in enumerate((("iothread", "io0", 5), ("main", "qemu", 4)) * 2):
        values = [*WHERE, at, at // 2 * S, 1, "web", role, name, 4, tid, 1, "S", False, at, 0]
        connection.execute(f"insert into vmm_thread_time values ({', '.join('?' * len(values))})", values)
    source = "(select *, 0 as window_ns from vmm_thread_time)"
    found = connection.execute(listings.threads_sql("vmm_thread_time", source, 9)).fetchall()
    assert [row[6] for row in found] == ["main loop qemu", "I/O thread io0"]
    assert listings.surface_of("vmm_thread_time") == "vcpu-time"
    # That they slept is no news, and that one was stopped is.
    assert sources._threads(connection, "vmm_thread_time", source, 9) == []
    connection.execute("update vmm_thread_time set state = 't' where role = 'iothread'")
    (held,) = sources._threads(connection, "vmm_thread_time", source, 9)
    assert (held.text, held.level) == ("I/O thread io0 ran 0.0 of 1.0 s (state t)", 4)


def test_a_sum_since_boot_becomes_what_it_grew_by(connection):
    columns = "resource text, stalled text, total_ns bigint"
    rows = [
        (S, "io", "some", 0),
        (6 * S, "io", "some", 2 * S),
        (11 * S, "io", "some", 2 * S),
        (16 * S, "io", "some", 2 * S + 100 * MS),
    ]
    assert listed(connection, "procfs_pressure", columns, rows) == [
        (1 * S, 6 * S, 4, "io pressure, some: stalled 40.0 % of 5.0 s"),
        (11 * S, 16 * S, 6, "io pressure, some: stalled 2.0 % of 5.0 s"),
    ]


def test_rows_that_come_densely_are_counted_and_others_listed(connection):
    rows = [(S + i, i) for i in range(25)] + [(3 * S + i, i) for i in range(3)]
    assert [row[3] for row in listed(connection, "bpf_irq_off", "cpu int", rows)] == [
        f"irq_off cpu={i}" for i in range(3)
    ]
    how = listings.listing("bpf_irq_off", connection.table("bpf_irq_off").columns)
    sql = listings.counts_sql("(select *, 0 as window_ns from bpf_irq_off)", how, 100, rest=True)
    assert connection.execute(sql).fetchall() == [("i", 1, 25, S, S + 24, 1)]


def test_hostile_names_of_columns_and_tables_are_words(connection):
    connection.execute(f'create table "bpf_a\'b" ({FRAME}, "x\'; drop table y; --" int)')
    connection.execute("insert into \"bpf_a'b\" values ('m', 'b', 'host', 'bpf', 'i', 'mono', 0, 5, 1, 3)")
    how = listings.listing("bpf_a'b", [*(part.split()[0] for part in FRAME.split(", ")), "x'; drop table y; --"])
    sql = listings.listing_sql('(select *, 0 as window_ns from "bpf_a\'b")', how, 100)
    assert connection.execute(sql).fetchall()[0][-1] == "a'b x'; drop table y; --=3"
