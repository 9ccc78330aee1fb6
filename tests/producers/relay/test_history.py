from producers.log import LogWriter
from producers.relay.history import _FRAMES_MAX, History, boot_name, recalled, split_boot
from schemas.frame import Tags, content, decode_tags, encode, stamp
from schemas.segment import StreamPosition
from schemas.stream import Stream
from tests._logs import TOPIC, frame

STREAM = Stream("m", "boot", "guest-kernel", "kmsg", "", "printk")


def tags(number, stream=STREAM, run="r"):
    return Tags(stream, run, number, number * 10, number * 10 + 10, 0, 0)


def test_what_comes_again_is_known():
    history = History()
    assert [history.is_known(tags(n), n) for n in (0, 1, 2, 1, 2, 3)] == [False, False, False, True, True, False]
    assert history.epoch("boot") == 0


def test_other_content_under_a_known_number_begins_one_epoch_for_all_streams():
    history, other = History(), STREAM._replace(instance="other")
    for n in range(10):
        history.is_known(tags(n), n)
        history.is_known(tags(n, other), n)
    assert not history.is_known(tags(5), 50)
    assert history.epoch("boot") == 1
    assert not history.is_known(tags(6, other), 60)  # of before the snapshot: no contradiction of its own
    assert history.epoch("boot") == 1
    assert history.is_known(tags(4), 4)
    assert history.is_known(tags(5), 50)
    assert not history.is_known(tags(6), 61)
    assert not history.is_known(tags(5), 51)
    assert (history.epoch("boot"), history.generation) == (2, 2)
    assert history.epoch("another") == 0


def test_memory_is_bounded_and_what_is_older_is_left_to_the_readers():
    history = History()
    for n in range(3 * _FRAMES_MAX):
        history.is_known(tags(n), n)
    assert not history.is_known(tags(0), 1)
    assert history.epoch("boot") == 0
    for n in range(1000):
        history.is_known(tags(0, run=str(n)), n)
    (boot,) = history._boots.values()
    assert len(boot.runs) <= 512
    assert all(len(run.numbers) < 2 * _FRAMES_MAX for run in boot.runs.values())


def test_what_a_shipper_says_of_its_losses_is_never_a_contradiction():
    history = History()
    assert not any(history.is_known(tags(5, run="ship-x"), n) for n in range(3))
    assert history.epoch("boot") == 0


def test_a_name_says_boot_and_epoch():
    for boot, epoch in (("b", 0), ("b", 1), ("b-c", 12)):
        assert split_boot(boot_name(boot, epoch)) == (boot, epoch)
    assert split_boot("a+b") == ("a+b", 0)


def test_a_log_says_what_it_holds_of_each_guest(tmp_path, monkeypatch):
    log = LogWriter(tmp_path / "log", retention_bytes=1 << 40, retention_ms=None, segment_bytes=700)
    before = History()
    for boot in ("boot", "boot+1"):
        for n in range(5 if boot == "boot" else 3, 8):
            data = encode(frame(n, b"%s %d" % (boot.encode(), n), STREAM))
            mark = decode_tags(data)
            before.is_known(mark, content(data, mark))
            named = STREAM._replace(machine="vm", boot_id=boot)
            log.append_encoded(TOPIC, stamp(data, mark, named), named, StreamPosition(n * 10 + 10, n))
    stands = log.positions
    log.close()
    read = []
    monkeypatch.setattr("producers.relay.history._RECALL_BYTES", 100)
    monkeypatch.setattr(History, "recall", lambda _, mark, content: read.append(mark.number))
    assert recalled(tmp_path / "log", stands)["vm"].epoch("boot") == 1
    assert 0 < len(read) < 8
    assert read[-1] == 7
    monkeypatch.undo()
    history = recalled(tmp_path / "log", stands)["vm"]
    assert history.epoch("boot") == 1
    for n in range(3, 8):
        data = encode(frame(n, b"boot+1 %d" % n, STREAM))
        mark = decode_tags(data)
        assert history.is_known(mark, content(data, mark))
    data = encode(frame(6, b"other", STREAM))
    mark = decode_tags(data)
    assert not history.is_known(mark, content(data, mark))
    assert history.epoch("boot") == 2
