import random
from pathlib import Path

from consumers.reports.kmsg_record import kmsg_line
from consumers.reports.screen import candidates, next_opening, suspicious

CAPTURES = Path(__file__).parent / "captures"
HEALTHY = [b"usb 1-1: new high-speed USB device", b"9pnet: Installing 9P2000 support", b"", b"EXT4-fs (vda): mounted"]


def test_a_buffer_without_any_literal_of_the_grammar_is_let_go():
    data = b"\n".join(HEALTHY * 100)
    assert not suspicious(data)
    assert not suspicious(memoryview(data))
    assert list(candidates(data)) == []


def test_candidates_are_the_beginnings_of_their_lines():
    generator = random.Random(3)
    for _ in range(200):
        lines = [
            b"a soft lockup and a soft lockup" if generator.random() < 0.1 else generator.choice(HEALTHY)
            for _ in range(generator.randrange(1, 60))
        ]
        data = b"\n".join(lines)
        wanted = [sum(len(each) + 1 for each in lines[:i]) for i, line in enumerate(lines) if b"lockup" in line]
        assert list(candidates(data)) == wanted
        assert suspicious(data) == bool(wanted)
        assert suspicious(memoryview(data)) == bool(wanted)


def test_context_alone_opens_nothing():
    context = b"workqueue: x hogged CPU for >10000us 4 times, consider switching to WQ_UNBOUND\n"
    data = b"usb 1-1: new\n" + context + b"a watchdog: BUG: soft lockup - CPU#1\n" + context
    assert len(list(candidates(data))) == 3
    at = data.index(b"a watchdog")
    assert next_opening(data, 0) == at
    assert next_opening(data, at) == at
    assert next_opening(data, data.index(b"\n", at) + 1) is None


def test_what_a_healthy_machine_prints_is_hardly_ever_looked_at():
    data = (CAPTURES / "vm-paused-30s.kmsg").read_bytes()
    found = [kmsg_line(data[at:].partition(b"\n")[0]).text for at in candidates(data)]
    assert [text.partition(" ")[0] for text in found] == ["Linux", "Calibrating"]
