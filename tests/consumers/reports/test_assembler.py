import copy
import json
import random

import pytest

from consumers.reports import assembler as module
from consumers.reports.assembler import AWAITED_NS, QUIET_NS, ReportAssembler
from consumers.reports.codec import to_json
from consumers.reports.kmsg_record import kmsg_line
from consumers.reports.opened import LINES_SIZE_MAX
from consumers.reports.report import Kind, Line, Seconds, Shape, panic_reason
from tests.consumers.reports._corpus import KERNEL_NEGATIVES, LINES, TEXT_NEGATIVES, USERSPACE_NEGATIVES
from tests.consumers.reports._lines import CAPTURES, S, capture, record, records, text

SOFT = "watchdog: BUG: soft lockup - CPU#{} stuck for {}s! [{}:{}]"


def assemble(lines, hz=None):
    assembler = ReportAssembler(hz)
    changes = assembler.feed(lines) + assembler.close()
    return [change.report for change in changes if change.what == "opened"]


def says(report):
    low = None if report.duration is None else report.duration.low
    return (report.kind.value, report.cpus, report.task, report.pid, low, report.shape and report.shape.value)


@pytest.mark.parametrize(
    ("name", "reports"),
    [
        ("softlockup-guest-spin", [("soft_lockup", (1,), "hyplab_spin", 137, 8.0, None)]),
        ("softlockup-host-freeze-default", [("soft_lockup", (1,), "sh", 137, 23.0, None)]),
        ("softlockup-host-freeze-thresh3", [("soft_lockup", (1,), "sh", 137, 9.0, None)]),
        (
            "softlockup-victim-ipi-host-freeze",
            [("soft_lockup", (0,), "insmod", 138, 8.0, None), ("soft_lockup", (1,), "sh", 137, 14.0, None)],
        ),
        ("rcu-stall-guest-spin-default", [("rcu_stall", (1,), "hyplab_spin", 316, 21.0, "A")]),
        ("rcu-stall-guest-irqs-off", [("rcu_stall", (1,), "hyplab_spin", 304, 8.008, "F")]),
        ("rcu-stall-host-freeze", [("rcu_stall", (1,), "sh", 137, 8.008, "C")]),
        ("kmsg-clock-backwards", [("rcu_stall", (1,), "sh", 137, 8.016, "C")]),
        (
            "hungtask-guest-mutex",
            [
                ("hung_task", (), "hyplab_hold", 137, 5.0, None),
                ("hung_task", (), "hyplab_wait", 138, 5.0, None),
                ("hung_task", (), "hyplab_hold", 137, 6.0, None),
                ("hung_task", (), "hyplab_wait", 138, 6.0, None),
            ],
        ),
        (
            "hungtask-host-iothread-freeze",
            [("hung_task", (), "dd", 145, 6.0, None), ("hung_task", (), "sync", 147, 6.0, None)],
        ),
        (
            "hungtask-host-storage-throttle",
            [
                ("hung_task", (), "dd", 147, 6.0, None),
                ("hung_task", (), "sync", 148, 6.0, None),
                ("hung_task", (), "dd", 147, 8.0, None),
                ("hung_task", (), "sync", 148, 8.0, None),
            ],
        ),
        ("vm-paused-30s", []),
    ],
)
def test_a_real_log_has_its_reports(name, reports):
    found = assemble(capture(f"{name}.kmsg"))
    assert [says(report) for report in found] == reports
    for report in found:
        assert (report.release, report.corrupted, report.structured) == ("6.1.0-56-amd64", False, True)
        assert report.taint.startswith("GOE")


def test_the_body_of_a_real_report_is_read():
    (report,) = assemble(capture("rcu-stall-guest-spin-default.kmsg"))
    assert report.frames == ("hyplab_burn", "hyplab_spin", "kthread", "ret_from_fork")
    assert (report.module, report.flavor, report.by) == ("hyplab", "rcu_preempt", None)
    assert report.hardware.startswith("QEMU Standard PC")
    wanted = {"ticks": 5142, "fqs": 2584, "nest": 1, "jiffies": 5250, "gp": 681, "queued": 14957, "ncpus": 2}
    assert {key: report.numbers[key] for key in wanted} == wanted
    victim, _ = assemble(capture("softlockup-victim-ipi-host-freeze.kmsg"))
    assert victim.frames[:2] == ("smp_call_function_many_cond", "on_each_cpu_cond_mask")
    hold, *_ = assemble(capture("hungtask-guest-mutex.kmsg"))
    assert hold.frames[:5] == ("__schedule", "schedule", "schedule_timeout", "msleep", "hyplab_hold")


def test_a_panic_that_nothing_foretold_is_a_report_with_its_own_stack():
    (report,) = assemble(text((CAPTURES / "panic.dmesg-ramoops-0.txt").read_text()))
    assert (report.kind, panic_reason(report), report.corrupted) == (Kind.PANIC, "hyplab: requested panic", False)
    assert (report.cpus, report.task, report.module) == ((0,), "busybox", "hyplab")
    assert report.frames[0] == "do_set.cold"


