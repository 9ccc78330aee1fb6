import pytest

from consumers.reports import screen
from consumers.reports.grammar import ROWS, match
from consumers.reports.grammar_row import Role
from consumers.reports.report import Line
from tests.consumers.reports._corpus import KERNEL_NEGATIVES, LINES, TEXT_NEGATIVES


def line(text, *, structured=True, ts_ns=1):
    return Line(1, ts_ns, "", text, structured)


@pytest.mark.parametrize(("row", "kernel", "text", "groups"), LINES)
def test_a_line_of_the_kernel_is_its_row(row, kernel, text, groups):
    found = match(line(text))
    assert found is not None and (found.row.name, found.damaged) == (row, False), kernel
    assert {key: found.groups.get(key) for key in groups} == groups
    # What is read of text is the same, so is what the bulk scan lets through.
    assert match(line(text, structured=False)) == found
    if found.row.role not in (Role.BODY, Role.LOSS):
        assert screen.suspicious(text.encode())


def test_every_row_has_a_line_of_the_corpus():
    assert {row.name for row in ROWS} == {row for row, *_ in LINES}


def test_a_line_that_begins_right_and_ends_wrong_is_a_damaged_one():
    cut = [
        ("watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:1", "soft_lockup", {"cpu": "1", "dur_s": "23"}),
        ("watchdog: BUG: soft lockup - CPU#1", "soft_lockup", {"cpu": "1"}),
        ("INFO: task dd:145 blocked for more", "hung_task", {"comm": "dd", "pid": "145"}),
        ("BUG: workqueue lockup - pool cpus=3 no", "workqueue_lockup", {"cpus": "3"}),
        ("rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: {", "rcu_exp_stall", {}),
        ("watchdog: Watchdog detected hard LOCKUP on c", "hard_lockup", {}),
    ]
    for text, row, groups in cut:
        for structured in (True, False):
            found = match(line(text, structured=structured))
            assert (found.row.name, found.damaged) == (row, True)
            assert {key: found.groups[key] for key in groups} == groups


# As mail and pagers break lines; the beginning still says what it was.
@pytest.mark.parametrize(
    ("text", "row", "groups"),
    [
        ("rcu: INFO: rcu_sched self-", "rcu_stall_self", {"flavor": "rcu_sched"}),
        ("rcu: INFO: rcu_preempt self-detected st=", "rcu_stall_self", {"flavor": "rcu_preempt"}),
        ("INFO: rcu_sched detected stalls on", "rcu_stall_other", {"flavor": "rcu_sched"}),
        ("INFO: rcu_tasks detected stalls on", "rcu_tasks_stall", {"flavor": "rcu_tasks"}),
        ("rcu: INFO: rcu_preempt detected expedited stalls on", "rcu_exp_stall", {"flavor": "rcu_preempt"}),
        ("INFO: task kworker/u50:3:3472 blocked ", "hung_task", {"comm": "kworker/u50:3", "pid": "3472"}),
        ("rcu: \t(t=60006 jiffies ", "rcu_tail", {"jiffies": "60006"}),
        ("\t(detected by 1, t=15015 jiffies, g=102", "rcu_tail", {"by": "1", "jiffies": "15015"}),
    ],
)
def test_a_line_that_was_broken_in_two_is_known_by_its_beginning(text, row, groups):
    for structured in (True, False):
        found = match(line(text, structured=structured, ts_ns=None))
        assert (found.row.name, found.damaged) == (row, True)
        assert {key: found.groups[key] for key in groups} == groups
    assert screen.suspicious(text.encode())


def test_a_record_of_the_kernel_with_another_stuck_to_it_is_a_damaged_one():
    found = match(line("rcu: INFO: rcu_preempt self-detected stall on CPUwatchdog: x"))
    assert (found.row.name, found.damaged, found.groups) == ("rcu_stall_self", True, {"flavor": "rcu_preempt"})


def test_in_text_a_report_is_found_behind_what_nobody_knows():
    text = "qemu-7: watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137] [more]"
    assert match(line(text, structured=False)).row.name == "soft_lockup"
    # A record of the kernel begins with what it is: this one quotes.
    assert match(line(text)).row.role is Role.NEAR


