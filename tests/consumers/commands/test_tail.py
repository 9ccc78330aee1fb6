import threading
import time

import pytest

from schemas.loss import Loss
from schemas.surfaces import TOPIC_LOG, TOPIC_TRACE
from tests.consumers import _records, _sample
from tests.consumers._frames import frame, heartbeat
from tests.consumers._records import delay, recorded


@pytest.fixture
def log(tmp_path):
    writer = _sample.LogWriter(tmp_path / "log", retention_bytes=1 << 30, retention_ms=None, segment_bytes=1 << 20)
    yield writer
    writer.close()


def test_a_log_is_printed_to_its_end_as_text(run, sample_log):
    done = run("tail", "--log", sample_log, "--until-end")
    assert done.code == 0
    records = [line for line in done.lines if not line.startswith("---")]
    assert "5f0c2a9b [   11.394983] kern.err: INFO: task hyplab_hold:137 blocked for more than 5 seconds." in records
    assert "b83e17d2 [   34.063557] kern.emerg: watchdog: BUG: soft lockup - CPU#1 stuck for 23s! [sh:137]" in records
    # Tabs and other controls come out as they went into the kernel's escapes.
    assert r"5f0c2a9b [    0.155306] kern.info: \x09Trampoline variant of Tasks RCU enabled." in records
    assert [line for line in done.lines if line.startswith("---")] == [
        "--- 50 lost from 0 on: overwrite, before-first-read ---",
        "--- 60 lost from 200 on: overwrite, ring-overwritten ---",
        r"--- dead letter at hypocenter.log-0 offset 44, position 100: no header in b'6,100,\n' ---",
    ]


def test_records_of_a_ring_are_printed_as_their_types_say_and_losses_between_dashes(run, log, tmp_path):
    lost = Loss("drop", 1, 3, "ring-full-cpu0", "agent", "event")
    frames = [_records.described(), recorded(0, [delay(0)]), recorded(1, [delay(1), b"short"], 1, losses=[lost])]
    for each in frames:
        log.append(TOPIC_TRACE, each)
    log.sync()
    assert run("tail", "--log", tmp_path / "log", "--surface", "bpf", "--until-end").lines == [
        "--- 3 events lost from 1 on: drop, ring-full-cpu0 ---",
        "[000]     5.000000: sched-delay: flags=0 cpu_seq=0 comm=task state=SLEEPS wait_us=9",
        "[001]     5.000000: sched-delay: flags=0 cpu_seq=0 comm=task state=SLEEPS wait_us=9",
        "--- dead letter at hypocenter.trace-0 offset 2, position 2: 5 bytes are fewer than its struct has ---",
    ]


def test_a_loss_without_a_count_and_one_that_took_nothing_are_worded(run, log, tmp_path):
    losses = [Loss("drop", 0, None, "unknown", "shipper"), Loss("reset", 0, 0, "new-boot", "agent")]
    log.append(TOPIC_LOG, heartbeat(0, 0, losses=losses))
    log.sync()
    assert run("tail", "--log", tmp_path / "log", "--until-end").lines == [
        "--- an unknown number of lost from 0 on: drop, unknown ---",
        "--- reset: new-boot ---",
    ]


def test_it_begins_with_what_comes_next_or_from_the_start(run, log, tmp_path):
    log.append(TOPIC_LOG, frame(0, 1, 0, text="old"))
    log.sync()

    def later():
        time.sleep(0.7)
        log.append(TOPIC_LOG, frame(1, 2, 1, text="new"))
        log.sync()

    for flags, texts in (([], ["new 1"]), (["--from-start"], ["old 0", "new 1"])):
        thread = threading.Thread(target=later) if not flags else None
        if thread:
            thread.start()
        done = run("tail", "--log", tmp_path / "log", "--for", "1.5" if thread else "0.3", *flags)
        if thread:
            thread.join()
        assert [line.partition(": ")[2] for line in done.lines] == texts


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([], 2, "where from? give --log DIR"),
        (["--log", "NONE"], 69, "there is no log in"),
        (["--log", "LOG", "--surface", "kmgs"], 2, "no surface 'kmgs'; there is: kmsg"),
        (["--log", "LOG", "--for", "0"], 2, "argument --for: a number above 0, not '0'"),
        (["--log", "LOG", "--fro-start"], 2, "there is no flag --fro-start; did you mean --from-start?"),
    ],
)
def test_what_is_wrong_is_said(run, sample_log, tmp_path, words, code, said):
    names = {"LOG": sample_log, "NONE": tmp_path / "none"}
    done = run("tail", *(names.get(word, word) for word in words))
    assert done.code == code
    assert said in done.err