OOPS = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000010",
    "#PF: supervisor write access in kernel mode",
    "#PF: error_code(0x0002) - not-present page",
    "PGD 0 P4D 0 ",
    "Oops: 0002 [#1] PREEMPT SMP NOPTI",
    "CPU: 2 PID: 777 Comm: modprobe Tainted: G           OE      6.1.0-18-amd64 #1  Debian 6.1.76-1",
    "RIP: 0010:hyplab_crash+0x12/0x20 [hyplab]",
    "Call Trace:",
    " <TASK>",
    " ? page_fault_oops+0x159/0x3c0",
    " do_one_initcall+0x58/0x210",
    " </TASK>",
    "---[ end trace 0000000000000000 ]---",
    "RIP: 0010:hyplab_crash+0x12/0x20 [hyplab]",
]
FATAL = "Kernel panic - not syncing: Fatal exception"


@pytest.mark.parametrize("caller", ["", "T777"])
def test_what_a_kernel_dies_of_is_its_panics(caller):
    lines = records([(50.0, words, caller) for words in (*OOPS, FATAL, f"---[ end {FATAL} ]---")])
    assembler = ReportAssembler()
    assert assembler.feed(lines[: len(OOPS)]) == []
    # Whoever goes on elsewhere knows of it.
    assembler = ReportAssembler.restore(json.loads(json.dumps(assembler.state())))
    (opened,) = assembler.feed(lines[len(OOPS) :])
    report = opened.report
    assert (opened.what, report.kind, report.place, panic_reason(report)) == (
        "opened",
        Kind.PANIC,
        100,
        "Fatal exception",
    )
    assert (report.cpus, report.task, report.pid, report.module) == ((2,), "modprobe", 777, "hyplab")
    assert report.frames == ("hyplab_crash", "do_one_initcall")
    assert report.notes[:2] == (OOPS[0], OOPS[4])
    assert (report.corrupted, [change.what for change in assembler.close()]) == (False, ["closed"])


def test_an_oops_that_the_kernel_lives_on_after_is_none():
    lines = records([(50.0, words) for words in OOPS] + [(60.0, "usb 1-1: new device"), (61.0, FATAL)])
    assembler = ReportAssembler()
    assert assembler.feed(lines[:-1]) == []
    assert assembler.open_reports == ()
    (opened,) = assembler.feed(lines[-1:])
    assert (opened.report.cpus, opened.report.frames) == ((), ())


def test_errors_that_a_kernel_lived_on_with_for_long_begin_no_panic():
    error = "mce: [Hardware Error]: Machine check events logged"
    lines = [(float(at_s), f"{error} {at_s}") for at_s in range(3600)]
    (report,) = assemble(records([*lines, (3600.0, "Kernel panic - not syncing: Fatal machine check")]))
    assert (report.kind, report.dropped_lines) == (Kind.PANIC, 0)
    assert report.ts_ns >= 3560 * S


def test_the_panic_of_another_cpu_is_not_of_this_oops():
    lines = records([(50.0, words, "T777") for words in OOPS] + [(50.0, FATAL, "T5")])
    (report,) = assemble(lines)
    assert (report.place, report.frames) == (100 + len(OOPS), ())


def test_oopses_of_a_kernel_that_lives_close_no_report():
    lines = [(50.0, SOFT.format(cpu, 25, "sh", cpu), f"C{cpu}") for cpu in range(16)]
    assembler = ReportAssembler()
    assembler.feed(records([*lines, (50.1, OOPS[0], "T777")]))
    assert (len(assembler.open_reports), assembler.opened_in_excess) == (16, 0)


def test_the_last_line_of_a_panic_begins_none_and_stands_for_one_alone():
    end = "---[ end Kernel panic - not syncing: Fatal exception ]---"
    (report,) = assemble(records([(50.0, FATAL), (50.1, end)]))
    assert (len(report.lines), report.corrupted) == (2, False)
    (report,) = assemble(records([(50.1, end)]))
    assert (report.kind, panic_reason(report), report.corrupted) == (Kind.PANIC, "Fatal exception", True)
    # Behind a prefix that nobody knows, too.
    (report,) = assemble(text(f"[   50.0] {FATAL}\n[   50.1] (0)[7:sh]{end}"))
    assert report.place == 1


def test_s390_says_where_it_was_in_its_status_word():
    lines = [
        SOFT.format(3, 22, "loop", 1234),
        "CPU: 3 PID: 1234 Comm: loop Tainted: G           OE     5.14.0-427.el9.s390x #1",
        "Krnl PSW : 0704e00180000000 000003ff8012a04c (hyplab_burn+0x4c/0x80 [hyplab])",
        "           R:0 T:1 IO:1 EX:1 Key:0 M:1 W:0 P:0 AS:3 CC:2 PM:0 RI:0 EA:3",
        "Call Trace:",
        "([<000003ff8012a040>] hyplab_burn+0x40/0x80 [hyplab])",
        " [<00000000f5a1b2c4>] kthread+0x12c/0x130 ",
        "Last Breaking-Event-Address:",
        " [<000003ff8012a050>] hyplab_other+0x50/0x80 [hyplab]",
    ]
    (report,) = assemble(records([(10.0, words) for words in lines]))
    assert (report.frames, report.module) == (("hyplab_burn", "kthread"), "hyplab")
    lines[2] = "User PSW : 0705100180000000 000003ff9a2b3c4d"
    (report,) = assemble(records([(10.0, words) for words in lines[:4]]))
    assert (report.frames, report.numbers["in_user_space"]) == ((), 1)


