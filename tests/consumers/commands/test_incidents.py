"""Incidents as the alerter really stored them: listed, chosen, and shown whole with what the lake says around them."""

import csv
import io
import json
import re
import shlex
from unittest import mock

import pytest

from schemas import kmsg
from schemas.surfaces import TOPIC_LOG
from tests.consumers._sample import HUNG
from tests.consumers.incidents import _lakes
from tests.consumers.timeline import _story
from tests.consumers.timeline.test_page import Page
from tests.consumers.verdict import _lake

SOFT = "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [{}:77]"


@pytest.fixture(scope="module")
def lakes(tmp_path_factory):
    path = tmp_path_factory.mktemp("incidents")
    folders = {name: path / name for name in ("frozen", "blocked", "clockless", "later")}
    for each in folders.values():
        each.mkdir()
    return {
        "frozen": _lakes.with_host(folders["frozen"], _lake.SCENARIOS["frozen"]),
        "blocked": _lakes.alone(folders["blocked"], "hungtask-host-iothread-freeze"),
        "clockless": _lakes.alone(folders["clockless"], "rcu-stall-guest-irqs-off", clocks=False),
        "later": _lakes.later(folders["later"], _lake.SCENARIOS["frozen"]),
    }


def listed(run, lake, *words):
    done = run("incidents", "--lake", lake, *words, "--format", "json")
    assert (done.code, done.err) == (0, "")
    return [json.loads(line) for line in done.lines]


def shown(run, lake, *words):
    (row,) = listed(run, lake)
    done = run("incidents", "show", row["incident_id"][:6], "--lake", lake, *words)
    assert done.code == 0, done.err
    return done


# The lines under a heading.
def part(text, heading):
    return re.search(rf"^{heading}\n-+\n(.*?)(?=\n\n[A-Z][A-Z, ]+\n-+\n|\Z)", text, re.DOTALL | re.MULTILINE)[1]


def words(text):
    return " ".join(text.split())


def test_the_list_says_when_whose_and_what_was_judged(run, lakes):
    done = run("incidents", "--lake", lakes["frozen"])
    head, _, row, count = done.lines
    assert head.split() == ["id", "when", "vm_or_machine", "kind", "length", "owner", "confidence", "row", "state"]
    assert re.fullmatch(
        r"[0-9a-f]{8}  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d  web-7 +soft_lockup  23 s +vmm_pause +high +C1 +open", row
    )
    assert count == "(1 row)"


def test_without_clocks_the_kernel_s_own_time_is_told(run, lakes):
    assert "kernel 8.749  5f0c2a9b" in run("incidents", "--lake", lakes["clockless"]).out
    (row,) = listed(run, lakes["clockless"])
    assert (row["since_utc_ns"], row["since_utc_bound_ns"]) == (None, None)


