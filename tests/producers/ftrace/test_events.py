import pytest

from producers.ftrace import events as ftrace_events
from schemas.errors import UsageError

KNOWN = [
    "irq:irq_handler_entry",
    "irq:irq_handler_exit",
    "sched:sched_switch",
    "sched:sched_wakeup",
    "timer:timer_init",
]
FORMAT = """\
name: sched_switch
ID: 316
format:
	field:unsigned short common_type;	offset:0;	size:2;	signed:0;
	field:unsigned char common_flags;	offset:2;	size:1;	signed:0;

	field:char prev_comm[16];	offset:8;	size:16;	signed:0;
	field:pid_t prev_pid;	offset:24;	size:4;	signed:1;
	field:__data_loc char[] name;	offset:28;	size:4;	signed:0;
"""


@pytest.mark.parametrize(
    ("patterns", "events"),
    [
        (["sched:sched_switch"], KNOWN[2:3]),
        (["irq:*", "irq:irq_handler_exit"], KNOWN[:2]),
        (["*:*_init", "sched:sched_w?keup"], [KNOWN[3], KNOWN[4]]),
        (["*:*"], KNOWN),
    ],
)
def test_patterns_mean_events(patterns, events):
    assert ftrace_events.resolve(patterns, KNOWN) == events


@pytest.mark.parametrize(
    ("pattern", "nearest"),
    [("sched:sched_wakep", "sched:sched_wakeup"), ("irqs:*", "irq:*"), ("zz:zz", "timer:timer_init")],
)
def test_what_means_none_is_answered_with_the_nearest(pattern, nearest):
    with pytest.raises(UsageError, match=r"the nearest is ") as caught:
        ftrace_events.resolve([pattern], KNOWN)
    assert pattern in str(caught.value)
    if pattern != "zz:zz":
        assert str(caught.value).endswith(nearest)


def test_filters_belong_to_events_of_the_set():
    chosen = KNOWN[:3]
    assert ftrace_events.resolve_filters(["irq:*=irq == 5", "sched:sched_switch= a == 'x=y' "], chosen) == {
        "irq:irq_handler_entry": "irq == 5",
        "irq:irq_handler_exit": "irq == 5",
        "sched:sched_switch": "a == 'x=y'",
    }
    with pytest.raises(UsageError, match="the set has no event timer:timer_init, the nearest is "):
        ftrace_events.resolve_filters(["timer:timer_init=a"], chosen)
    with pytest.raises(UsageError, match="there is another one for irq:irq_handler_exit"):
        ftrace_events.resolve_filters(["irq:*=irq", "irq:irq_handler_exit=irq"], chosen)


def test_a_word_that_is_no_field_is_found():
    fields = ftrace_events.field_names(FORMAT)
    assert fields == ["common_type", "common_flags", "prev_comm", "prev_pid", "name"]
    hint = ftrace_events.field_hint("prev_pid > 0 && prev_com == 'x'", fields)
    assert hint == "; there is no field prev_com, the nearest is prev_comm"
    assert ftrace_events.field_hint("!(prev_pid > 0 || prev_pd == 1)", fields).startswith("; there is no field prev_pd")


@pytest.mark.parametrize(
    "expression",
    [
        "prev_pid > 0 && CPU == 1",
        "prev_comm == bash && prev_pid != 3",
        'prev_comm ~ "a && b == c*" || !(prev_pid & 4)',
        "name.ustring ~ 'x' && COMM != 'y'",
        "CPU & CPUS{0-3}",
    ],
)
def test_what_a_field_is_compared_with_is_no_field(expression):
    assert ftrace_events.field_hint(expression, ftrace_events.field_names(FORMAT)) == ""