def test_a_backtrace_that_comes_seconds_later_still_belongs():
    lines = capture("rcu-stall-host-freeze.kmsg")
    assembler = ReportAssembler()
    (report,) = assemble(lines)
    assert report.last_ts_ns - report.ts_ns > 3 * QUIET_NS
    # Nobody waits for it for ever.
    asked = next(i for i, line in enumerate(lines) if line.text.startswith("Sending NMI"))
    changes = assembler.feed(lines[: asked + 1])
    asked_ns = lines[asked].ts_ns
    assert assembler.tick(asked_ns + AWAITED_NS) == []
    assert assembler.tick(asked_ns + AWAITED_NS + 1) == [("closed", changes[0].report)]


def test_a_report_opens_with_its_start_line_and_closes_after_two_seconds():
    lines = capture("softlockup-guest-spin.kmsg")
    start = next(i for i, line in enumerate(lines) if "soft lockup" in line.text)
    assembler = ReportAssembler()
    assert assembler.feed(lines[:start]) == []
    (opened,) = assembler.feed([lines[start]])
    assert (opened.what, opened.report.cpus, opened.report.frames) == ("opened", (1,), ())
    (updated,) = assembler.feed(lines[start + 1 :])
    assert updated.what == "updated"
    assert updated.report is opened.report
    assert opened.report.frames[0] == "hyplab_burn"
    assert assembler.open_reports == (opened.report,)
    last_ns = lines[-1].ts_ns
    assert assembler.tick(last_ns + QUIET_NS) == []
    assert assembler.tick(last_ns + QUIET_NS + 1) == [("closed", opened.report)]
    assert assembler.tick(last_ns + 2 * QUIET_NS) == []


def test_cpus_that_print_at_once_are_told_apart_by_their_callers():
    lines = records(
        [
            (10.0, SOFT.format(1, 22, "one", 11), "C1"),
            (10.0, SOFT.format(2, 23, "two", 22), "C2"),
            (10.1, "CPU: 2 PID: 22 Comm: two Not tainted 6.6.1 #1", "C2"),
            (10.1, "CPU: 1 PID: 11 Comm: one Not tainted 6.6.1 #1", "C1"),
            (10.2, "RIP: 0010:first+0x1/0x2", "C1"),
            (10.2, "RIP: 0010:second+0x1/0x2 [mod]", "C2"),
            (10.3, "Call Trace:", "C2"),
            (10.3, "Call Trace:", "C1"),
            (10.4, " first_caller+0x1/0x2", "C1"),
            (10.4, " usb_said_something+0x1/0x2", "T77"),
            (10.5, " second_caller+0x1/0x2", "C2"),
        ]
    )
    one, two = assemble(lines)
    assert (one.frames, one.module, one.task) == (("first", "first_caller"), "", "one")
    assert (two.frames, two.module, two.task) == (("second", "second_caller"), "mod", "two")
    assert len(one.lines) == len(two.lines) == 5


def test_without_callers_a_line_goes_to_the_cpu_that_it_names():
    lines = records(
        [
            (10.0, "watchdog: Watchdog detected hard LOCKUP on cpu 1"),
            (10.0, "watchdog: Watchdog detected hard LOCKUP on cpu 2"),
            (10.1, "CPU: 1 PID: 11 Comm: one Not tainted 6.6.1 #1"),
            (10.2, "RIP: 0010:first+0x1/0x2"),
            (10.3, "CPU: 2 PID: 22 Comm: two Not tainted 6.6.1 #1"),
            (10.3, "RIP: 0010:second+0x1/0x2"),
        ]
    )
    one, two = assemble(lines)
    assert (one.task, one.frames) == ("one", ("first",))
    assert (two.task, two.frames) == ("two", ("second",))