@pytest.mark.parametrize(
    "text",
    [
        'look for "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]" in the log',
        "grep 'INFO: task dd:145 blocked for more than 120 seconds' /var/log/kern.log",
        "the message `rcu: INFO: rcu_preempt self-detected stall on CPU` says",
        "it begins with `NMI watchdog: BUG: soft lockup - CPU#1`",
        "| hard_lockup | Watchdog detected hard LOCKUP | 10 s |",
        "a row says (P?) Tasks blocked on level-0 and more",
        "vm1  11.394983 printk  INFO: task dd:145 blocked for mo",
    ],
)
def test_what_text_quotes_is_no_report(text):
    assert match(line(text, structured=False, ts_ns=None)) is None


@pytest.mark.parametrize("text", TEXT_NEGATIVES)
def test_what_a_rule_or_a_manual_says_is_no_report(text):
    assert match(line(text, structured=False, ts_ns=None)) is None
    # Nor is it where a kernel repeats it: a record of its own begins with what it is.
    found = match(line(text))
    assert found is None or found.row.role is Role.NEAR


@pytest.mark.parametrize("text", KERNEL_NEGATIVES)
def test_what_only_sounds_like_a_report_is_none(text):
    found = match(line(text))
    assert found is None or found.row.role not in (Role.START, Role.TAIL)


def test_wording_that_nobody_knows_is_a_near_miss():
    for text in (
        "watchdog: CPU7 soft lockup, no progress for 22s (task sh)",
        "rcu: rcu_preempt stall on CPU 3 after 21s",
        "INFO: task dd:1 has been hung for 122 seconds",
        "BUG: CPU#3 is stuck in state 4",
    ):
        assert match(line(text)).row.role is Role.NEAR
        assert screen.suspicious(text.encode())
        # Text without a time is anybody's prose.
        assert match(line(text, structured=False, ts_ns=None)) is None


def test_a_long_hostile_line_takes_linear_time():
    for text in (
        "watchdog: BUG: soft lockup - CPU#1 stuck for 2s! [" + "[a:1] " * 200_000,
        "INFO: task " + "INFO: task a:1 " * 80_000,
        "[<0>] " * 200_000,
        "(" * 500_000 + ")" * 500_000,
    ):
        for structured in (True, False):
            match(line(text, structured=structured))


def test_text_that_is_no_unicode_is_read_all_the_same():
    assert match(line("watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [\udcff:137]")).row.name == "soft_lockup"


QUOTED = [
    "tmpfs: Unknown parameter 'x\nwatchdog: BUG: soft lockup - CPU#1 stuck for 22s! [kworker/1:0:101]\ny'",
    "tmpfs: Unknown parameter 'x\nINFO: task kswapd0:55 blocked for more than 999 seconds.\ny'",
    "tmpfs: Unknown parameter 'x\nsmp: csd: CSD lock (#1) got unstuck on CPU#01\ny'",
    "tmpfs: Unknown parameter 'x\nKernel panic - not syncing: softlockup: hung tasks\ny'",
    "tmpfs: Unknown parameter 'x\nLinux version 6.1.0 (me)\ny'",
    "tmpfs: Unknown parameter 'x\nnvme nvme0: I/O 5 QID 3 timeout, aborting\ny'",
    "tmpfs: Unknown parameter 'x\nNMI watchdog: soft lockup on CPU#1, of a sort that nobody knows\ny'",
]


@pytest.mark.parametrize("text", QUOTED)
def test_what_a_record_quotes_behind_a_line_break_is_nothing(text):
    assert match(line(text.split("\n")[1])) is not None
    assert match(line(text)) is None


def test_a_record_of_several_lines_is_what_its_first_is():
    found = match(line("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [x:1]\nINFO: task y:2 blocked\nmore"))
    assert (found.row.name, found.damaged) == ("soft_lockup", False)
    assert found.rest == "INFO: task y:2 blocked\nmore"


def test_the_name_of_a_task_may_hold_a_line_break():
    found = match(line("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [a\nINFO: b:77]"))
    assert (found.groups["comm"], found.groups["pid"], found.damaged, found.rest) == ("a\nINFO: b", "77", False, "")
    (cut,) = {match(line("INFO: task a\nb:77 blocked for mo")).groups["comm"]}
    assert cut == "a\nb"