def test_json_and_csv_have_the_row_with_its_time_in_utc(run, lakes):
    (row,) = listed(run, lakes["frozen"])
    assert row["since_utc_bound_ns"] < 20_000_000
    assert 0 < row["opened_ns"] - row["since_utc_ns"] < 120 * 10**9
    assert "incident_json" not in row
    done = run("incidents", "--lake", lakes["frozen"], "--format", "csv")
    (again,) = csv.DictReader(io.StringIO(done.out))
    assert (again["incident_id"], again["owner"]) == (row["incident_id"], row["owner"])
    assert set(again) == set(row)


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--kind", "soft_lockup"), 1),
        (("--kind", "rcu_stall"), 0),
        (("--owner", "vmm_pause", "--state", "open", "--vm", "web-7", "--machine", "5f0c"), 1),
        (("--owner", "undetermined"), 0),
        (("--machine", "9c4d"), 1),
        (("--since", "2200-01-01T00:00"), 0),
        (("--until", "2026-01-01T00:00"), 0),
        (("--since", "2026-01-01T00:00", "--until", "2200-01-01T00:00"), 1),
    ],
)
def test_filters_choose(run, lakes, flags, count):
    assert len(listed(run, lakes["frozen"], *flags)) == count
    if not count:
        done = run("incidents", "--lake", lakes["frozen"], *flags)
        assert (done.code, done.lines) == (0, ["none of the lake's 1 incidents is of that sort"])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--kind", "soft_lokup"), "did you mean soft_lockup?"),
        (("--owner", "vm_pause"), "did you mean vmm_pause?"),
        (("--state", "opened"), "did you mean open?"),
        (("--vm", "wbe-7"), "did you mean web-7?"),
        (("--machine", "77"), "there is 5f0c2a9be1d84c0c8a7d3b6f91e24d70"),
        (("--since", "5"), "a time in UTC like"),
        (("show", "zz"), "the lake has no incident zz; `hypocenter incidents` lists them"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(run, lakes, flags, said):
    done = run("incidents", "--lake", lakes["frozen"], *flags)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_near_id_is_told(run, lakes):
    (row,) = listed(run, lakes["frozen"])
    key = row["incident_id"][:7]
    done = run("incidents", "show", f"{key}z", "--lake", lakes["frozen"])
    assert (done.code, f"did you mean {row['incident_id'][:8]}?" in done.err) == (2, True)


def test_an_empty_lake_is_one_sentence(run, empty_lake):
    done = run("incidents", "--lake", empty_lake)
    assert (done.code, done.out, done.err) == (
        0, "the lake has no incident: `hypocenter alert` finds and stores them\n", "",
    )  # fmt: skip
    assert run("incidents", "--lake", empty_lake, "--format", "csv").out == ""
    assert run("incidents", "show", "ab", "--lake", empty_lake).err == (
        "hypocenter: the lake has no incident, so none is called ab: `hypocenter alert` finds them\n"
    )
    assert run("incidents").err == "hypocenter: incidents needs --lake DIR\n"


def test_the_page_begins_with_what_happened_and_who_owned_it(run, lakes):
    text = shown(run, lakes["frozen"]).out
    assert text.startswith("soft lockup on CPU 1 in guest-kernel of VM web-7, 23 s\nincident ")
    top = words(text.split("VERDICT")[0])
    assert "CPU 1 did not schedule for 23 s; `sh` (pid 137) was on it. CPU 1 stood still for 23.0 s, because it" in top
    assert re.search(r"The owner is vmm_pause, with high confidence\. It began at 2\d{3}-\S+ \S+ UTC \(within 9", top)
    verdict = words(part(text, "VERDICT"))
    assert "owner vmm_pause, confidence high, row C1 of rules" in verdict
    assert "if the vCPU was paused, stopped or frozen for at least 0.5 of the time, then vmm_pause with high" in verdict
    assert "not host_memory, storage_backend: vCPU 1 was asleep in the host for" in verdict


def test_every_command_that_is_printed_runs_and_finds_rows(run, lakes):
    text = shown(run, lakes["frozen"]).out
    commands = re.findall(r"^\s+(?:\$ )?(hypocenter .*)$", text, re.MULTILINE)
    assert {command.split()[1] for command in commands} == {"query", "timeline", "verdict"}
    assert any("from vcpu_time" in command for command in commands)
    for command in commands:
        done = run(*shlex.split(command)[1:])
        assert done.code == 0, done.err
        assert not done.out.endswith("(0 rows)\n")


def test_a_thread_that_runs_all_cpus_is_named(run, tmp_path):
    told = _lake._topology

    def topology():
        for each in told():
            if each.fields.get("vcpu") != 0:
                yield each._replace(fields=each.fields | {"vcpu": None}) if "vcpu" in each.fields else each

    with mock.patch.object(_lake, "_topology", topology):
        lake = _lakes.with_host(tmp_path, _lake.SCENARIOS["frozen"])
    assert "CPU 1 is thread 4104 of the host" in words(part(shown(run, lake).out, "SEVEN QUESTIONS"))


def test_the_seven_questions_are_answered_from_the_lake(run, lakes):
    text = words(part(shown(run, lakes["frozen"]).out, "SEVEN QUESTIONS"))
    for said in (
        "1. Which layer emitted it? - guest-kernel: the kernel (6.1.0-56-amd64) of machine 5f0c2a9b, VM web-7 on host",
        "the verdict is that another layer failed: vmm_pause",
        "2. Which resource failed? - the running of the VM",
        "CPU 1 is thread 4104 of the host",
        "3. On which clock? - printk of 5f0c2a9b: 11.063557 to 34.063557 s since its boot",
        "CLOCK_BOOTTIME of host 9c4d1e6a: 86411.06",
        "4. What was lost around it? - no stream lost a record",
        "watched: yes: kmsg of 5f0c2a9b",
        "was durable in the log at 2",
        "the lake has no stream of pstore",
        "6. What did the instrumentation change? - BPF program vcpu on 9c4d1e6a: 50,000 runs took 500.0 ms of 50.0 s, 1.00",
        "thresholds: not measured",
        "7. What would prove it wrong? - the vCPU was something else than paused, stopped or frozen for more than 0.5",
        "it is guest_policy if a record shows a real-time task",
    ):
        assert said in text


def test_without_a_host_what_lacks_is_told_with_how_to_get_it(run, lakes):
    text = shown(run, lakes["blocked"]).out
    assert "`dd` (pid 145) slept for 6 s" in text
    lacks = words(part(text, "MISSING, AND HOW TO GET IT"))
    assert "requests to the disk behind the guest's, slow or open" in lacks
    assert "To get it: run the agent on the host with the BPF program block-io" in lacks
    assert "no row decided; where the stack waits for a disk, storage is suspected: a hint, and no verdict" in words(
        text
    )
    asked = words(part(text, "SEVEN QUESTIONS"))
    assert "not comparable with a host: the lake has no stream of the host 9c4d1e6a" in asked
    assert "its stack waits for: module ext4, storage" in asked
    assert "it is network_backend if" in asked
    # Its lines say that it is no matter of a CPU.
    assert "guest_policy" not in asked


def test_clocks_that_do_not_compare_are_told_and_the_window_is_that_of_the_arrival(run, lakes):
    text = shown(run, lakes["clockless"]).out
    assert "when it began does not compare with UTC" in words(text)
    around = part(text, "TIMELINE")
    assert "the kernel's clock does not compare with UTC (nothing connects printk of 5f0c2a9b" in words(around)
    assert "rcu: INFO: rcu_preempt detected stalls" in around
    assert "watched: not comparable: kmsg of 5f0c2a9b" in text
    assert "BPF programs: not measured, when that was on the clock of these on 5f0c2a9b is not known" in words(text)


def test_the_timeline_is_limited_and_keeps_what_was_wrong(run, lakes):
    around = part(shown(run, lakes["frozen"], "--rows", 2).out, "TIMELINE")
    assert "(2 rows" in around
    assert "soft lockup - CPU#1 stuck for 23s!" in around
    assert "more rows, the report's own lines among them, by:" in around


def test_versions_say_how_the_verdict_changed(run, lakes):
    (row,) = listed(run, lakes["later"])
    assert (row["owner"], row["version"] > 1) == ("vmm_pause", True)
    lines = part(shown(run, lakes["later"]).out, "VERSIONS").splitlines()
    assert "undetermined, none" in lines[0]
    assert "vmm_pause, high, row C1" in lines[-1]


def test_the_page_is_a_file_with_lanes_and_every_link_leads_to_a_row(run, lakes, tmp_path):
    done = shown(run, lakes["frozen"], "--html", tmp_path / "a.html")
    assert done.out.startswith(f"{tmp_path / 'a.html'}: incident ")
    text = (tmp_path / "a.html").read_text()
    found = Page(text)
    assert not re.search(r"https?:|url\((?!#hatch\))|@import|<script", text)
    assert '<span class="owner high">vmm_pause, confidence high, row C1' in text
    assert text.index("vmm_pause") < text.index("<h2>Seven questions") < text.index("<svg") < text.index("<pre>")
    links = {value[1:] for name, value in found.attributes if name == "href"}
    assert links == {value for name, value in found.attributes if name == "id" and value.startswith("r")} != set()
    assert shown_code(run, lakes["frozen"], tmp_path / "no" / "a.html") == 2


def shown_code(run, lake, path):
    (row,) = listed(run, lake)
    return run("incidents", "show", row["incident_id"], "--lake", lake, "--html", path).code


def test_what_a_guest_names_its_tasks_stays_text(run, tmp_path):
    name = "<img src=x>\\x1b[2J\\xe2\\x80\\xae"
    texts = [SOFT.format(name), "CPU: 1 PID: 77 Comm: </pre><script> Not tainted 6.1.0 #1"]
    records = [f"4,{n},{100_000_000 + n},-;{text}\n".encode() for n, text in enumerate(texts)]
    frame = _lakes.moved(lambda: [_story.frame(HUNG, 0, 2, "kmsg", kmsg.pack(records), 61)])[0]
    lake = _lakes.run(tmp_path, [(TOPIC_LOG, frame)])
    (row,) = listed(run, lake)
    assert "\u202e" in row["task"]
    text = shown(run, lake).out
    assert "<img src=x>\\x1b[2J\\u202e" in text
    assert all(char == "\n" or char.isprintable() for char in text)
    shown(run, lake, "--html", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text()
    assert not {"img", "script"} & set(Page(page).tags)
    assert "&lt;img src=x&gt;\\x1b[2J\\u202e" in page
    assert all(char == "\n" or char.isprintable() for char in page)