def test_the_backtrace_of_an_accused_cpu_is_its_reports_whoever_prints_it():
    lines = records(
        [
            (10.0, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:", "C0"),
            (10.0, "rcu: \t3-...0: (4 ticks this GP) idle=d514/1/0x4000000000000000 softirq=1/2 fqs=3999", "C0"),
            (10.0, "rcu: \t(detected by 0, t=21004 jiffies, g=717, q=5774 ncpus=4)", "C0"),
            (10.0, "Sending NMI from CPU 0 to CPUs 3:", "C0"),
            (10.1, "NMI backtrace for cpu 3", "T30"),
            (10.1, "RIP: 0010:stuck_here+0x1/0x2", "T30"),
        ]
    )
    (report,) = assemble(lines)
    assert (report.cpus, report.by, report.frames, report.shape) == ((3,), 0, ("stuck_here",), Shape.SILENT)
    assert report.duration == Seconds(21.004, 21.004)


def test_the_stack_of_the_grace_period_thread_is_not_the_accused():
    lines = records(
        [
            (10.0, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
            (10.0, "rcu: \t3-...!: (0 ticks this GP) idle=d514/0/0x0 softirq=1/2 fqs=0 (false positive?)"),
            (10.0, "rcu: \t5-...!: (2 ticks this GP) idle=d514/0/0x0 softirq=1/2 fqs=0"),
            (10.0, "rcu: \t(detected by 0, t=5252 jiffies, g=717, q=5774 ncpus=8)"),
            (
                10.0,
                "rcu: rcu_preempt kthread starved for 5240 jiffies! g717 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x402 ->cpu=3",
            ),
            (10.0, "rcu: RCU grace-period kthread stack dump:"),
            (10.0, "task:rcu_preempt     state:I stack:0     pid:16    tgid:16    ppid:2      flags:0x00000008"),
            (10.0, " __schedule+0x1/0x2"),
            (10.0, " rcu_gp_fqs_loop+0x1/0x2"),
        ]
    )
    (report,) = assemble(lines)
    assert (report.cpus, report.frames, report.shape) == ((3, 5), (), Shape.NOTHING_RAN)
    assert report.numbers["kthread_starved"] == 5240
    assert report.numbers["kthread_state"] == 0x402
    assert report.numbers["cpus_listed"] == 2
    assert "(false positive?)" in report.notes


def test_a_blocked_reader_is_named():
    lines = records(
        [
            (10.0, "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:"),
            (10.0, "rcu: \tTasks blocked on level-0 rcu_node (CPUs 0-1): P116/2:b..l"),
            (10.0, "rcu: \t(detected by 1, t=2102 jiffies, g=12741, q=1154)"),
            (10.0, "task:irq/31-arm-irq1 state:D stack:0     pid:116   ppid:2      flags:0x00000000"),
            (10.0, "[<8064b97f>] (__schedule) from [<8064bb01>] (schedule+0x8d/0xc2)"),
            (10.0, "[<8064fa65>] (fsl_ifc_cmdfunc [fsl_ifc]) from [<804ba353>] (nand_read+0x6f/0x178)"),
        ]
    )
    (report,) = assemble(lines)
    assert (report.pid, report.shape, report.frames) == (116, Shape.NO_ROW, ("__schedule", "fsl_ifc_cmdfunc"))
    assert (report.module, report.duration) == ("fsl_ifc", Seconds(21.02, 21.02))


def test_the_holder_of_a_lock_is_body_and_its_stack_not_the_victims():
    lines = records(
        [
            (10.0, "INFO: task cat:1437 blocked for more than 122 seconds."),
            (10.0, "task:cat             state:D stack:0     pid:1437  tgid:1437  ppid:1007   flags:0x00000004"),
            (10.0, " __schedule+0x1/0x2"),
            (10.0, " read_dummy+0x1/0x2 [hung_task_sem]"),
            (10.0, "INFO: task cat:1437 blocked on a semaphore likely last held by task dog:1436"),
            (10.0, "task:dog             state:S stack:0     pid:1436  tgid:1436  ppid:1007   flags:0x00000004"),
            (10.0, " msleep_interruptible+0x1/0x2"),
        ]
    )
    (report,) = assemble(lines)
    assert (report.task, report.pid, report.holder) == ("cat", 1437, "dog:1436")
    assert report.frames == ("__schedule", "read_dummy")


@pytest.mark.parametrize(
    ("guessed", "below", "module"),
    [
        (["hyplab_burn"], [], "hyplab"),
        ([], [" hyplab_spin+0x2c/0x70 [hyplab]"], "hyplab"),
        (["old"], [" kthread+0x1/0x2"], ""),
    ],
    ids=["all a guess", "unwound", "unwound, and a leftover"],
)
def test_a_stack_that_the_kernel_could_only_guess_at_still_names_a_module(guessed, below, module):
    lines = [
        SOFT.format(1, 3, "hyplab_spin", 692),
        "CPU: 1 PID: 692 Comm: hyplab_spin Tainted: G           OEL     6.1.0-57-amd64 #1  Debian 6.1.192-3",
        "RIP: 0010:__x86_indirect_thunk_array+0x0/0x20",
        "Call Trace:",
        " ? ktime_get_mono_fast_ns+0x3d/0x90",
        *(f" ? {name}+0x1a/0x30 [hyplab]" for name in guessed),
        *below,
        " ? kthread+0xda/0x100",
    ]
    (report,) = assemble(records([(115.1, line) for line in lines]))
    assert (report.frames[0], report.module) == ("__x86_indirect_thunk_array", module)


@pytest.mark.parametrize("caller", ["", "C3"])
def test_the_stack_behind_a_panic_at_a_lockup_is_the_lockups(caller):
    lines = records(
        [
            (128.0, SOFT.format(3, 25, "swapper/3", 0), caller),
            (128.0, "Kernel panic - not syncing: softlockup: hung tasks", caller),
            (128.0, "CPU: 3 PID: 0 Comm: swapper/3 Tainted: G             L     6.5.3-arch1-1 #1", caller),
            (128.0, "Call Trace:", caller),
            (128.0, " dump_stack_lvl+0x47/0x60", caller),
            (128.0, " panic+0x180/0x330", caller),
            (128.0, " asm_sysvec_apic_timer_interrupt+0x1a/0x20", caller),
            (128.0, "RIP: 0010:__do_softirq+0x7c/0x2c8", caller),
        ]
    )
    soft, panic = assemble(lines)
    assert (soft.frames, soft.taint, soft.release) == (("__do_softirq",), "GL", "6.5.3-arch1-1")
    assert (panic.kind, len(panic.lines)) == (Kind.PANIC, 1)
    # With no lockup before it the stack is the panic's own.
    (alone,) = assemble(lines[1:])
    assert (alone.cpus, alone.frames) == ((3,), ("__do_softirq",))


def test_two_of_a_kind_printed_into_each_other_are_not_three():
    lines = [
        (10.0, "INFO: rcu_sched self-detected stall on CPU"),
        (10.0, "INFO: rcu_sched self-detected stall on CPU"),
        (10.0, "\t(t=5250 jiffies g=681 c=680 q=1)"),
        (10.0, "\t(t=5250 jiffies g=681 c=680 q=2)"),
    ]
    assert [report.kind for report in assemble(records(lines))] == [Kind.RCU_STALL, Kind.RCU_STALL]


def test_a_target_without_the_line_that_named_it_is_a_corrupted_report():
    (report,) = assemble(records([(10.0, "watchdog: CPU 68 Hard LOCKUP")]))
    assert (report.kind, report.cpus, report.corrupted) == (Kind.HARD_LOCKUP, (68,), True)
    others = [(10.0, "watchdog: CPU 12 detected hard LOCKUP on other CPUs 68"), (10.0, "watchdog: CPU 68 Hard LOCKUP")]
    (report,) = assemble(records(others))
    assert (report.by, report.cpus, report.corrupted) == (12, (68,), False)


def test_what_survives_of_a_report_without_its_head_is_a_corrupted_one():
    rest = [
        (10.0, "rcu: \t1-....: (5142 ticks this GP) idle=d7d4/1/0x4000000000000000 softirq=32/32 fqs=2584"),
        (10.0, "rcu: \t(t=5250 jiffies g=681 q=14957 ncpus=2)"),
        (10.0, "rcu: rcu_preempt kthread starved for 5200 jiffies! g681 f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu=1"),
    ]
    for first in range(3):
        (report,) = assemble(records(rest[first:]))
        assert (report.kind, report.corrupted) == (Kind.RCU_STALL, True)
    (report,) = assemble(records(rest))
    assert (report.shape, report.cpus, report.duration) == (Shape.RAN, (1,), Seconds(21.0, 21.0))


def test_a_damaged_start_line_is_a_corrupted_report_and_not_none():
    (report,) = assemble(records([(10.0, "watchdog: BUG: soft lockup - CPU#1 stuck fo")]))
    assert (report.kind, report.cpus, report.corrupted) == (Kind.SOFT_LOCKUP, (1,), True)


def test_a_stall_that_was_cut_is_corrupted():
    head = [
        (10.0, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
        (10.0, "rcu: \t1-....: (5142 ticks this GP) idle=d7d4/1/0x4000000000000000 softirq=32/32 fqs=2584"),
    ]
    (report,) = assemble(records(head))
    assert report.corrupted
    lost = [*head, (10.1, "** 77 printk messages dropped **"), (10.1, "rcu: \t(t=5250 jiffies g=681 q=1 ncpus=2)")]
    (report,) = assemble(records(lost))
    assert report.corrupted
    assert report.numbers["lost"] == 77
    whole = [*head, (10.1, "rcu: \t(t=5250 jiffies g=681 q=1 ncpus=2)")]
    assert not assemble(records(whole))[0].corrupted
    ended = [head[0], (10.0, "rcu: INFO: Stall ended before state dump start")]
    (report,) = assemble(records(ended))
    assert (report.ended, report.corrupted) == (True, False)


def test_a_gap_in_the_numbers_matters_only_where_something_is_missing():
    start = record(100, 10.0, SOFT.format(1, 22, "one", 11))
    later = record(200, 10.1, "usb 1-1: something")
    body = record(101, 10.0, "CPU: 1 PID: 11 Comm: one Not tainted 6.6.1 #1")
    assert assemble([start, later])[0].corrupted
    assert not assemble([start, body, later])[0].corrupted
    assert not assemble([start])[0].corrupted


def test_the_kernels_own_end_is_kept_however_late_it_comes():
    start = "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0, waiting 5001000000 ns for CPU#05 do_nothing+0x0/0x10(0x0)."
    assembler = ReportAssembler()
    (opened,) = assembler.feed([record(1, 10.0, start)])
    report = opened.report
    assert (report.cpus, report.by, report.duration) == ((5,), 0, Seconds(5.001, 5.001))
    assert assembler.tick(20 * S) == [("closed", report)]
    end = record(9, 60.0, "csd: CSD lock (#1) got unstuck on CPU#00, CPU#05 released the lock.")
    assert assembler.feed([record(8, 59.0, end.text.replace("#1", "#2"))]) == []
    assert assembler.feed([end]) == [("updated", report)]
    assert (report.ended, report.last_place) == (True, 9)
    assert assembler.state()["ending"] == []


def test_every_report_again_is_a_report_of_its_own_and_two_give_hz():
    def stall(ts_s, jiffies):
        return [
            (ts_s, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
            (ts_s, "rcu: \t1-....: (99 GPs behind) idle=d7d4/1/0x4000000000000000 softirq=32/32 fqs=2584"),
            (ts_s, f"rcu: \t(t={jiffies} jiffies g=681 q=14957 ncpus=2)"),
        ]

    first, again = assemble(records(stall(30.0, 2502) + stall(60.024, 10008)))
    assert first.duration == Seconds(10.008, 25.02)
    assert again.duration == Seconds(40.032, 40.032)
    (known,) = assemble(records(stall(30.0, 2502)), hz=100)
    assert known.duration == Seconds(25.02, 25.02)


def test_other_kinds_carry_what_their_start_line_says():
    cases = {
        "BUG: workqueue lockup - pool cpus=0-1,7 node=0 flags=0x0 nice=0 stuck for 32s!": (
            Kind.WORKQUEUE_LOCKUP, (0, 1, 7), None, 32.0,
        ),
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-....D P392 } 5250 jiffies s: 645 root: 0x9/.": (
            Kind.RCU_EXP_STALL, (0,), 392, 21.0,
        ),
        'sched_ext: Soft lockup - CPU12 stuck for 21s, disabling "simple"': (Kind.SCX_LOCKUP, (12,), None, 21.0),
        "watchdog: CPU 12 detected hard LOCKUP on other CPUs 3,5-6": (Kind.HARD_LOCKUP, (3, 5, 6), None, None),
        "INFO: rcu_sched_state detected stall on CPU 2 (t=15000 jiffies)": (Kind.RCU_STALL, (2,), None, 60.0),
        "INFO: rcu_tasks detected stalls on tasks:": (Kind.RCU_TASKS_STALL, (), None, None),
        "clocksource: Marking clocksource tsc unstable due to inter CPU skew": (
            Kind.CLOCKSOURCE_UNSTABLE, (), None, None,
        ),
        "Kernel panic - not syncing: RCU Stall": (Kind.PANIC, (), None, None),
    }  # fmt: skip
    for words, wanted in cases.items():
        (report,) = assemble(records([(10.0, words)]))
        assert (report.kind, report.cpus, report.pid, report.duration and report.duration.low) == wanted
    scx = [
        (10.0, 'sched_ext: BPF scheduler "simple" disabled (runnable task stall)'),
        (10.0, "sched_ext: simple: Web Content[12345] failed to run for 30.250s"),
    ]
    (report,) = assemble(records(scx))
    assert (report.task, report.pid, report.duration) == ("Web Content", 12345, Seconds(30.25, 30.25))


def test_a_stall_of_rcu_tasks_names_the_first_task_that_does_not_yield():
    rows = {
        "INFO: rcu_tasks detected stalls on tasks:": "(____ptrval____): .. nvcsw: 1/1 holdout: 1 idle_cpu: -1/7",
        "INFO: rcu_tasks_trace detected stalls on tasks:": "P2133: ... nesting: 1N cpu: 2",
    }
    for head, row in rows.items():
        task = "task:osnoise/7       state:R  running task     stack:    0 pid: 2133 ppid:     2 flags:0x00004000"
        other = task.replace("2133", "2134").replace("osnoise/7", "osnoise/8")
        (report,) = assemble(records([(10.0, head), (10.0, row), (10.0, task), (10.0, row), (10.0, other)]))
        assert (report.kind, report.task, report.pid) == (Kind.RCU_TASKS_STALL, "osnoise/7", 2133)


def test_what_a_bpf_scheduler_was_disabled_for_belongs_to_its_report():
    stalled = [
        (10.0, 'sched_ext: BPF scheduler "simple" disabled (runnable task stall)'),
        (10.0, "sched_ext: simple: watchdog failed to check in for 30.012s"),
    ]
    (report,) = assemble(records(stalled))
    assert (report.kind, report.duration) == (Kind.SCX_STALL, Seconds(30.012, 30.012))
    locked = [
        (10.0, "sched_ext: Soft lockup - CPU 12 stuck for 15s, disabling BPF scheduler"),
        (10.1, "sched_ext: simple: soft lockup - CPU 12 stuck for 15s"),
    ]
    assembler = ReportAssembler()
    assembler.feed(records(locked))
    (report,) = assembler.open_reports
    assert (len(report.lines), assembler.near_misses) == (2, 0)


def test_two_consoles_print_everything_twice_and_it_counts_once():
    once = [
        "[   12.000000] " + SOFT.format(1, 22, "one", 11),
        "[   12.000100] RIP: 0010:here+0x1/0x2",
        "[   12.000200]  there+0x1/0x2",
    ]
    twice = [line for each in once for line in (each, "console | " + each)]
    blocks = once + once
    for lines in (twice, blocks):
        (report,) = assemble(text("\n".join(lines)))
        assert (report.frames, len(report.lines)) == (("here", "there"), 3)
    bare = [each.partition("] ")[2] for each in twice]
    (report,) = assemble(text("\n".join(bare)))
    assert report.frames == ("here", "there")


def test_a_replay_of_records_changes_nothing():
    lines = capture("softlockup-victim-ipi-host-freeze.kmsg")
    assembler = ReportAssembler()
    assembler.feed(lines)
    before = [to_json(report) for report in assembler.open_reports]
    assert [change.what for change in assembler.feed(lines[-30:])] == []
    assert [to_json(report) for report in assembler.open_reports] == before


def test_text_without_times_is_assembled_by_what_stands_together():
    data = "\n".join(
        [
            SOFT.format(1, 22, "one", 11),
            "RIP: 0010:here+0x1/0x2",
            *[f"something else {i}" for i in range(300)],
            " far_away+0x1/0x2",
            "INFO: task dd:145 blocked for more than 120 seconds.",
            " __schedule+0x1/0x2",
        ]
    )
    soft, hung = assemble(text(data))
    assert (soft.frames, hung.frames) == (("here",), ("__schedule",))
    assert (soft.structured, soft.ts_ns, soft.place, hung.place) == (False, None, 1, 304)
    assert len(soft.lines) < 10


def test_context_is_evidence_and_never_a_report():
    assembler = ReportAssembler()
    before = record(1, 8.0, "sched: RT throttling activated")
    after = record(3, 10.5, "INFO: Future hung task reports are suppressed, see sysctl kernel.hung_task_warnings")
    (opened,) = assembler.feed([before, record(2, 10.0, SOFT.format(1, 22, "one", 11)), after])
    assert opened.report.notes == (before.text, after.text)
    # What was long ago is no context.
    (opened, _) = assembler.feed([record(4, 100.0, SOFT.format(2, 22, "one", 11))])[::-1]
    assert opened.report.notes == ()


def test_a_near_miss_is_counted_and_opens_nothing():
    assembler = ReportAssembler()
    lines = records([(1.0 + i, f"watchdog: CPU{i} soft lockup of a new kind") for i in range(100)])
    assert assembler.feed(lines) == []
    assert assembler.near_misses == 100


def test_what_only_sounds_like_a_report_opens_none():
    assert assemble(records([(10.0 * i, words) for i, words in enumerate(KERNEL_NEGATIVES)])) == []
    assert len(KERNEL_NEGATIVES) >= 27


@pytest.mark.parametrize("words", USERSPACE_NEGATIVES + TEXT_NEGATIVES)
def test_what_userspace_writes_is_no_line_of_the_kernel(words):
    assert kmsg_line(f"12,1,1000000,-;{words}".encode()) is None
    assert kmsg_line(f"30,1,1000000,-,caller=T1;{words}".encode()) is None
    assert (
        text(
            f"Nov 24 02:12:06 host agent[12]: {words}\n<14>[    1.000000] {words}\nuser  :err   : [    1.000000] {words}"
        )
        == []
    )


def test_a_new_line_of_the_same_caller_ends_its_report():
    assembler = ReportAssembler()
    first, second = (
        record(i, 10.0 + i / 10, f"INFO: task t{i}:{i} blocked for more than 120 seconds.", "T33") for i in (1, 2)
    )
    (one,) = assembler.feed([first])
    closed, two = assembler.feed([second])
    assert (closed.what, closed.report) == ("closed", one.report)
    assert two.what == "opened"
    # Another caller's goes on beside it.
    assert [each.what for each in assembler.feed([record(3, 10.3, SOFT.format(1, 22, "one", 11), "C1")])] == ["opened"]
    assert len(assembler.open_reports) == 2


def _all_lines():
    lines = []
    for path in sorted(CAPTURES.glob("*.kmsg")):
        lines += [line._replace(place=len(lines) + i) for i, line in enumerate(capture(path.name))]
    return lines


@pytest.mark.parametrize("seed", range(4))
def test_however_the_lines_are_cut_and_handed_over_the_reports_are_the_same(seed):
    generator = random.Random(seed)
    for path in sorted(CAPTURES.glob("*.kmsg")):
        lines = capture(path.name)
        wanted = [to_json(report) for report in assemble(lines)]
        assembler, at, opened, closed = ReportAssembler(), 0, [], []
        while at < len(lines):
            count = generator.randrange(1, 12)
            changes = assembler.feed(lines[at : at + count])
            opened += [(each.report.kind, each.report.place) for each in changes if each.what == "opened"]
            closed += [each.report for each in changes if each.what == "closed"]
            at += count
            assembler = ReportAssembler.restore(json.loads(json.dumps(assembler.state())))
        closed += [each.report for each in assembler.close()]
        assert [to_json(report) for report in closed] == wanted
        assert opened == [(report.kind, report.place) for report in closed]


def test_state_is_small_and_stands_still_when_it_is_quiet():
    assembler = ReportAssembler()
    lines = _all_lines()
    biggest = 0
    for line in lines:
        assembler.feed([line])
        biggest = max(biggest, len(json.dumps(assembler.state())))
    assert biggest < 64 << 10
    assembler.tick(lines[-1].ts_ns + 1000 * S)
    assert len(json.dumps(assembler.state())) < 800


def test_many_reports_of_long_lines_stay_within_bounds():
    assembler = ReportAssembler()
    place = 0
    for cpu in range(40):
        place += 1
        assembler.feed([record(place, 10.0, SOFT.format(cpu, 22, "x" * 5000, cpu)[:6000], f"C{cpu}")])
        assembler.feed(
            [
                record(place := place + 1, 10.0, f" f{i}+0x1/0x2 ({chr(0x2000 + i) * 900})", f"C{cpu}")
                for i in range(300)
            ]
        )
        assembler.feed([record(place := place + 1, 10.0, f" {'f' * 80}{i}+0x1/0x2", f"C{cpu}") for i in range(300)])
    assert len(assembler.open_reports) == module.OPEN_MAX
    assert assembler.opened_in_excess > 0
    for report in assembler.open_reports:
        assert sum(len(line.text) for line in report.lines) <= LINES_SIZE_MAX
        assert report.dropped_lines > 0
    assert len(json.dumps(assembler.state())) < 256 << 10


def fuzzed(seed, count):
    """Yield lines of the kernel, cut, joined, repeated and out of order, among noise."""
    generator = random.Random(seed)
    corpus = [each[2] for each in LINES] + KERNEL_NEGATIVES + USERSPACE_NEGATIVES
    ts_ns = 0
    for place in range(count):
        words = generator.choice(corpus)
        ts_ns = max(0, ts_ns + generator.randrange(-(10**8), 5 * 10**8))
        match generator.randrange(8):
            case 0:
                words = words[: generator.randrange(len(words) + 1)]
            case 1:
                words += generator.choice(corpus)
            case 2:
                words = "".join(chr(generator.randrange(1, 0x3000)) for _ in range(generator.randrange(40)))
            case 3:
                at = generator.randrange(len(words) + 1)
                words = words[:at] + str(generator.randrange(10**30)) + words[at:]
        caller = generator.choice(["", "", "C0", "C1", "T5", "T" + "9" * 12, "C", "Cx"])
        known = generator.random() < 0.9
        yield Line(place, ts_ns if known else None, caller, words, structured=known and generator.random() < 0.5)


@pytest.mark.parametrize("seed", range(3))
def test_fuzzed_lines_neither_break_nor_grow_it(seed):
    assembler = ReportAssembler()
    for line in fuzzed(seed, 6000):
        assembler.feed([line])
        if line.place % 500 == 0:
            state = assembler.state()
            assert len(json.dumps(state)) < 256 << 10
            assert ReportAssembler.restore(copy.deepcopy(state)).state() == state
    assembler.close()
    assert assembler.open_reports == ()


def test_a_record_of_two_lines_is_body_with_both_and_never_begins_or_ends_a_second():
    registers = "pc : [<c0101234>]    lr : [<c0105678>]    psr: 60000013\nsp : c0d01f30  ip : 00000000  fp : c0d01f3c"
    (report,) = assemble(records([(10.0, SOFT.format(1, 22, "one", 11)), (10.0, registers)]))
    assert [each.text for each in report.lines][1:] == registers.split("\n")
    csd = "smp: csd: Detected non-responsive CSD lock (#1) on CPU#0, waiting 5001000000 ns for CPU#05 do_nothing+0x0/0x10(0x0)."
    end = "csd: CSD lock (#1) got unstuck on CPU#00, CPU#05 released the lock."
    hung = "INFO: task dd:145 blocked for more than 120 seconds."
    (report,) = assemble(records([(10.0, f"{csd}\n{end}\n{hung}\n{SOFT.format(1, 22, 'one', 11)}")]))
    assert (report.kind, report.ended) == (Kind.CSD_STALL, False)
    (report,) = assemble(records([(10.0, csd), (11.0, f"tmpfs: Unknown parameter 'x\n{end}\n{hung}\n'")]))
    assert (report.kind, report.ended) == (Kind.CSD_STALL, False)


def test_of_a_record_so_many_lines_are_looked_at():
    (report,) = assemble(records([(10.0, SOFT.format(1, 22, "one", 11) + "\nCall Trace:" * 1000)]))
    assert len(report.lines) == 1 + module.MORE_LINES_MAX


def test_a_report_that_the_clock_fell_behind_is_over_when_so_many_lines_have_passed():
    assembler = ReportAssembler()
    assembler.feed([record(1, 9000.0, SOFT.format(1, 22, "one", 11), "C1")])
    many = [record(2 + i, 100.0, "usb 1-1: something", "C2") for i in range(module.ADJACENT_LINES_MAX + 1)]
    assert [each.what for each in assembler.feed(many[:-1])] == []
    assert [each.what for each in assembler.feed(many[-1:])] == ["closed"]
