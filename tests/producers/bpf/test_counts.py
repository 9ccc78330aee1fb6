"""Samples of programs on the real kernel: what is sent when, and that it is what the program counted."""

import time

import pytest

from producers.bpf import counts as bpf_counts
from producers.bpf import source as source_module
from producers.bpf.program import Counts, Program, Runs
from producers.registry import Known, Opening
from schemas import state
from schemas.config import BpfConfig, BpfProgram, Config
from schemas.stream import Stream
from tests.producers.bpf._bpf import skip_unless_loadable
from tests.producers.bpf._pinned import ME
from tests.producers.ftrace._ftrace import busy

STREAM = Stream(*ME, "bpf-counts", "", "mono")


class Told:
    """A program that counts what a test says."""

    name, loaded_ns = "told", 77

    def __init__(self):
        self.now = [Counts(0, 0, 0, 0), Counts(0, 0, 0, 0)]
        self.measured = {"wait_ns": [0] * 64, "errors": [0]}
        self.ran = Runs(0, 0, 0)

    def counts(self):
        return self.now

    def measures(self):
        return self.measured

    def runs(self):
        return self.ran


def fields(records, kind):
    return [record.fields for record in records if record.kind == kind]


def test_sums_come_at_each_interval_and_the_rest_where_it_changed():
    program = Told()
    sampler = bpf_counts.Sampler([program])
    about = {"program": "told", "loaded_ns": 77}
    (first,) = sampler.sample()
    assert first.fields["cpu"] is None
    assert (first.fields["attempts"], first.fields["measures"]) == (0, {"errors": 0})
    program.now = [Counts(0, 0, 0, 0), Counts(5, 2, 1, 0)]
    program.measured = {"wait_ns": [1, 0, 3, *[0] * 61], "errors": [4]}
    found = sampler.sample()
    sums, own = fields(found, "bpf_counts")
    assert [sums[name] for name in Counts._fields] == [5, 2, 1, 0]
    assert sums["measures"] == {"errors": 4}
    assert own == about | {"cpu": 1, "attempts": 5, "ring_full": 2, "ring_busy": 1, "untracked": 0}
    assert fields(found, "bpf_histograms") == [about | {"measure": "wait_ns", "slots": [1, 0, 3]}]
    (again,) = sampler.sample()
    assert again.fields == sums


def test_what_no_column_can_hold_is_its_largest_number():
    program = Told()
    program.now = [Counts(1 << 63, 0, 0, 0), Counts(1, 0, 0, 0)]
    program.measured = {"wait_ns": [*[0] * 63, 1 << 64], "errors": [0]}
    found = bpf_counts.Sampler([program]).sample()
    assert fields(found, "bpf_counts")[0]["attempts"] == (1 << 63) - 1
    (histogram,) = fields(found, "bpf_histograms")
    assert (len(histogram["slots"]), histogram["slots"][63]) == (64, (1 << 63) - 1)
    assert state.unpack(state.pack(found)) == found


@pytest.mark.parametrize(("ran", "timed"), [(Runs(0, 0, 3), False), (Runs(900, 9, 0), True)])
def test_what_the_kernel_does_not_measure_is_not_zero(ran, timed, monkeypatch, tmp_path):
    monkeypatch.setattr(bpf_counts, "_STATS", tmp_path / "stats")
    (tmp_path / "stats").write_text("0\n")
    program = Told()
    program.ran = ran
    (record,) = bpf_counts.Sampler([program]).sample()
    found = [record.fields[name] for name in ("runs", "run_ns", "recursion_misses")]
    assert found == [ran.runs if timed else None, ran.run_ns if timed else None, ran.recursion_misses]
    (tmp_path / "stats").write_text("1\n")
    (record,) = bpf_counts.Sampler([program]).sample()
    assert record.fields["runs"] == ran.runs


@pytest.mark.kernel
def test_a_sample_is_what_the_program_counted_since_it_began(tmp_path):
    skip_unless_loadable()
    before_ns = time.monotonic_ns()
    # A ring of a page that nobody reads, and each switch to a task is a record.
    config = Config(bpf=BpfConfig((BpfProgram("sched-delay", threshold_us=0, ring_kib=4),), snapshot_s=5))
    _, records, samples = source_module.open_sources(Opening(ME, {STREAM: Known(40, 3)}, config, tmp_path))
    try:
        assert (samples.stream, samples.tick_s, samples.encoding) == (STREAM, 5.0, "bpf-counts")
        samples.drain()
        busy(2_000)
        records.stop()
        while records.drain():
            pass
        samples.stop()
        (batch,) = samples.cut()
        found = state.unpack(batch.body)
        counters = records.counters()
    finally:
        for each in (records, samples):
            each.close()
    assert batch.first == 40
    last = [each for each in fields(found, "bpf_counts") if each["cpu"] is None][-1]
    assert {last[name] == counters[name] for name in ("attempts", "ring_full", "ring_busy", "untracked")} == {True}
    assert last["attempts"] > 4_000
    by_cpu = {each["cpu"]: each for each in fields(found, "bpf_counts") if each["cpu"] is not None}
    assert sum(each["attempts"] for each in by_cpu.values()) == last["attempts"]
    histogram = fields(found, "bpf_histograms")[-1]
    assert (histogram["measure"], sum(histogram["slots"])) == ("wait_ns", last["attempts"])
    assert before_ns < histogram["loaded_ns"] < found[0].ts_ns


@pytest.mark.kernel
def test_each_program_that_was_built_can_be_sampled():
    skip_unless_loadable()
    program = Program("hang", 4096, {})
    try:
        program.attach()
        found = bpf_counts.Sampler([program]).sample()
        assert {"hung_tasks", "oom_victims"} <= set(found[0].fields["measures"])
    finally:
        program.close()
