"""The timeline of a failure whose clocks are known: every layer, in order, with what is missing."""

import json

import pytest

from tests.consumers import _sample
from tests.consumers.timeline import _story

SINCE, UNTIL = "2026-03-02T09:00:02.5", "2026-03-02T09:00:28"


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    path = tmp_path_factory.mktemp("timeline") / "lake"
    _story.build(path)
    return path


@pytest.fixture(scope="module")
def strange(tmp_path_factory):
    """The sample, whose host has no clock that anybody read."""
    path = tmp_path_factory.mktemp("timeline") / "sample"
    _sample.build(path, trace=True)
    return path


@pytest.fixture
def timeline(run, lake):
    def call(*words, since=SINCE, until=UNTIL, of=lake):
        whose = () if "--machine" in words else ("--vm", "web-7")
        words = (*whose, "--since", since, "--until", until, *words)
        done = run("timeline", "--lake", of, *words, "--format", "json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    return call


def picked(found, **values):
    return [row for row in found["rows"] if all(row[name] == value for name, value in values.items())]


def seconds(row):
    return (row["at_ns"] - _sample.START_NS) / 1e9


def test_guest_and_host_are_one_list_and_every_time_is_right_within_its_bound(timeline):
    found = timeline()
    assert found["axis"]["machine"] == _story.HOST.machine
    layers = {row["layer"] for row in found["rows"]}
    assert layers == {"guest-kernel", "host", "virtual-platform"}
    at = [row["at_ns"] for row in found["rows"]]
    assert at == sorted(at)
    (inject,) = picked(found, text="HYP_INJECT_BEGIN")
    truth_ns = _sample.START_NS + inject["own_ns"] - 1_370_000
    assert abs(inject["at_ns"] - truth_ns) <= inject["bound_ns"]
    (error,) = [row for row in found["rows"] if row["text"].startswith("blk_update_request")]
    assert abs(error["at_ns"] - _sample.START_NS - 3_191_000_000) <= error["bound_ns"] < 20_000
    assert (error["layer"], error["level"], error["own_clock"]) == ("host", 3, "printk")


def test_rows_whose_bounds_overlap_are_marked(timeline):
    found = timeline()
    (inject,) = picked(found, text="HYP_INJECT_BEGIN")
    (error,) = [row for row in found["rows"] if row["text"].startswith("blk_update_request")]
    assert abs(inject["at_ns"] - error["at_ns"]) < inject["bound_ns"] + error["bound_ns"]
    assert {inject["order"], error["order"]} == {"undetermined"}
    assert picked(found, text="<script>alert('host')</script>")[0]["order"] == "known"


def test_each_record_of_a_bpf_ring_is_one_row(timeline):
    found = [row["text"] for row in picked(timeline(), surface="bpf", kind="record")]
    assert sorted(text.split(" wait_ns=")[1].split()[0] for text in found) == [
        "1040000",
        "1700000",
        "2100000",
        "3213000",
    ]
    assert all(text.startswith("sched_delay ") for text in found)


def test_samples_of_a_vcpu_become_what_it_did_and_for_how_long(timeline):
    found = timeline()
    held = [row["text"] for row in picked(found, surface="vcpu-time", level=4)]
    assert held == ["vCPU 1 ran 0.0 of 8.0 s (state D, frozen)"]
    samples = picked(timeline("--each"), surface="vcpu-time", kind="record")
    assert len(samples) > 20
    assert all("run_ns=" in row["text"] for row in samples)


def test_trace_events_are_counted_or_listed(timeline):
    counted = {row["text"] for row in picked(timeline(), surface="ftrace", kind="count")}
    assert counted == {"sched_waking: 4 events", "sched_switch: 7 events", "unknown: 1 event"}
    listed = picked(timeline("--each"), surface="ftrace", kind="record")
    assert len(listed) == 12
    assert any("prev_comm=sh" in row["text"] for row in listed)


def test_an_event_of_qemu_stands_at_its_own_time(timeline):
    stop = picked(timeline(), text="STOP")[0]
    assert (stop["own_clock"], stop["clock"], stop["bound_ns"]) == ("realtime", "boot", 500)
    assert abs(seconds(stop) - 20.001) < 1e-6


def test_blind_spans_and_losses_are_rows(timeline):
    found = timeline()
    (away,) = picked(found, kind="blind", surface="qmp")
    assert abs(seconds(away) - 8) < 0.001
    assert abs(away["until_at_ns"] - away["at_ns"] - 4 * 10**9) < 10**6
    assert not picked(found, kind="blind", surface="vcpu-time")
    assert picked(found, kind="blind", surface="procfs") == []
    whole = picked(found, kind="blind", surface="bpf")
    assert [row["text"] for row in whole] == ["no heartbeat says that it was watched: 25.5 s"]
    assert {row["surface"] for row in picked(found, kind="loss")} == {"bpf", "ftrace"}


def test_a_loss_between_records_has_the_time_of_the_record_behind_it(timeline):
    found = timeline("--clock", "mono", since="500000000", until="3000000000")
    (lost,) = picked(found, kind="loss", surface="kmsg")
    assert lost["text"].startswith("60 positions lost from 200 on: overwrite, ring-overwritten")
    records = picked(found, kind="record", surface="kmsg", layer="guest-kernel")
    before, behind = (row for row in records if row["position"] in (199, 260))
    assert (lost["own_ns"], lost["at_ns"], lost["comparable"]) == (behind["own_ns"], behind["at_ns"], True)
    assert before["at_ns"] < lost["at_ns"]


def test_without_a_path_between_clocks_rows_stand_where_they_arrived(timeline, strange):
    found = timeline(of=strange)
    host = [row for row in found["rows"] if row["machine"] != _sample.HUNG.machine and row["kind"] != "blind"]
    assert host
    assert {(row["comparable"], row["order"], row["bound_ns"]) for row in host} == {(False, "arrival", None)}
    assert all(row["at_ns"] == row["arrival_ns"] for row in host)
    assert any(note.startswith("not comparable: nothing connects boot of") for note in found["notes"])


def test_other_clocks_show_the_same_rows_in_the_same_order(timeline):
    texts = [row["text"] for row in timeline()["rows"] if row["kind"] == "record" and row["layer"] == "guest-kernel"]
    for clock in ("host", "mono", "boot", "printk"):
        found = timeline("--clock", clock)
        assert [
            row["text"] for row in found["rows"] if row["kind"] == "record" and row["layer"] == "guest-kernel"
        ] == texts
    printk = picked(found, text="HYP_INJECT_BEGIN")[0]
    assert abs(printk["at_ns"] - printk["own_ns"]) <= printk["bound_ns"] + 999


def test_numbers_are_times_of_the_clock(timeline):
    found = timeline("--clock", "mono", since="3000000000", until="4000000000")
    assert (found["since_ns"], found["until_ns"]) == (3 * 10**9, 4 * 10**9)
    texts = {row["text"] for row in picked(found, kind="record", surface="kmsg")}
    assert texts == {"HYP_INJECT_BEGIN", *(text for _, _, text in _story.HOST_LINES)}


def test_a_machine_is_told_whole_and_alone(timeline):
    found = timeline("--machine", _story.HOST.machine[:6])
    assert {row["machine"] for row in found["rows"]} == {_story.HOST.machine}
    assert {row["layer"] for row in found["rows"]} == {"host", "virtual-platform"}


def test_the_limit_is_told(run, lake):
    done = run("timeline", "--lake", lake, "--vm", "web-7", "--since", SINCE, "--until", UNTIL, "--limit", 7)
    assert done.code == 0
    assert "(7 rows" in done.out
    assert "only the first 7 rows: there are at least" in done.lines[-1]


def test_text_says_whose_and_on_which_clock_and_marks_rows(run, lake):
    done = run("timeline", "--lake", lake, "--vm", "web-7", "--since", SINCE, "--until", UNTIL)
    assert done.lines[0].startswith("VM web-7, uuid 5f0c2a9b-e1d8-4c0c-8a7d-3b6f91e24d70: 25.500000 s from 2026-03-02")
    assert "hosts: 9c4d1e6a0b7f4f23a5d8c3e1f2b6a790" in done.lines[1]
    assert any("±" in line and " ~  guest-kernel" in line and "HYP_INJECT_BEGIN" in line for line in done.lines)
    assert any("not comparable  ?  guest-kernel" in line for line in done.lines)


def test_names_that_are_wrong_are_answered_with_near_ones(run, lake):
    for words, said in (
        (("--vm", "wbe-7"), "did you mean web-7?"),
        (("--machine", "9c4e"), "9c4d1e6a0b7f4f23a5d8c3e1f2b6a790"),
    ):
        done = run("timeline", "--lake", lake, *words, "--since", SINCE, "--until", UNTIL)
        assert (done.code, done.out) == (2, "")
        assert said in done.err
    done = run("timeline", "--lake", lake, "--vm", "web-7", "--since", UNTIL, "--until", SINCE)
    assert (done.code, "the first the earlier" in done.err) == (2, True)
    done = run("timeline", "--lake", lake, "--vm", "web-7", "--since", "soon", "--until", UNTIL)
    assert (done.code, "a time in UTC like" in done.err) == (2, True)
    done = run("timeline", "--lake", lake, "--vm", "web-7", "--since", SINCE, "--until", UNTIL, "--clock", "mon")
    assert (done.code, "did you mean mono?" in done.err) == (2, True)


def test_an_empty_lake_and_an_empty_window_say_so(run, lake, empty_lake):
    done = run("timeline", "--lake", empty_lake, "--vm", "web-7", "--since", SINCE, "--until", UNTIL)
    assert (done.code, done.err) == (2, "hypocenter: the lake has no VM, so none is called web-7\n")
    done = run(
        "timeline", "--lake", lake, "--vm", "web-7", "--since", "2026-03-09T09:00", "--until", "2026-03-09T09:01"
    )
    assert done.code == 0
    assert "the lake has no record of this window" in done.out
    assert "tells when it was watched" in done.out


def test_a_file_is_written_or_the_reason_why_not_is_told(run, lake, tmp_path):
    words = ("timeline", "--lake", lake, "--vm", "web-7", "--since", SINCE, "--until", UNTIL)
    done = run(*words, "-o", tmp_path / "a.txt")
    assert (done.code, done.out.startswith(str(tmp_path / "a.txt"))) == (0, True)
    assert (tmp_path / "a.txt").read_text().startswith("VM web-7")
    assert run(*words, "-o", tmp_path / "no" / "a.txt").code == 2
