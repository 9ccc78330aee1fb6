"""One failure in a saved log is one incident, at its own line numbers, in whatever dress the log comes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.incidents import codec
from consumers.incidents import scan as module
from consumers.incidents.scan import LogScan
from tests.consumers.incidents._logs import CAPTURES, console, records

# Kind, CPUs, pid of the root, seconds, start lines, shape.
EXPECTED = {
    "softlockup-host-freeze-default": ("soft_lockup", (1,), 137, 23, 1, None),
    "softlockup-host-freeze-thresh3": ("soft_lockup", (1,), 137, 9, 1, None),
    "softlockup-guest-spin": ("soft_lockup", (1,), 137, 8, 1, None),
    "softlockup-victim-ipi-host-freeze": ("soft_lockup", (0, 1), 137, 14, 2, None),
    "rcu-stall-host-freeze": ("rcu_stall", (1,), 137, 8, 1, "C"),
    "rcu-stall-guest-spin-default": ("rcu_stall", (1,), 316, 21, 1, "A"),
    "rcu-stall-guest-irqs-off": ("rcu_stall", (1,), 304, 8, 1, "F"),
    "kmsg-clock-backwards": ("rcu_stall", (1,), 137, 8, 1, "C"),
    "hungtask-guest-mutex": ("hung_task", (), 137, 6, 4, None),
    "hungtask-host-iothread-freeze": ("hung_task", (), 145, 6, 2, None),
    "hungtask-host-storage-throttle": ("hung_task", (), 147, 8, 4, None),
}
START = (b"soft lockup - CPU", b"blocked for more than", b"detected stall", b"self-detected stall")


def scan(lines, *cuts):
    data = b"".join(lines)
    log, found, at = LogScan(), [], 0
    for cut in (*cuts, len(data)):
        found += log.feed(data[at:cut])
        at = cut
    return [*found, *log.close()], log


def said(found):
    incident = found.incident
    length = None if incident.duration is None else round(incident.duration.high)
    root = incident.kind, incident.cpus, incident.pid
    return *root, length, len(incident.start_lines), incident.root.shape


def starts(lines):
    return [place for place, line in enumerate(lines, 1) if any(words in line for words in START)]


def shown(founds):
    return [[line.place for line in found.incident.start_lines] for found in founds]


@pytest.mark.parametrize("name", EXPECTED)
def test_a_dump_of_kmsg_has_one_incident_for_its_one_cause(name):
    lines = (CAPTURES / f"{name}.kmsg").read_bytes().splitlines(keepends=True)
    (found,), log = scan(lines)
    assert said(found)[:3] == EXPECTED[name][:3] and said(found)[4:] == EXPECTED[name][4:]
    assert shown([found]) == [starts(lines)]
    assert found.incident.structured and log.lines == len(lines) and log.near == 0


def test_a_guest_that_was_paused_says_nothing_and_so_nothing_is_found():
    assert scan((CAPTURES / "vm-paused-30s.kmsg").read_bytes().splitlines(keepends=True))[0] == []


DRESSES = {
    "plain": lambda line: [line],
    "two consoles": lambda line: [line, line],
    "serial": lambda line: [line[:-1] + b"\r\n"],
    "colours": lambda line: [b"\x1b[0;31m" + line[:-1] + b"\x1b[0m\n"],
    "journal": lambda line: [b"Nov 24 02:12:06 host kernel: " + line],
    "journal without times": lambda line: [b"Nov 24 02:12:06 host kernel: " + line.partition(b"] ")[2]],
    "ISO times": lambda line: [b"2026-11-24T02:12:06.123456+00:00 host kernel: " + line],
    "short-full": lambda line: [b"Tue 2026-11-24 02:12:06 UTC host kernel: " + line.partition(b"] ")[2]],
    "short-unix": lambda line: [b"1795486326.979732 host kernel: " + line.partition(b"] ")[2]],
    "RFC 5424": lambda line: [b"<4>1 2026-11-24T02:12:06.1Z host kernel - - - " + line.partition(b"] ")[2]],
    "dmesg -x": lambda line: [b"kern  :warn  : " + line],
    "levels": lambda line: [b"<4>" + line],
    "stacked": lambda line: [b"Nov 24 02:12:06 host kernel: <4>" + line],
    "spaces for tabs": lambda line: [line.replace(b"\t", b"        ")],
    "other programs between": lambda line: [line, b"Nov 24 02:12:07 host sshd[71]: watchdog: BUG: soft lockup - CPU#9 stuck for 99s! [x:1]\n"],
}  # fmt: skip


@pytest.mark.parametrize("dress", DRESSES)
@pytest.mark.parametrize("name", EXPECTED)
def test_the_dress_of_the_lines_changes_nothing(name, dress):
    lines = [each for line in console(name) for each in DRESSES[dress](line)]
    (found,), log = scan(lines)
    assert said(found)[:3] + said(found)[5:] == EXPECTED[name][:3] + EXPECTED[name][5:]
    assert found.incident.duration.high == pytest.approx(EXPECTED[name][3], abs=0.1)
    assert shown([found]) == [[place for place in starts(lines) if b"sshd" not in lines[place - 1]]]
    assert not found.incident.structured and log.boots == 1


@pytest.mark.parametrize("name", EXPECTED)
def test_a_log_that_stands_there_twice_is_one_incident_with_the_lines_of_both(name):
    lines = console(name)
    both = [*lines, b"and again, as dmesg had it:\n", *(b"<4>" + line for line in lines)]
    (found,), log = scan(both)
    assert shown([found]) == [starts(both)] and (log.copies, log.boots) == (1, 2)
    assert found.incident.state == "open"


def test_two_boots_in_one_file_are_two_incidents():
    name = "softlockup-guest-spin"
    later = [line.replace(b"[   14.5", b"[   14.6") for line in console(name)]
    found, log = scan([*console(name), *later])
    assert len(found) == 2 and [each.boot for each in found] == [1, 2] and log.boots == 2
    assert [each.incident.ended_by for each in found] == ["reboot", ""]


BOOT = "Linux version 6.1.0-28-amd64 (debian-kernel@lists.debian.org) #1 SMP"
STALL = (
    "rcu: INFO: rcu_preempt self-detected stall on CPU",
    "rcu: \t1-....: (5249 ticks this GP) idle=7a64/1/0x4000000000000000 softirq=2046/2047 fqs=2600",
    "rcu: \t(t=5250 jiffies g={gp} q=56 ncpus=2)",
    "RIP: 0010:{place}+0x10/0x20",
)


@pytest.mark.parametrize(
    "date",
    [
        "Nov 24 02:{m:02}:{s:02} web7 kernel: ",
        "[Tue Nov 24 02:{m:02}:{s:02} 2026] ",
        "2026-11-24T02:{m:02}:{s:02}+00:00 web7 kernel: ",
        "Tue 2026-11-24 02:{m:02}:{s:02} UTC web7 kernel: ",
        "<4>1 2026-11-24T02:{m:02}:{s:02}Z web7 kernel - - - ",
    ],
)
@pytest.mark.parametrize("consoles", [1, 2])
def test_in_a_log_with_dates_only_a_banner_is_another_boot_too(date, consoles):
    told = [(0, 0, BOOT)]
    told += [(12, 6, text.format(gp=123456, place="foo")) for text in STALL]
    told += [(12, 20, BOOT), (12, 20, "Command line: root=/dev/sda")]
    told += [(12, 56, text.format(gp=777, place="other_place")) for text in STALL]
    lines = [(date.format(m=m, s=s) + text + "\n").encode() for m, s, text in told for _ in range(consoles)]
    found, log = scan(lines)
    assert [(each.boot, each.incident.root.frames) for each in found] == [(1, ("foo",)), (2, ("other_place",))]
    assert [each.incident.ended_by for each in found] == ["reboot", ""] and log.boots == 2
    assert [each.incident.duration.high for each in found] == [21.0, 21.0]


def test_a_log_with_dates_only_that_stands_there_twice_is_one_incident_though_a_boot_begins_with_its_copy():
    texts = [BOOT, "watchdog: Enabled", *(text.format(gp=1, place="foo") for text in STALL)]
    lines = [f"Nov 24 02:12:06 web7 kernel: {text}\n".encode() for text in texts]
    (found,), log = scan([*lines, *lines])
    assert shown([found]) == [[3, 9]] and (log.copies, log.boots) == (1, 2)


def test_what_a_person_reads_of_dmesg_has_no_times_and_keeps_its_stack_and_its_boots():
    one = ["[Nov24 02:00] " + BOOT, *("[  +0.000123] " + text.format(gp=1, place="foo") for text in STALL)]
    two = ["[Nov24 02:12] " + BOOT, *("[ +36.000123] " + text.format(gp=2, place="other") for text in STALL)]
    found, _ = scan([(text + "\n").encode() for text in (*one, *two)])
    assert [(each.boot, each.incident.root.frames) for each in found] == [(1, ("foo",)), (2, ("other",))]


def test_a_fall_of_the_time_is_another_boot_though_its_first_lines_are_lost():
    early, late = b"[  100.000000] ", b"[ 5000.000000] "
    line = b"watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]\n"
    found, _ = scan([late + line, early + line])
    assert [each.boot for each in found] == [1, 2]


def test_cpus_that_print_at_once_are_told_apart_by_their_callers():
    one, other = (console("softlockup-guest-spin", caller=b"[    C%d] " % cpu) for cpu in (1, 3))
    other = [
        line.replace(b"CPU#1", b"CPU#3").replace(b"CPU: 1", b"CPU: 3").replace(b":137]", b":139]") for line in other
    ]
    other = [line.replace(b"hyplab_burn", b"another_burn") for line in other]
    mixed = [line for pair in zip(one, other, strict=True) for line in pair]
    (found,), _ = scan(mixed)
    frames = {each.cpus: each.frames[0] for each in found.incident.reports}
    assert frames == {(1,): "hyplab_burn", (3,): "another_burn"}


def test_a_head_that_is_cut_off_leaves_a_damaged_stall():
    lines = console("rcu-stall-guest-spin-default")
    (at,) = (place for place, line in enumerate(lines) if b"self-detected" in line)
    (found,), _ = scan(lines[at + 1 :])
    assert found.incident.kind == "rcu_stall" and found.incident.corrupted


def test_context_before_a_report_is_evidence_and_alone_is_nothing():
    context = b"[   14.000000] sched: RT throttling activated\n"
    assert scan([context] * 3)[0] == []
    lines = console("softlockup-guest-spin")
    (at,) = starts(lines)
    (found,), _ = scan([*lines[: at - 1], context, *([b"[   14.100000] text\n"] * 50), *lines[at - 1 :]])
    assert any("RT throttling" in note for note in found.incident.root.notes)


LOCKUP = b"watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:137]\n"


@pytest.mark.parametrize(
    "date",
    [
        b"[Tue Nov 24 %02d:12:%02d 2026] ",
        b"Nov 24 %02d:12:%02d host kernel: ",
        b"2026-11-24T%02d:12:%02d+00:00 host kernel: ",
        b"2026-11-24 %02d:12:%02d.123 host kernel: ",
    ],
)
def test_the_dates_of_a_log_without_times_say_what_is_one_stall(date):
    filler = [b"other text\n"] * 1000
    found, log = scan([date % (2, 6) + LOCKUP, *filler, date % (2, 34) + LOCKUP, date % (9, 34) + LOCKUP])
    assert shown(found) == [[1, 1002], [1003]] and log.boots == 1
    assert found[0].incident.duration.high == pytest.approx(50, abs=0.01)


def test_an_end_that_comes_long_after_the_report_ends_it():
    lock = b"smp: csd: %b non-responsive CSD lock (#1) on CPU#0, waiting %d ns for CPU#02 do_sync_core+0x0/0x30(0x0).\n"
    lines = [b"[  100.000000] " + lock % (b"Detected", 5 * 10**9), b"[  105.000000] " + lock % (b"Continued", 10**10)]
    end = b"[  111.000000] smp: csd: CSD lock (#1) got unstuck on CPU#02, CPU#0 released the lock.\n"
    (found,), _ = scan([*lines, *([b"other text\n"] * 500), end])
    assert (found.incident.kind, found.incident.ended_by, found.incident.last_place) == ("csd_stall", "end-line", 503)
    (found,), _ = scan(lines)
    assert (found.incident.state, found.incident.ended_by) == ("open", "")


def test_several_detectors_and_the_panic_are_one_failure_and_the_next_boot_another():
    lines = [
        b"[  300.000000] watchdog: BUG: soft lockup - CPU#3 stuck for 23s! [a:1]\n",
        b"[  300.100000] rcu: INFO: rcu_sched self-detected stall on CPU\n",
        b"[  300.100100] rcu: \t3-....: (5200 ticks this GP) idle=0d5/1/0x4000000000000000 softirq=11/11 fqs=2600\n",
        b"[  300.100200] rcu: \t(t=5252 jiffies g=77 q=10)\n",
        b"[  302.000000] Kernel panic - not syncing: softlockup: hung tasks\n",
        b"[    0.000000] Linux version 6.1.0 (x) #1\n",
        b"[    9.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 5s! [b:2]\n",
    ]
    first, second = scan(lines)[0]
    assert [each.kind for each in first.incident.start_lines] == ["soft_lockup", "rcu_stall", "panic"]
    assert first.incident.panicked and first.incident.ended_by == "reboot" and first.incident.cpus == (3,)
    assert shown([second]) == [[7]] and second.boot == 2


PANIC = [
    b"[   50.000000] BUG: unable to handle page fault for address: ffffc90000d3b000\n",
    b"[   50.000400] Oops: 0002 [#1] PREEMPT SMP NOPTI\n",
    b"[   50.000500] CPU: 2 PID: 777 Comm: modprobe Tainted: G           OE      6.1.0-18-amd64 #1\n",
    b"[   50.000700] RIP: 0010:hyplab_crash+0x12/0x20 [hyplab]\n",
    b"[   50.002100] Kernel panic - not syncing: Fatal exception\n",
    b"[   50.002300] ---[ end Kernel panic - not syncing: Fatal exception ]---\n",
]


def test_a_panic_that_nothing_foretold_is_an_incident():
    ((found,), log) = scan([*PANIC, b"[    0.000000] Linux version 6.1.0 (x) #1\n"])
    incident = found.incident
    assert (incident.kind, incident.panicked, incident.ended_by, incident.cpus) == ("panic", True, "reboot", (2,))
    assert (incident.first_place, incident.last_place, incident.root.module) == (1, 6, "hyplab")
    assert len(incident.start_lines) == 1 and log.near == 0
    # One of which the kernel did not die is none.
    assert scan(PANIC[:4])[0] == []


def test_text_about_panics_is_none():
    told = b"Then it says Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)\n"
    found, log = scan([told])
    assert (found, log.near) == ([], 1)


@pytest.mark.parametrize("noise", [b"\0\0\0", b"\xff\xfe", "é".encode()])
def test_noise_of_a_serial_line_in_front_hides_nothing(noise):
    (found,), _ = scan([noise + b"[  100.000000] " + LOCKUP])
    assert found.incident.cpus == (1,)


def test_a_line_that_lost_its_time_joins_its_own_stall_only():
    rcu = b"rcu: INFO: rcu_sched detected stalls on CPUs/tasks:\n"
    row = b"[  100.000000] rcu: \t1-...0: (0 ticks this GP) idle=9cb/1/0x40000000 softirq=1/1 fqs=%d\n"
    found, _ = scan([rcu, row % 1049, b"[  163.000000] " + rcu, row.replace(b"100.", b"163.") % 3701])
    assert shown(found) == [[1, 3]]
    found, _ = scan([rcu, b"[ 7000.000000] " + LOCKUP])
    assert shown(found) == [[1], [2]]


NEGATIVES = [
    b"watchdog: Enabled. Permanently consumes one hw-PMU counter.\n",
    b"NMI watchdog: Enabled. Permanently consumes one hw-PMU counter.\n",
    b"rcu: \tRCU CPU stall warnings timeout set to 60 (rcu_cpu_stall_timeout).\n",
    b"Installing 9P2000 support\n",
    b"[   12.000000] softdog: initialized. soft_noboot=0 soft_margin=60 sec soft_panic=0\n",
    b"Kernel command line: softlockup_panic=1 hung_task_panic=1 nmi_watchdog=panic\n",
    b"Nov 24 02:12:06 host rule[99]: pattern `BUG: soft lockup - CPU#0 stuck for 22s! [a:1]`\n",
    b"daemon:warn: watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]\n",
    b'The kernel prints "INFO: task blocked for more than 120 seconds" then.\n',
    b'    - "blocked for more than"\n',
    b"[   99.000000] usb 1-1: device firmware lockup, resetting\n",
    b"[   99.100000] INFO: task a:1 blocked on a mutex likely owned by task b:2.\n",
    b"12,7,99000000,-;watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]\n",
    b"[   99.200000] sched: RT throttling activated\n",
    b"[   99.300000] perf: interrupt took too long (2506 > 2500), lowering kernel.perf_event_max_sample_rate to 79000\n",
]  # fmt: skip


@pytest.mark.parametrize("line", NEGATIVES)
def test_what_only_looks_like_a_report_is_none(line):
    assert scan([line])[0] == []


@settings(max_examples=40)
@given(st.sampled_from(sorted(EXPECTED)), st.lists(st.integers(0, 1 << 14), max_size=8), st.booleans())
def test_how_a_log_is_cut_into_blocks_changes_no_byte(name, cuts, as_text):
    lines = console(name) if as_text else (CAPTURES / f"{name}.kmsg").read_bytes().splitlines(keepends=True)
    size = sum(map(len, lines))
    whole, _ = scan(lines)
    cut, log = scan(lines, *sorted(each for each in cuts if each < size))
    assert [codec.encode(each.incident) for each in cut] == [codec.encode(each.incident) for each in whole]
    assert log.lines == len(lines)


def test_line_numbers_are_exact_though_most_lines_are_never_split():
    rng = random.Random(7)
    filler = [b"x" * rng.randrange(200) + b"\n" for _ in range(50_000)]
    lines = [
        *filler,
        *console("softlockup-guest-spin"),
        *filler,
        *console("hungtask-guest-mutex"),
        *filler[:-1],
        b"cut",
    ]
    found, log = scan(lines, *range(1 << 16, sum(map(len, lines)), 1 << 16))
    assert shown(found) == [starts(lines)[:1], starts(lines)[1:]]
    assert log.lines == len(lines)


def test_a_line_without_an_end_takes_no_memory_and_hides_nothing_behind_it():
    log = LogScan()
    for _ in range(40):
        assert log.feed(b"stall" * 100_000) == []
        assert len(log._carry) <= 2 << 20
    log.feed(b"\n" + b"".join(console("softlockup-guest-spin")))
    (found,) = log.close()
    assert found.incident.first_place == 2 + [us for us, _ in records("softlockup-guest-spin")].index(14554514)


def test_many_failures_are_given_out_before_the_end():
    log, early = LogScan(), []
    line = b"[%6d.000000] watchdog: BUG: soft lockup - CPU#%d stuck for 23s! [sh:137]\n"
    for i in range(6000):
        early += log.feed(line % (1000 + 100 * i, i % 4))
    late = log.close()
    assert len(early) > 1000 and len(early) + len(late) == 6000
    assert [each.incident.first_place for each in [*early, *late]] == list(range(1, 6001))


def lockups(count, apart_s=5000):
    """Return lines of a log in which CPUs stand still again and again, each an incident of its own."""
    return [
        b"[%5d.000000] watchdog: BUG: soft lockup - CPU#%d stuck for 22s! [x:%d]\n" % (n * apart_s + 9, n % 64, n + 1)
        for n in range(count)
    ]


@pytest.mark.parametrize("bound", ["HELD_MAX", "HELD_REPORTS_MAX", "HELD_START_LINES_MAX"])
def test_of_more_than_is_held_the_oldest_are_given_out_before_the_end(monkeypatch, bound):
    monkeypatch.setattr(module, bound, 100)
    log, early = LogScan(), []
    lines = lockups(500)
    for at in range(0, len(lines), 50):
        early += log.feed(b"".join(lines[at : at + 50]))
        assert len(log._found) <= 100 + module._LIMITS.open_max
    found = [*early, *log.close()]
    assert [each.incident.first_place for each in found] == list(range(1, 501))
    assert 300 <= len(early) < 500


def test_a_copy_of_what_was_given_out_is_still_a_copy(monkeypatch):
    monkeypatch.setattr(module, "HELD_MAX", 10)
    lines = lockups(20)
    found, log = scan([*lines, *lines], len(b"".join(lines)))
    assert log.copies >= 10
    assert len(found) == 40 - log.copies


def test_copies_add_no_more_start_lines_than_an_incident_has(monkeypatch):
    monkeypatch.setattr(module, "_LIMITS", module._LIMITS._replace(start_lines_max=3))
    (line,) = lockups(1)
    again = b"[    0.000000] Linux version 6.1.0 (a@b) #1\n"
    (found,), log = scan([each for _ in range(10) for each in (again, line)])
    assert log.copies == 9
    assert (len(found.incident.start_lines), found.incident.dropped_start_lines) == (3, 7)


@pytest.mark.parametrize("consoles", [1, 2])
def test_an_incident_has_no_more_start_lines_than_its_limit_and_counts_each_beyond_once(monkeypatch, consoles):
    monkeypatch.setattr(module, "_LIMITS", module._LIMITS._replace(start_lines_max=100))
    again = [
        b"[%5d.000000] watchdog: BUG: soft lockup - CPU#1 stuck for %ds! [sh:137]\n" % (1000 + 20 * n, 22 + 20 * n)
        for n in range(150)
    ]
    (found,), _ = scan([line for line in again for _ in range(consoles)])
    assert len(found.incident.start_lines) == 100
    assert found.incident.dropped_start_lines == 150 * consoles - 100
