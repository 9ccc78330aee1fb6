"""What a row of the grammar is: one wording of one line of the kernel, as data."""

from enum import StrEnum
from typing import Final, NamedTuple

from consumers.reports.report import Kind


class Role(StrEnum):
    """What a line does: it begins a report, goes on with one, closes one, or stands beside it.

    `tail` is body that may be the only thing that survives of a report; `fatal` is what a kernel says before it panics,
    and a report only if it does; `context` is evidence and never a report;
    `silence` says that from here on silence means nothing; `loss` that lines are missing; `boot` is what a boot says of
    itself; `near` looks like a report and is in no other row.
    """

    START = "start"
    BODY = "body"
    TAIL = "tail"
    FATAL = "fatal"
    END = "end"
    CONTEXT = "context"
    SILENCE = "silence"
    LOSS = "loss"
    BOOT = "boot"
    NEAR = "near"


class Row(NamedTuple):
    """One wording.

    `pattern` (RE2) is the whole line without prefixes. `stub` is the least of it that still says what the line was;
    empty where nothing less would. `literals` are what a line of this row cannot lack, one of them: for the bulk
    screening; empty for rows that only count beside others. `first` and `last` are the kernel trees, an empty `last`
    for wording that is still there. `source` is the file of the kernel that prints it.

    Names of groups: `cpu`, `cpus`, `by`, `comm`, `pid`, `dur_s`, `flavor` fill the report; every other group that is a
    number goes to the report's `numbers` under its name.
    """

    name: str
    role: Role
    kind: Kind | None
    pattern: str
    stub: str
    literals: tuple[str, ...]
    first: str
    last: str
    source: str


#: RCU's prefix: none up to 4.18.
P: Final = r"(?:rcu: )?"
#: The watchdog's: none in 3.x, `NMI watchdog: ` in 4.4 to 4.11, `watchdog: ` from 4.15.
W: Final = r"(?:(?:NMI )?watchdog: )?"
#: A task's name: 15 bytes, any of them.
COMM: Final = r"(?P<comm>.{0,64})"
#: The end of an RCU report: how long, which grace period. `c=` to 4.18, `ncpus=` from 6.1.
TAIL: Final = (
    r"\((?:detected by (?P<by>\d+), )?t=(?P<jiffies>\d+) jiffies"
    r"(?:,? g=(?P<gp>-?\d+),?(?: c=-?\d+,?)?(?: q=(?P<queued>\d+))?(?: ncpus=(?P<ncpus>\d+))?)?\)"
)
