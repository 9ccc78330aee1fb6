"""Kernel logs made to hurt who reads them: no line is harmless, and no two are alike.

Every line has a literal of the grammar: starts that are cut, near misses, prefixes in prefixes, lines of a megabyte,
escape sequences between the words, and forged reports whose CPUs, tasks and times go round.
"""

import random
from collections.abc import Iterator
from typing import Final

_BLOCK_BYTES: Final = 1 << 20
_LONG_BYTES: Final = 1 << 20
#: How many lines stand between two of a megabyte.
_LONG_EVERY: Final = 5_000
_STARTS: Final = (
    "watchdog: BUG: soft lockup - CPU#{a} stuck for {b}s! [t{c}:{c}]",
    "watchdog: CPU{b}: Watchdog detected hard LOCKUP on cpu {a}",
    "rcu: INFO: rcu_sched self-detected stall on CPU",
    "rcu: INFO: rcu_preempt detected stalls on CPUs/tasks: {{ {a}-... }}",
    "INFO: task x{c}:{c} blocked for more than {b} seconds.",
    "BUG: workqueue lockup - pool cpus={a} node=0 flags=0x0 nice=0 stuck for {b}s!",
    "smp: csd: Detected non-responsive CSD lock (#{c}) on CPU#{a}, waiting 5000000{b} ns for CPU#{a} f+0x0/0x0(0x0).",
    "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: {{ {a}-...D }} {b} jiffies s: {c} root: 0x1/.",
)
_BODIES: Final = (
    "rcu: \t{a}-....: ({b} ticks this GP) idle=002/1/0x4000000000000000 softirq=1/2 fqs={c}",
    "rcu: \t(t={b} jiffies g={c} q={a} ncpus=4)",
    "rcu: rcu_sched kthread starved for {b} jiffies! g{c} f0x0 RCU_GP_WAIT_FQS(5) ->state=0x0 ->cpu={a}",
    "CPU: {a} PID: {c} Comm: t{c} Not tainted 6.1.{b} #1",
    "RIP: 0010:f{c}+0x{a}/0x{b} [m{a}]",
    " g{c}+0x{a}/0x{b}",
    "Sending NMI from CPU {a} to CPUs {b}:",
    "** {b} printk messages dropped **",
    "Kernel panic - not syncing: softlockup: hung tasks",
)
_NEAR: Final = (
    "watchdog: a soft lockup of a new sort on CPU {a} for {b} s, task {c}",
    "rcu: INFO: rcu_new detected stall of another kind on CPU {a} ({b} {c})",
    "INFO: task t{c}:{c} is blocked for longer than {b} seconds",
)
_PREFIXES: Final = (
    "<{a}>", "kernel: ", "Nov 24 02:12:06 h kernel: ", "[    1.{b:06}] ", "kern  :warn  : ", "> ", "\t", "WARN: ",
    "2026-11-24T02:12:06,000001+00:00 ", "[Tue Nov 24 02:12:06 2026] ", "[   12.000001][ T{c}] ", "watchdog: ",
)  # fmt: skip
_ESCAPES: Final = ("\x1b[31m", "\x1b[0m", "\x1b(B", "\x1b]0;x", "\x1b[", "\x07", "\r", "#011", "\0", "\x1b[2J\x1b[H")


def texts(seed: int = 1) -> Iterator[str]:
    """Yield lines without the end of line and without printk's time, for ever."""
    rng = random.Random(seed)
    number = 0
    while True:
        number += 1
        yield _long(rng) if number % _LONG_EVERY == 0 else _line(rng, number)


def blocks(size_bytes: int, seed: int = 1) -> Iterator[bytes]:
    """Yield a console log of about `size_bytes` in blocks; its time goes on, jumps, falls, and begins anew."""
    rng = random.Random(seed)
    left, pending, ts_us = size_bytes, bytearray(), 0
    for text in texts(seed):
        ts_us += rng.choice((0, 7, 100, 5_000)) if rng.random() < 0.999 else rng.choice((600_000_000, -50_000_000))
        if rng.random() < 0.0005:
            ts_us = 0
            text = "Linux version 6.1.0 (a@b) #1 SMP"  # noqa: PLW2901
        caller = f"[{rng.choice('TC')}{rng.randrange(99):>5}] " if rng.random() < 0.5 else ""
        stamp = (
            f"[{max(ts_us, 0) // 1_000_000:5}.{max(ts_us, 0) % 1_000_000:06}] {caller}" if rng.random() < 0.9 else ""
        )
        pending += f"{stamp}{text}\n".encode()
        if len(pending) >= min(_BLOCK_BYTES, left):
            yield bytes(pending)
            left -= len(pending)
            pending.clear()
        if left <= 0:
            return


def _line(rng: random.Random, number: int) -> str:
    kind = rng.random()
    template = rng.choice(_STARTS if kind < 0.45 else _NEAR if kind < 0.6 else _BODIES)
    text = template.format(a=rng.randrange(256), b=rng.randrange(20, 99_999), c=number)
    what = rng.random()
    if what < 0.25:
        return text[: rng.randrange(len(text) // 2, len(text) + 1)]
    if what < 0.45:
        prefixes = (rng.choice(_PREFIXES).format(a=rng.randrange(8), b=number % 10**6, c=number) for _ in range(12))
        return "".join(prefixes) + text
    if what < 0.6:
        at = rng.randrange(len(text))
        soup = "".join(rng.choice(_ESCAPES) for _ in range(rng.randrange(1, 30)))
        return text[:at] + soup + text[at:]
    return text


def _long(rng: random.Random) -> str:
    part = rng.choice((*_STARTS, *_NEAR, *_PREFIXES, *_ESCAPES, "INFO: task ", "[", "(t=")).format(a=1, b=22, c=7)
    return "soft lockup" + (part * (_LONG_BYTES // len(part))).replace("\n", "")
