"""Records of a real program into a lake: typed as a plain reader of its struct says, with all that its ring refused."""

import json

import pytest

from consumers.lake.layout import open_lake
from consumers.transport.log import DirectoryReader
from consumers.views import run_query
from schemas.frame import decode
from schemas.surfaces import TOPIC_TRACE
from tests.pipeline._processes import AGENT, COLLECTOR, Running
from tests.producers.bpf import _bpf
from tests.producers.bpf._pinned import Filesystem, items_of
from tests.producers.bpf_programs._programs import until
from tests.producers.bpf_programs._vcpus import Thread
from tests.producers.ftrace._ftrace import busy

pytestmark = pytest.mark.kernel
# A ring of one page, and every wait a record: it is full most of the time.
CONFIG = """
[agent]
surfaces = ["bpf"]
heartbeat_s = 0.5

[bpf]
tick_ms = 400

[[bpf.programs]]
name = "sched-delay"
threshold_us = 1
ring_kib = 4
"""
CAUSES = {0: "SCHED_DELAY_WOKEN", 1: "SCHED_DELAY_PREEMPTED", 2: "SCHED_DELAY_UNKNOWN"}


def frames_of(log):
    """Return the frames of records in the directory `log`, in their order."""
    reader, found = DirectoryReader(log), []
    try:
        for partition in reader.partitions([TOPIC_TRACE]):
            reader.seek(partition, reader.start_offset(partition))
            while polled := reader.poll(0):
                found += [decode(message.value) for messages in polled.values() for message in messages]
    finally:
        reader.close()
    return [each for each in found if each.encoding == "bpf"]


def test_an_overflowing_ring_is_typed_rows_and_losses_that_are_its_counters(tmp_path):
    _bpf.skip_unless_loadable()
    (tmp_path / "a.toml").write_text(CONFIG)
    log, lake = tmp_path / "log", tmp_path / "lake"
    agent = Running(
        tmp_path, [*AGENT, "run", "--config", str(tmp_path / "a.toml"), "--log", str(log), "--machine", "m"]
    )
    agent.said("watching bpf")
    busy(3000)
    assert agent.stop() == 0, agent.story()
    for words in (("collect", "--log", log, "--until-end"), ("audit", "--deep", "--json")):
        done = Running(tmp_path, [*COLLECTOR, *map(str, words), "--lake", str(lake)])
        assert done.wait() == 0, done.story()
    book = next(each for each in json.loads(done.out)["books"] if each["name"].endswith("bpf/sched-delay/mono"))
    wanted = _bpf.delays_of(frames_of(log))

    def query(sql):
        return run_query(open_lake(lake, create=False), sql)[1]

    columns = ", ".join(name for name in _bpf.Delay._fields if name != "cause")
    rows = query(f"select {columns}, cause, cause_name, surplus from bpf_sched_delay order by position")
    texts = [each._replace(comm=each.comm.decode(), prev_comm=each.prev_comm.decode()) for each in wanted]
    assert rows == [
        (*(value for name, value in each._asdict().items() if name != "cause"), each.cause, CAUSES[each.cause], None)
        for each in texts
    ]
    assert len(rows) == book["stored"] == book["rows"] > 0
    [counters] = query("select arg_max(counters, (arrival_ns, number)) from coverage where instance = 'sched-delay'")[0]
    refused = counters["ring_full"] + counters["ring_busy"]
    assert counters["attempts"] - refused == len(rows)
    assert query("select sum(count) from losses where unit = 'event'") == [(refused,)]
    assert book["lost_events"] == refused > 0
    # Gaps and counters are kept apart by the program, and agree up to each CPU's last record.
    gaps = query("select cpu, max(cpu_seq) + 1 - count(*) from bpf_sched_delay group by cpu")
    told = dict(
        query("select cast(regexp_extract(reason, 'cpu([0-9]+)', 1) as int), sum(count) from losses group by 1")
    )
    assert gaps and all(0 <= missing <= told.get(cpu, 0) for cpu, missing in gaps)


VCPU_CONFIG = """
[agent]
surfaces = ["bpf"]

[[bpf.programs]]
name = "vcpu"
pids = [%d]
look_ms = 100
"""


