import random

import pytest

from consumers.reports.prefix import JOINED_MAX, text_lines

LOCKUP = "watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]"
TS_NS = 12_345_678_000


def read(raw):
    return [(line.ts_ns, line.caller, line.text) for line in text_lines(7, raw)]


@pytest.mark.parametrize(
    ("prefix", "ts_ns", "caller"),
    [
        ("", None, ""),
        ("[   12.345678] ", TS_NS, ""),
        ("[   12.345678][  T123] ", TS_NS, "T123"),
        ("[   12.345678] [C1] ", TS_NS, "C1"),
        ("[    C0] ", None, "C0"),
        ("[   12.] ", None, ""),
        ("<4>[   12.345678] ", TS_NS, ""),
        ("<3> [12.345678] ", TS_NS, ""),
        ("kern  :warn  : [   12.345678] ", TS_NS, ""),
        ("err  : [   12.345678] ", TS_NS, ""),
        ("[   12.345678] err  : ", TS_NS, ""),
        ("[   12.345678 <    0.000012>] ", TS_NS, ""),
        ("[Mon Nov 24 02:12:06 2026] ", None, ""),
        ("2026-11-24T02:12:06,123456+00:00 ", None, ""),
        ("Nov 24 02:12:06 host kernel: ", None, ""),
        ("Nov 24 02:12:06 host kernel: [   12.345678] ", TS_NS, ""),
        ("Nov  4 02:12:06 kernel: [   12.345678] ", TS_NS, ""),
        ("Tue 2026-11-24 02:12:06 UTC host kernel: ", None, ""),
        ("Tue 2026-11-24 02:12:06 CEST host kernel: [   12.345678] ", TS_NS, ""),
        ("Tue 2026-11-24 02:12:06 +03 host kernel: ", None, ""),
        ("1795486326.979732 host kernel: ", None, ""),
        ("[Nov24 02:12] ", None, ""),
        ("[Nov 4 02:12] ", None, ""),
        ("[  +0.000123] ", None, ""),
        ("[ +11.345678] [C1] ", None, "C1"),
        ("kern  :warn  : [  +0.000022] ", None, ""),
        ("[<   11.345678>] ", None, ""),
        ("[Tue Nov 24 02:12:06 2026 <   11.345678>] ", None, ""),
        ("<0>1 2026-11-24T02:12:06.123Z host kernel - - - ", None, ""),
        ('<4>1 2026-11-24T02:12:06+01:00 host.example kernel - - [a@1 b="c"] [   12.345678] ', TS_NS, ""),
        ("[ ] ", None, ""),
        ("[            ] ", None, ""),
        ("maj 27 23:17:02 host kernel: ", None, ""),
        ("Mär  4 02:12:06 host kernel: ", None, ""),
        ("déc. 24 02:12:06 host kernel: [   12.345678] ", TS_NS, ""),
        ("May 25 07:29:42 host 0,16627,12345678,-,caller=C0;", TS_NS, "C0"),
        ("6.1.0-56-amd64,0,16627,12345678,-;", TS_NS, ""),
        ("[   12.345678] kernel: ", TS_NS, ""),
        ("kernel:[   12.345678] ", TS_NS, ""),
        ("2026-11-24T02:12:06.123456+00:00 host kernel: [   12.345678] ", TS_NS, ""),
        ("<3>Nov 24 02:12:06 host kernel: ", None, ""),
        ("Nov 24 02:12:06 host kernel: kernel: [   12.345678] err  : ", TS_NS, ""),
        ("2026-11-24T02:12:06.1234567Z Nov 24 02:12:06 host kernel: [   12.345678][   C1] ", TS_NS, "C1"),
        ("2026-11-24 02:12:06,123 DEBUG | [   12.345678] ", TS_NS, ""),
        ("[2026-11-24T02:12:06.123Z] [   12.345678] ", TS_NS, ""),
        ("[  123s] [   12.345678] ", TS_NS, ""),
        ("02:12:06 ", None, ""),
        ("> > [   12.345678] ", TS_NS, ""),
        ("guest | [   12.345678] ", TS_NS, ""),
        ("\x1b[32m[   12.345678] \x1b[0m\x1b[31m", TS_NS, ""),
    ],
)
def test_what_stands_before_a_line_is_taken_off(prefix, ts_ns, caller):
    raw = (prefix + LOCKUP).encode()
    assert read(raw) == [(ts_ns, caller, LOCKUP)]
    assert read(raw + b"\r\n") == [(ts_ns, caller, LOCKUP)]


@pytest.mark.parametrize(
    "raw",
    [
        f"Nov 24 02:12:06 host agent[12]: {LOCKUP}",
        f'Nov 24 02:12:06 host agent[12]: saw "[   12.345678] {LOCKUP}"',
        f"2026-11-24T02:12:06.123456+00:00 host monitor[3]: {LOCKUP}",
        f"Tue 2026-11-24 02:12:06 UTC host monitor[3]: {LOCKUP}",
        f"1795486326.979732 host monitor[3]: {LOCKUP}",
        f"<13>1 2026-11-24T02:12:06.123Z host monitor 3 - - {LOCKUP}",
        f"<13>1 2026-11-24T02:12:06.123Z host monitor - - - {LOCKUP}",
        f"<12>[   12.345678] {LOCKUP}",
        f"user  :warn  : [   12.345678] {LOCKUP}",
        f"[   12.345678] systemd[1]: {LOCKUP}",
        f"[   12.345678] host agent[12]: {LOCKUP}",
        f"[   12.345678 <    0.000100 >] host agent[12]: {LOCKUP}",
        f"Nov 24 02:12:06 host (agent)[12]: {LOCKUP}",
        f"Nov 24 02:12:06 host my agent+x[12]: {LOCKUP}",
        f"14,16627,12345678,-,caller=T7;{LOCKUP}",
        f"May 25 07:29:42 host 14,16627,12345678,-;{LOCKUP}",
    ],
)
def test_what_a_program_wrote_is_no_line_of_the_kernel(raw):
    assert read(raw.encode()) == []


def test_two_records_in_one_line_are_two():
    raw = f"[   12.345678] {LOCKUP}[   12.345679][   C1] Modules linked in: x".encode()
    assert read(raw) == [(TS_NS, "", LOCKUP), (TS_NS + 1000, "C1", "Modules linked in: x")]
    assert read(b"[    1.000000] 10 %\r[    1.000001] 20 %\r") == [(10**9, "", "10 %"), (10**9 + 1000, "", "20 %")]
    assert len(read(b"[    1.000000] a" * 1000)) <= JOINED_MAX


def test_what_a_daemon_escaped_is_a_tab_again():
    assert read(b"Nov 24 02:12:06 host kernel: rcu: #0111-...0: (4 ticks") == [(None, "", "rcu: \t1-...0: (4 ticks")]


def test_a_line_is_its_number_in_the_file_and_never_structured():
    (line,) = text_lines(7, b"[    1.000000] x")
    assert (line.place, line.structured) == (7, False)


def test_hostile_lines_end():
    generator = random.Random(5)
    parts = [
        b"[    1.000000]",
        b"<4>",
        b"Nov 24 02:12:06 ",
        b"kernel: ",
        b"\x1b[",
        b"> ",
        b"\r",
        b"\xff",
        b"#011",
        b"[",
        b"]: ",
        b" ",
    ]
    for _ in range(3000):
        raw = b"".join(generator.choice(parts) for _ in range(generator.randrange(60)))
        for line in text_lines(1, raw):
            assert len(line.text) <= len(raw)
    for part in parts:
        list(text_lines(1, part * (1_000_000 // len(part))))
