"""Texts of /proc as numbers: lines as kernels write them, and any others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.decode import procfs_text

STAT = "cpu  3 0 1 9 0 0 0 2 0 0\ncpu1 3 0 1 9\nintr 5 0 3\nctxt 15729858\ncpu2 x\n"
DISKS = "   7       0 loop0 1 2 3 4\n 254       0 vda 186 35 10 76 359 138 12 108 1 65 211 85 46 42 10 110 15\n  8 0\n"


def test_times_of_cpus_are_ns():
    table, (all_of_them, second) = procfs_text.rows("/proc/stat", STAT)
    assert table == "procfs_cpu"
    assert (all_of_them["cpu"], all_of_them["user_ns"], all_of_them["steal_ns"]) == (None, 30_000_000, 20_000_000)
    assert second == {"cpu": 1, "user_ns": 30_000_000, "nice_ns": 0, "system_ns": 10_000_000, "idle_ns": 90_000_000}


def test_pressure_is_a_row_for_each_kind_of_stall():
    text = "some avg10=40.92 avg60=64.95 avg300=73.31 total=635833154\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    table, (some, full) = procfs_text.rows("/proc/pressure/io", text + "some avg10=1..2 avg60=1 avg300=1 total=1\n")
    assert table == "procfs_pressure"
    assert some == {
        "resource": "io",
        "stalled": "some",
        "avg10": 40.92,
        "avg60": 64.95,
        "avg300": 73.31,
        "total_ns": 635_833_154_000,
    }
    assert (full["stalled"], full["total_ns"]) == ("full", 0)


def test_memory_is_bytes_and_events():
    text = "MemTotal:  4 kB\nMemFree:   1 kB\nHugePages_Total:  3\nDirty: x kB\n"
    assert procfs_text.rows("/proc/meminfo", text) == ("procfs_memory", [{"total_bytes": 4096, "free_bytes": 1024}])
    events = "pgmajfault 7\noom_kill 1\nnr_free_pages 9\npswpin 18446744073709551615\n"
    assert procfs_text.rows("/proc/vmstat", events)[1] == [{"major_faults": 7, "oom_kills": 1}]
    assert procfs_text.rows("/proc/meminfo", "") == ("procfs_memory", [])


def test_disks_of_old_and_new_kernels_have_what_their_lines_have():
    table, (old, new) = procfs_text.rows("/proc/diskstats", DISKS)
    assert table == "procfs_disk"
    assert old == {"major": 7, "minor": 0, "device": "loop0", "reads": 1, "reads_merged": 2} | {
        "read_bytes": 1536,
        "read_ns": 4_000_000,
    }
    assert (new["in_flight"], new["busy_ns"], new["flushes"], new["flush_ns"]) == (1, 65_000_000, 110, 15_000_000)


def test_other_files_are_no_numbers():
    assert procfs_text.rows("/proc/interrupts", STAT) == ("", [])


@pytest.mark.parametrize("path", list(procfs_text._PARSERS))
@given(text=st.text(st.sampled_from("cpu some full avg10=.total:kB vda\n0123456789"), max_size=200))
def test_any_text_is_rows_or_none(path, text):
    for row in procfs_text.rows(path, text)[1]:
        assert all(abs(value) < 1 << 63 for value in row.values() if isinstance(value, int))


@pytest.mark.parametrize("path", [path for path in procfs_text._PARSERS if Path(path).exists()])
def test_the_files_of_this_machine_are_rows(path):
    assert procfs_text.rows(path, Path(path).read_text())[1]