def test_a_virtual_cpu_that_stands_still_is_rows_that_a_query_finds(tmp_path):
    _bpf.skip_unless_loadable()
    thread = Thread("CPU 5/KVM")
    try:
        (tmp_path / "a.toml").write_text(VCPU_CONFIG % thread.pid)
        log, lake = tmp_path / "log", tmp_path / "lake"
        agent = Running(
            tmp_path, [*AGENT, "run", "--config", str(tmp_path / "a.toml"), "--log", str(log), "--machine", "m"]
        )
        agent.said("watching bpf")
        thread.stop()
        until(lambda: len(frames_of(log)) >= 3, "it is told while it stands")
        thread.go_on()
        count = len(frames_of(log))
        until(lambda: len(frames_of(log)) > count, "it is told that it went on")
        assert agent.stop() == 0, agent.story()
    finally:
        thread.close()
    for words in (("collect", "--log", log, "--until-end"), ("audit", "--deep", "--json")):
        done = Running(tmp_path, [*COLLECTOR, *map(str, words), "--lake", str(lake)])
        assert done.wait() == 0, done.story()
    sql = (
        "select distinct vcpu, pid, comm, task_state, open from bpf_vcpu "
        "where state_name = 'VCPU_STOPPED' and duration_ns >= 100000000 order by open"
    )
    done = Running(tmp_path, [*COLLECTOR, "query", "--lake", str(lake), "--format", "json", sql])
    assert done.wait() == 0, done.story()
    told = {"vcpu": 5, "pid": thread.pid, "comm": "CPU 5/KVM", "task_state": "T"}
    assert [json.loads(line) for line in done.out.splitlines()] == [{**told, "open": False}, {**told, "open": True}]


def test_a_pinned_ring_is_typed_rows_and_what_it_refused_is_never_zero(tmp_path):
    fs = Filesystem(tmp_path / "bpf-fs")
    try:
        owner = fs.owner(ring_bytes=1 << 16)
        log, lake = tmp_path / "log", tmp_path / "lake"
        flags = ("--surface", "bpf", "--pinned", str(owner.pin), "--struct", "shop_item", "--machine", "m")
        for _ in range(2):
            agent = Running(tmp_path, [*AGENT, "run", "--log", str(log), *flags])
            agent.said("watching bpf")
            for _ in range(20):
                owner.write(100, discard_each=9)
            assert agent.stop() == 0, agent.story()
        wanted = items_of(frames_of(log))
    finally:
        fs.close()
    for words in (("collect", "--log", log, "--until-end"), ("audit", "--deep", "--json")):
        done = Running(tmp_path, [*COLLECTOR, *map(str, words), "--lake", str(lake)])
        assert done.wait() == 0, done.story()
    book = next(each for each in json.loads(done.out)["books"] if each["name"].endswith("bpf/pinned/shop/mono"))

    def query(sql):
        return run_query(open_lake(lake, create=False), sql)[1]

    rows = query("select number, kind, weight, name, next from bpf_pinned_shop order by position")
    assert rows == [(each.number, each.kind, [each.weight, each.tare], "loaf", 0) for each in wanted]
    assert query("select distinct kind_name from bpf_pinned_shop order by 1") == [("SHOP_BREAD",), ("SHOP_CAKE",)]
    assert len(rows) == book["stored"] == owner.written
    assert query("select count, reason, unit from losses") == 2 * [(None, "refused-uncounted", "event")]


def test_a_program_without_records_is_rates_and_histograms(tmp_path):
    _bpf.skip_unless_loadable()
    config = CONFIG.replace("tick_ms = 400\n", "tick_ms = 400\nsnapshot_s = 0.5\n") + "records = false\n"
    (tmp_path / "a.toml").write_text(config)
    log, lake = tmp_path / "log", tmp_path / "lake"
    agent = Running(
        tmp_path, [*AGENT, "run", "--config", str(tmp_path / "a.toml"), "--log", str(log), "--machine", "m"]
    )
    agent.said("watching bpf")
    busy(3000)
    assert agent.stop() == 0, agent.story()
    for words in (("collect", "--log", log, "--until-end"), ("audit", "--deep", "--json")):
        done = Running(tmp_path, [*COLLECTOR, *map(str, words), "--lake", str(lake)])
        assert done.wait() == 0, done.story()
    assert [each["name"].partition("/bpf")[2] for each in json.loads(done.out)["books"]] == ["-counts/mono"]

    def query(sql):
        return run_query(open_lake(lake, create=False), sql)[1]

    sums = query("select attempts, ring_full, runs from bpf_counts where cpu is null order by ts_ns")
    assert len(sums) >= 2
    assert {each[:2] for each in sums} == {(0, 0)}
    [(measure, waits)] = query("select measure, list_sum(max_by(slots, ts_ns)) from bpf_histograms group by all")
    assert measure == "wait_ns"
    assert waits > 6000
    assert query("select count(*) > 0 from coverage where surface = 'bpf-counts'") == [(True,)]
    assert query("select count(*) from coverage where surface = 'bpf'") == [(0,)]
